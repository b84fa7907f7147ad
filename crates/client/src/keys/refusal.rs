//! etcd's errors, as what they say of a request: refused, turned down before anything was appended, or
//! nothing at all. etcd tells them apart by their text.

use tally_model::explanation::codes;
use tally_proto::fault::{self, Fault};
use tonic::{Code, Status};

use crate::answer::Refused;

/// What the state machine refuses, and under which code Tally knows it.
const REFUSED: &[(&str, &str)] = &[
    ("etcdserver: key not found", "T-501"),
    ("etcdserver: requested lease not found", "T-502"),
    (
        "etcdserver: mvcc: required revision has been compacted",
        "T-503",
    ),
    (
        "etcdserver: mvcc: required revision is a future revision",
        "T-504",
    ),
    ("etcdserver: lease already exists", "T-506"),
];

/// What is turned down before anything is appended, under which code, and what to do.
const NOT_APPENDED: &[(&str, &str, &str)] = &[
    (
        "etcdserver: no leader",
        codes::NO_LEADER,
        "tally cluster status",
    ),
    (
        "etcdserver: too many requests",
        codes::OVERLOADED,
        "send it again a little later, or to another member",
    ),
    (
        "etcdserver: not capable",
        codes::INVALID_ARGUMENT,
        "upgrade every member first: tally cluster status",
    ),
    (
        "etcdserver: request is too large",
        codes::TOO_LARGE,
        "send less at once, or raise request-bytes-max on every member",
    ),
    (
        "etcdserver: key is not provided",
        codes::INVALID_ARGUMENT,
        "name a key; all of them are --prefix with an empty one",
    ),
    (
        "etcdserver: value is provided",
        codes::INVALID_ARGUMENT,
        "leave the value out, or do not ask to keep the one that is there",
    ),
    (
        "etcdserver: lease is provided",
        codes::INVALID_ARGUMENT,
        "leave the lease out, or do not ask to keep the one that is there",
    ),
    (
        "etcdserver: invalid sort option",
        codes::INVALID_ARGUMENT,
        "ask for another order",
    ),
    (
        "etcdserver: too many operations in txn request",
        codes::INVALID_ARGUMENT,
        "make several transactions of it, or raise txn-ops-max on every member",
    ),
    (
        "etcdserver: duplicate key given in txn request",
        codes::INVALID_ARGUMENT,
        "write each key once in each branch",
    ),
    (
        "etcdserver: unknown comparison in txn request",
        codes::INVALID_ARGUMENT,
        "upgrade every member first: tally cluster status",
    ),
    (
        "etcdserver: too large lease TTL",
        codes::INVALID_ARGUMENT,
        "ask for at most 9000000000 seconds",
    ),
    (
        "mvcc: watcher range is empty",
        codes::INVALID_ARGUMENT,
        "name an end that comes after the key",
    ),
];

/// Codes from here on are of refusals, those below of faults.
const FAULTS_BEGIN_WITH: &str = "T-0";

/// Reads an error of the etcd API: a refusal, or a status that [`crate::retry::Failure::read`] knows.
///
/// # Errors
/// The status when it is no refusal. One without a code of Tally's leaves the outcome in doubt.
pub(super) fn read(status: Status) -> Result<Refused, Status> {
    if let Some(fault) = fault::read(&status) {
        return match fault.code.starts_with(FAULTS_BEGIN_WITH) {
            true => Err(status),
            false => Ok(refused(fault)),
        };
    }
    let said = status.message();
    if let Some((_, code)) = REFUSED.iter().find(|(text, _)| *text == said) {
        return Ok(refused(Fault::new(code, said)));
    }
    Err(match NOT_APPENDED.iter().find(|(text, ..)| *text == said) {
        Some((_, code, next)) => {
            let fault = Fault::new(code, said).with_next(*next);
            fault.into_status(status.code())
        }
        None if is_too_long(&status) => {
            let found = format!("the answer cannot be taken: {}", status.message());
            Fault::new(codes::TOO_LARGE, found)
                .with_next("ask for fewer keys: tally kv get KEY --prefix --limit N")
                .into_status(Code::OutOfRange)
        }
        None => status,
    })
}

/// As tonic says that an answer is longer than what the client takes.
fn is_too_long(status: &Status) -> bool {
    status.code() == Code::OutOfRange && status.message().contains("message length too large")
}

fn refused(fault: Fault) -> Refused {
    let next = (!fault.next.is_empty()).then(|| ("next".to_owned(), fault.next));
    Refused {
        code: fault.code,
        found: fault.found,
        details: next.into_iter().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::retry::Failure;

    fn code(status: Status) -> Option<String> {
        read(status).ok().map(|refused| refused.code)
    }

    #[test]
    fn a_final_error_is_a_refusal() {
        let compacted = "etcdserver: mvcc: required revision has been compacted";
        let compacted = code(Status::out_of_range(compacted));
        assert_eq!(compacted.as_deref(), Some("T-503"));
        let reserved = fault::status(Code::PermissionDenied, "T-505", "reserved");
        assert_eq!(code(reserved).as_deref(), Some("T-505"));
        let ended = fault::status(Code::FailedPrecondition, "T-201", "ended");
        assert_eq!(code(ended).as_deref(), Some("T-201"));
    }

    #[test]
    fn what_may_have_happened_stays_in_doubt() {
        for text in [
            "etcdserver: request timed out",
            "etcdserver: server stopped",
            "reset",
        ] {
            let status = read(Status::unavailable(text)).expect_err("no refusal");
            let failure = Failure::read(&status);
            assert!(matches!(failure, Failure::InDoubt(_)), "{failure:?}");
        }
        let status = read(Status::unavailable("etcdserver: no leader")).expect_err("no refusal");
        let failure = Failure::read(&status);
        assert!(matches!(failure, Failure::NotAppended(_)), "{failure:?}");
        let large = Status::invalid_argument("etcdserver: request is too large");
        let failure = Failure::read(&read(large).expect_err("no refusal"));
        assert!(matches!(failure, Failure::Rejected(_)), "{failure:?}");
    }
}
