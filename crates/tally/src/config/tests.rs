#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::io::Write;

use tempfile::NamedTempFile;

use super::*;

const MEMBERS: (&str, &str) = ("initial-cluster", "n1=a:1,n2=b:1");

fn file(text: &str) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

/// Reads flags, variables and a file.
fn config(
    flags: &[(&'static str, &str)],
    variables: &[(&str, &str)],
    text: &str,
) -> Result<Config, Failure> {
    let file = file(text);
    let variables = variables
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    let layers = Layers::gather(Flags::of(flags), &variables, Some(file.path()))?;
    Config::read(&layers)
}

const NEEDED: &str = "name = \"n1\"\ndata-dir = \"/d\"\ninitial-cluster = \"n1=a:1,n2=b:1\"\n";

#[test]
fn flags_win_over_variables_and_variables_over_the_file() {
    let text =
        format!("{NEEDED}listen-client = \"f:1\"\nlisten-peer = \"f:2\"\nlisten-http = \"f:3\"\n");
    let variables = [("TALLY_LISTEN_CLIENT", "v:1"), ("TALLY_LISTEN_PEER", "v:2")];
    let config = config(&[("listen-client", "g:1")], &variables, &text).unwrap();
    assert_eq!(config.listen_client, "g:1");
    assert_eq!(config.listen_peer, "v:2");
    assert_eq!(config.listen_http, "f:3");
}

#[test]
fn what_is_not_given_has_a_default_and_an_empty_variable_is_not_given() {
    let config = config(&[], &[("TALLY_LISTEN_CLIENT", "")], NEEDED).unwrap();
    assert_eq!(config.listen_client, CLIENT_DEFAULT);
    assert_eq!(config.listen_peer, PEER_DEFAULT);
    assert_eq!(config.listen_http, HTTP_DEFAULT);
    assert_eq!(config.settings.retry_check, RetryCheck::Marker);
    assert_eq!(config.log_level, Level::default());
    assert_eq!(config.initial_cluster.len(), 2);
}

#[test]
fn a_wrong_value_names_where_it_stands_what_was_found_and_what_is_allowed() {
    let of = |flags: &[(&'static str, &str)], variables: &[(&str, &str)], text: &str| {
        let failure = config(flags, variables, text).unwrap_err();
        assert_eq!(failure.exit.code(), 2);
        failure.to_string()
    };
    let said = of(&[], &[], &format!("{NEEDED}heartbeat-ms = 0\n"));
    assert!(said.contains(", line 4: `heartbeat-ms` is \"0\""), "{said}");
    assert!(said.contains(NUMBER_EXPECTED), "{said}");
    let said = of(&[("listen-peer", "host")], &[], NEEDED);
    assert!(
        said.contains("flag --listen-peer: `listen-peer` is \"host\""),
        "{said}"
    );
    assert!(said.contains("HOST:PORT"), "{said}");
    let said = of(&[], &[("TALLY_LOG_FORMAT", "yaml")], NEEDED);
    assert!(said.contains("variable TALLY_LOG_FORMAT"), "{said}");
    assert!(said.contains("text or json"), "{said}");
    let said = of(&[], &[("TALLY_REPLICATION", "2")], NEEDED);
    assert!(said.contains("{zone: N}"), "{said}");
}

#[test]
fn what_is_missing_is_told_with_all_its_places() {
    let said = config(&[("name", "n1"), MEMBERS], &[], "")
        .unwrap_err()
        .to_string();
    assert!(said.contains("`data-dir` is not given"), "{said}");
    assert!(
        said.contains("--data-dir") && said.contains("TALLY_DATA_DIR"),
        "{said}"
    );
}

#[test]
fn a_name_that_is_not_listed_is_refused() {
    let said = config(&[("name", "n9")], &[], NEEDED)
        .unwrap_err()
        .to_string();
    assert!(
        said.contains("n9") && said.contains("one of n1, n2"),
        "{said}"
    );
    assert!(said.contains("flag --name: "), "{said}");
    assert!(said.contains(", line 3) does not list"), "{said}");
}

#[test]
fn the_relaxed_check_must_be_acknowledged() {
    let relaxed = format!("{NEEDED}retry-check = \"relaxed\"\n");
    let refused = config(&[], &[], &relaxed).unwrap_err();
    assert_eq!(refused.exit.code(), 2);
    assert_eq!(refused.code, codes::UNSAFE_NOT_ACKNOWLEDGED);
    assert!(refused.found.contains("line 4"), "{refused}");
    for allowed in [
        config(&[("i-know-this-is-unsafe", "true")], &[], &relaxed),
        config(&[], &[("TALLY_I_KNOW_THIS_IS_UNSAFE", "true")], &relaxed),
        config(
            &[],
            &[],
            &format!("{relaxed}i-know-this-is-unsafe = true\n"),
        ),
    ] {
        assert_eq!(allowed.unwrap().settings.retry_check, RetryCheck::Relaxed);
    }
    let denied = config(
        &[],
        &[],
        &format!("{relaxed}i-know-this-is-unsafe = false\n"),
    );
    assert_eq!(denied.unwrap_err().code, codes::UNSAFE_NOT_ACKNOWLEDGED);
}

#[test]
fn elections_leave_room_for_heartbeats() {
    let tuned = |heartbeat: &str, least: &str, most: &str| {
        let flags = [
            ("heartbeat-ms", heartbeat),
            ("election-ms-min", least),
            ("election-ms-max", most),
        ];
        config(&flags, &[], NEEDED)
    };
    assert!(tuned("50", "200", "400").is_ok());
    assert!(tuned("150", "200", "400").is_err());
    assert!(tuned("50", "200", "200").is_err());
    let text = format!("{NEEDED}heartbeat-ms = 5000\n");
    let failure = config(&[], &[("TALLY_ELECTION_MS_MIN", "6000")], &text).unwrap_err();
    let said = failure.to_string();
    assert_eq!(failure.exit.code(), 2);
    assert!(said.contains(", line 4: `heartbeat-ms` is 5000"), "{said}");
    assert!(
        said.contains("variable TALLY_ELECTION_MS_MIN: `election-ms-min` is 6000"),
        "{said}"
    );
    assert!(said.contains("expected  2 x heartbeat-ms <="), "{said}");
}

#[test]
fn quiet_watchers_are_not_looked_at_without_a_pause() {
    let every = |ms: &str| config(&[("progress-notify-ms", ms)], &[], NEEDED);
    assert_eq!(every("100").unwrap().tuning.progress_notify_ms, 100);
    for ms in ["99", "0"] {
        let said = every(ms).unwrap_err().to_string();
        assert!(said.contains("a whole number of 100 or more"), "{said}");
    }
}

#[test]
fn a_history_that_is_kept_has_some_length() {
    let kept = |count: &str| config(&[("keep-revisions", count)], &[], NEEDED);
    assert_eq!(kept("100").unwrap().tuning.keep_revisions, 100);
    let said = kept("99").unwrap_err().to_string();
    assert!(said.contains("a whole number of 100 or more"), "{said}");
}

#[test]
fn a_variable_that_nobody_knows_is_refused_unless_it_is_empty() {
    let failure = config(&[], &[("TALLY_LISTEN_CLIENTS", "a:1")], NEEDED).unwrap_err();
    assert_eq!(failure.exit.code(), 2);
    let said = failure.to_string();
    assert!(said.contains("variable TALLY_LISTEN_CLIENTS"), "{said}");
    assert!(said.contains("one of TALLY_LISTEN_CLIENT, "), "{said}");
    assert!(config(&[], &[("TALLY_LISTEN_CLIENTS", "")], NEEDED).is_ok());
    assert!(config(&[], &[("OTHER_LISTEN_CLIENTS", "a:1")], NEEDED).is_ok());
}

#[test]
fn a_message_has_room_for_a_command() {
    let failure = config(&[("message-bytes-max", "1023")], &[], NEEDED).unwrap_err();
    let said = failure.to_string();
    assert!(said.contains("flag --message-bytes-max"), "{said}");
    assert!(said.contains("a whole number from 1024 to"), "{said}");
    let least = config(&[("message-bytes-max", "1024")], &[], NEEDED).unwrap();
    assert_eq!(least.tuning.message_bytes_max, 1024);
}

#[test]
fn what_a_client_may_send_fits_between_members() {
    for key in ["message-bytes-max", "request-bytes-max"] {
        let failure = config(&[(key, "16777217")], &[], NEEDED).unwrap_err();
        let said = failure.to_string();
        assert!(
            said.contains("16777217") && said.contains("to 16777216"),
            "{said}"
        );
        assert!(config(&[(key, "16777216")], &[], NEEDED).is_ok(), "{key}");
    }
}

#[test]
fn the_shipped_file_is_good() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/tally.toml");
    let text = std::fs::read_to_string(path).unwrap();
    let config = config(&[], &[], &text).unwrap();
    assert_eq!(config.name, "n1");
    assert_eq!(config.initial_cluster.len(), 3);
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let path = std::path::Path::new("/nowhere/tally.toml");
    let failure = Layers::gather(Flags::default(), &BTreeMap::new(), Some(path)).unwrap_err();
    assert_eq!(failure.exit.code(), 2);
    assert!(failure.found.contains("/nowhere/tally.toml"), "{failure}");
}
