//! Which `TALLY_*` variables there may be: a misspelt one would be ignored, and with it what it was
//! meant to set.

use super::key::{KEYS, Key};

/// How every variable of ours begins.
pub(super) const PREFIX: &str = "TALLY_";

/// Variables that are not settings of a member.
const OTHERS: [&str; 5] = [
    "TALLY_CONFIG",
    "TALLY_ENDPOINTS",
    "TALLY_TIMEOUT",
    "TALLY_OUTPUT",
    // Which binary the tests and scripts run.
    "TALLY_BIN",
];

/// What tests are told.
const OF_TESTS: &str = "TALLY_TEST_";

/// Kubernetes gives these to every pod beside a service whose name begins with `tally`, for example
/// `TALLY_SERVICE_HOST` and `TALLY_CLIENT_PORT_7411_TCP`. See "Discovering services" in its manual.
const OF_SERVICES: [&str; 3] = ["_SERVICE_HOST", "_SERVICE_PORT", "_PORT"];

/// True when some part of Tally, or what runs it, gives the variable a meaning.
pub(super) fn known(name: &str) -> bool {
    let of_service = |part: &str| name.ends_with(part) || name.contains(&format!("{part}_"));
    KEYS.iter().any(|key| key.variable() == name)
        || OTHERS.contains(&name)
        || name.starts_with(OF_TESTS)
        || OF_SERVICES.iter().any(|part| of_service(part))
}

/// The variables of settings, the ones that are written most alike first.
pub(super) fn nearest(name: &str) -> String {
    let mut names = Vec::from_iter(KEYS.iter().map(Key::variable));
    names.push("TALLY_CONFIG".to_owned());
    names.sort_by_key(|known| distance(name, known));
    format!("one of {}", names.join(", "))
}

/// How many letters must be put in, taken out or exchanged to make one of the other (Levenshtein).
fn distance(one: &str, other: &str) -> usize {
    let mut row = Vec::from_iter(0..=other.len());
    for (i, a) in one.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in other.bytes().enumerate() {
            let exchanged = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = exchanged.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_some_part_of_tally_or_its_machine_knows_is_known() {
        for name in [
            "TALLY_DATA_DIR",
            "TALLY_LOG_LEVEL",
            "TALLY_ENDPOINTS",
            "TALLY_CONFIG",
            "TALLY_TEST_SEED",
            "TALLY_BIN",
            "TALLY_PORT",
            "TALLY_SERVICE_HOST",
            "TALLY_SERVICE_PORT_CLIENT",
            "TALLY_PEERS_PORT_7412_TCP_ADDR",
        ] {
            assert!(known(name), "{name}");
        }
        for name in ["TALLY_DATADIR", "TALLY_LISTEN", "TALLY_LOG_LEVL"] {
            assert!(!known(name), "{name}");
        }
    }

    #[test]
    fn the_one_that_was_meant_stands_first() {
        assert!(nearest("TALLY_DATADIR").starts_with("one of TALLY_DATA_DIR, "));
        assert!(nearest("TALLY_HEARTBEAT").starts_with("one of TALLY_HEARTBEAT_MS, "));
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
