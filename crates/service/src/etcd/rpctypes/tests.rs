//! Codes and texts as literals: they are what clients compare.

use tally_model::keys;
use tally_model::{LeaseId, Revision, SessionId};

use super::*;

fn told(status: &Status) -> (Code, &str) {
    (status.code(), status.message())
}

#[test]
fn what_is_malformed_has_the_text_of_etcd() {
    let twice = keys::DuplicateKey(b"k".to_vec().into());
    for (error, text) in [
        (MalformedKeys::EmptyKey, "etcdserver: key is not provided"),
        (
            MalformedKeys::UnknownOrder,
            "etcdserver: invalid sort option",
        ),
        (MalformedKeys::ValueGiven, "etcdserver: value is provided"),
        (MalformedKeys::LeaseGiven, "etcdserver: lease is provided"),
        (
            MalformedKeys::TooManyOps(129),
            "etcdserver: too many operations in txn request",
        ),
        (
            MalformedKeys::TooDeep,
            "etcdserver: too many operations in txn request",
        ),
        (MalformedKeys::EmptyOp, "etcdserver: key not found"),
        (
            MalformedKeys::DuplicateKey(twice),
            "etcdserver: duplicate key given in txn request",
        ),
        (
            MalformedKeys::UnknownComparison,
            "etcdserver: unknown comparison in txn request",
        ),
    ] {
        assert_eq!(told(&malformed(&error)), (Code::InvalidArgument, text));
    }
}

#[test]
fn why_a_write_is_not_answered_has_the_text_of_etcd() {
    let halted = || "its disk".to_owned();
    for (error, code, text) in [
        (
            NotAccepted::Overloaded.into(),
            Code::ResourceExhausted,
            "etcdserver: too many requests",
        ),
        (
            NotAccepted::NoLeader.into(),
            Code::Unavailable,
            "etcdserver: no leader",
        ),
        (
            NotAccepted::NotUnderstood.into(),
            Code::Unavailable,
            "etcdserver: not capable",
        ),
        (
            NotAccepted::Halted(halted()).into(),
            Code::Unavailable,
            "etcdserver: server stopped",
        ),
        (
            ProposeError::Unknown,
            Code::Unavailable,
            "etcdserver: request timed out",
        ),
    ] {
        assert_eq!(told(&propose(&error)), (code, text));
    }
}

#[test]
fn why_a_read_is_not_answered_has_the_text_of_etcd() {
    for (error, code, text) in [
        (
            ReadError::Overloaded,
            Code::ResourceExhausted,
            "etcdserver: too many requests",
        ),
        (
            ReadError::NoLeader,
            Code::Unavailable,
            "etcdserver: no leader",
        ),
        (
            ReadError::Behind,
            Code::Unavailable,
            "etcdserver: request timed out",
        ),
        (
            ReadError::Halted("its disk".to_owned()),
            Code::Unavailable,
            "etcdserver: server stopped",
        ),
    ] {
        assert_eq!(told(&read(&error)), (code, text));
    }
}

#[test]
fn what_etcd_refuses_is_refused_in_its_words() {
    let (lease, one, two) = (LeaseId(7), Revision(1), Revision(2));
    for (refused, code, text) in [
        (
            Refusal::KeyNotFound,
            Code::InvalidArgument,
            "etcdserver: key not found",
        ),
        (
            Refusal::LeaseNotFound { lease },
            Code::NotFound,
            "etcdserver: requested lease not found",
        ),
        (
            Refusal::LeaseExists { lease },
            Code::FailedPrecondition,
            "etcdserver: lease already exists",
        ),
        (
            Refusal::RevisionCompacted {
                asked: one,
                compacted: two,
            },
            Code::OutOfRange,
            "etcdserver: mvcc: required revision has been compacted",
        ),
        (
            Refusal::RevisionInFuture {
                asked: two,
                current: one,
            },
            Code::OutOfRange,
            "etcdserver: mvcc: required revision is a future revision",
        ),
    ] {
        assert_eq!(told(&refusal(&refused)), (code, text));
    }
}

#[test]
fn what_etcd_does_not_have_is_refused_with_its_code_and_what_to_run() {
    let session = SessionId(3);
    for (refused, code) in [
        (Refusal::KeyReserved, Code::PermissionDenied),
        (
            Refusal::TooManyLeases { held: 1_000_000 },
            Code::ResourceExhausted,
        ),
        (Refusal::TooMuchAtOnce, Code::ResourceExhausted),
        (
            Refusal::TooManyUnacknowledged {
                held: 1024,
                allowed: 1024,
            },
            Code::ResourceExhausted,
        ),
        (
            Refusal::SessionExpired { session },
            Code::FailedPrecondition,
        ),
        (
            Refusal::RequestReused {
                stored_digest: 1,
                offered_digest: 2,
            },
            Code::FailedPrecondition,
        ),
        (
            Refusal::AlreadyAcknowledged { acknowledged: 2 },
            Code::FailedPrecondition,
        ),
        (
            Refusal::SessionMarkerMismatch { session },
            Code::FailedPrecondition,
        ),
    ] {
        let status = refusal(&refused);
        assert_eq!(status.code(), code, "{status:?}");
        let told = fault::read(&status).expect("a code");
        assert_eq!(told.code, refused.code());
        assert_eq!(told.next, format!("tally explain {}", refused.code()));
    }
}

#[test]
fn what_is_too_large_has_the_text_of_etcd() {
    let large = (Code::InvalidArgument, "etcdserver: request is too large");
    assert_eq!(told(&too_large()), large);
    let long = (Code::OutOfRange, "etcdserver: too large lease TTL");
    assert_eq!(told(&ttl_too_large()), long);
}
