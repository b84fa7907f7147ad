//! What went wrong, in etcd's words: clients compare the message, not only the code. The texts are those
//! of etcd's `rpctypes`.

use tally_consensus::{NotAccepted, ProposeError, ReadError};
use tally_model::Refusal;
use tally_model::explanation::codes;
use tally_proto::convert::MalformedKeys;
use tally_proto::fault::{self, Fault};
use tonic::{Code, Status};

pub(super) fn malformed(error: &MalformedKeys) -> Status {
    Status::invalid_argument(match error {
        MalformedKeys::EmptyKey => "etcdserver: key is not provided",
        MalformedKeys::UnknownOrder => "etcdserver: invalid sort option",
        MalformedKeys::ValueGiven => "etcdserver: value is provided",
        MalformedKeys::LeaseGiven => "etcdserver: lease is provided",
        MalformedKeys::TooManyOps(_) | MalformedKeys::TooDeep => {
            "etcdserver: too many operations in txn request"
        }
        // An operation that says nothing is taken by etcd for one about a key that is not there.
        MalformedKeys::EmptyOp => "etcdserver: key not found",
        MalformedKeys::DuplicateKey(_) => "etcdserver: duplicate key given in txn request",
        // etcd takes such a comparison for one that always holds; a client that sends one is newer, or
        // broken, and is better told.
        MalformedKeys::UnknownComparison => "etcdserver: unknown comparison in txn request",
    })
}

pub(super) fn too_large() -> Status {
    Status::invalid_argument("etcdserver: request is too large")
}

/// As grpc-go says it of an answer.
pub(super) fn message_too_large(bytes: usize, bytes_max: usize) -> Status {
    Status::resource_exhausted(format!(
        "trying to send message larger than max ({bytes} vs. {bytes_max}): ask with a limit"
    ))
}

pub(super) fn ttl_too_large() -> Status {
    Status::out_of_range("etcdserver: too large lease TTL")
}

/// The next of what a member gives its own requests could not be had.
pub(super) fn too_many() -> Status {
    Status::resource_exhausted("etcdserver: too many requests")
}

/// Also why a watch of such a revision is not created.
pub(super) const COMPACTED: &str = "etcdserver: mvcc: required revision has been compacted";

pub(super) fn auth_not_enabled() -> Status {
    Status::failed_precondition("etcdserver: authentication is not enabled")
}

pub(super) fn no_leader() -> Status {
    Status::unavailable("etcdserver: no leader")
}

pub(super) fn timed_out() -> Status {
    Status::unavailable("etcdserver: request timed out")
}

pub(super) fn stopped() -> Status {
    Status::unavailable("etcdserver: server stopped")
}

pub(super) fn propose(error: &ProposeError) -> Status {
    match error {
        ProposeError::NotAccepted(NotAccepted::Overloaded) => too_many(),
        ProposeError::NotAccepted(NotAccepted::NoLeader) => no_leader(),
        ProposeError::NotAccepted(NotAccepted::NotUnderstood) => {
            Status::unavailable("etcdserver: not capable")
        }
        ProposeError::NotAccepted(NotAccepted::Halted(_)) => stopped(),
        ProposeError::Unknown => timed_out(),
    }
}

pub(super) fn read(error: &ReadError) -> Status {
    match error {
        ReadError::Overloaded => too_many(),
        ReadError::NoLeader => no_leader(),
        ReadError::Behind => timed_out(),
        ReadError::Halted(_) => stopped(),
    }
}

/// What the state machine refused. What etcd does not have is told in Tally's own words.
pub(super) fn refusal(refusal: &Refusal) -> Status {
    match refusal {
        Refusal::KeyNotFound => Status::invalid_argument("etcdserver: key not found"),
        Refusal::LeaseNotFound { .. } => Status::not_found("etcdserver: requested lease not found"),
        Refusal::RevisionCompacted { .. } => Status::out_of_range(COMPACTED),
        Refusal::RevisionInFuture { .. } => {
            Status::out_of_range("etcdserver: mvcc: required revision is a future revision")
        }
        Refusal::LeaseExists { .. } => {
            Status::failed_precondition("etcdserver: lease already exists")
        }
        Refusal::TooManyLeases { .. } | Refusal::TooMuchAtOnce => {
            own(refusal, Code::ResourceExhausted)
        }
        Refusal::KeyReserved => own(refusal, Code::PermissionDenied),
        Refusal::TooManyUnacknowledged { .. } => own(refusal, Code::ResourceExhausted),
        Refusal::AlreadyFounded
        | Refusal::NotFounded
        | Refusal::TagExpected { .. }
        | Refusal::SessionExpired { .. }
        | Refusal::RequestReused { .. }
        | Refusal::AlreadyAcknowledged { .. }
        | Refusal::SessionMarkerMismatch { .. }
        | Refusal::Abandoned
        | Refusal::LeaseTimeMoved { .. }
        | Refusal::UnknownNode { .. }
        | Refusal::MarkerMismatch { .. }
        | Refusal::MarkerMissing { .. }
        | Refusal::MarkerNotBound { .. }
        | Refusal::StaleIncarnation { .. }
        | Refusal::NotProvisioning { .. }
        | Refusal::NameRemoved { .. }
        | Refusal::TransitionNotAllowed { .. }
        | Refusal::RevisionMismatch { .. }
        | Refusal::NotSetByNode { .. }
        | Refusal::ForceNotConfirmed { .. }
        | Refusal::ReplicationUnsatisfied { .. } => own(refusal, Code::FailedPrecondition),
    }
}

fn own(refusal: &Refusal, code: Code) -> Status {
    let fault = Fault::new(refusal.code(), refusal.to_string());
    let next = format!("tally explain {}", refusal.code());
    fault.with_next(next).into_status(code)
}

/// Of an RPC that etcd has and Tally has not: what there is instead.
pub(super) fn unimplemented(call: &str, instead: &str) -> Status {
    let found = format!("Tally does not have etcd's {call}; instead: {instead}");
    Fault::new(codes::NOT_SERVED_HERE, found)
        .with_next(instead)
        .into_status(Code::Unimplemented)
}

/// A request of a stream that cannot be read.
pub(super) fn unreadable(status: Status) -> Status {
    fault::too_large(&status).unwrap_or(status)
}

#[cfg(test)]
#[path = "rpctypes/tests.rs"]
mod tests;
