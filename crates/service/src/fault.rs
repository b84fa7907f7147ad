//! The one mapping from what went wrong to a gRPC status. Refusals are answers and do not pass here.

use std::time::Duration;

use tally_consensus::{ManageError, NotAccepted, ProposeError, ReadError};
use tally_model::explanation::codes;
use tally_proto::convert::DecodeError;
use tally_proto::fault::Fault;
use tonic::{Code, Status};

/// When to come back after too much was under way.
const OVERLOAD_PASSES: Duration = Duration::from_millis(100);
/// When to come back after there was no leader: about an election.
const ELECTION_PASSES: Duration = Duration::from_millis(250);

fn no_leader(found: &str, leader: Option<String>) -> Status {
    Fault::new(codes::NO_LEADER, found)
        .with_next("tally cluster status")
        .with_leader(leader)
        .with_retry_after(ELECTION_PASSES)
        .into_status(Code::Unavailable)
}

/// Too much of something; `found` says of what and how much is allowed.
pub(crate) fn overloaded(found: impl Into<String>) -> Status {
    Fault::new(codes::OVERLOADED, found)
        .with_next("send it again a little later, or to another member")
        .with_retry_after(OVERLOAD_PASSES)
        .into_status(Code::ResourceExhausted)
}

fn halted(why: &str) -> Status {
    Fault::new(codes::HALTED, format!("this member has stopped: {why}"))
        .with_next("ask another member; this one's log says more")
        .into_status(Code::Unavailable)
}

pub(crate) fn propose(error: &ProposeError, leader: Option<String>) -> Status {
    match error {
        ProposeError::NotAccepted(NotAccepted::Overloaded) => {
            overloaded("too many commands are under way; this one was not appended")
        }
        ProposeError::NotAccepted(NotAccepted::NoLeader) => no_leader(
            "no leader could be reached in time; the command was not appended",
            leader,
        ),
        ProposeError::NotAccepted(NotAccepted::NotUnderstood) => Fault::new(
            codes::INVALID_ARGUMENT,
            "the leader runs an older version and does not know this command",
        )
        .with_next("upgrade every member first: tally cluster status")
        .with_leader(leader)
        .into_status(Code::FailedPrecondition),
        ProposeError::NotAccepted(NotAccepted::Halted(why)) => halted(why),
        ProposeError::Unknown => Fault::new(
            codes::OUTCOME_UNKNOWN,
            "the deadline passed while the command may have been committed",
        )
        .with_next("send it again under the same tag")
        .with_leader(leader)
        .into_status(Code::DeadlineExceeded),
    }
}

/// The member ended while a command was under way.
pub(crate) fn ended_meanwhile(leader: Option<String>) -> Status {
    let found = "this member is ending, and the command may have been committed";
    Fault::new(codes::OUTCOME_UNKNOWN, found)
        .with_next("send it again under the same tag, to another member")
        .with_leader(leader)
        .into_status(Code::Unavailable)
}

/// The member ends before it could answer something that changes nothing.
pub(crate) fn ending(leader: Option<String>) -> Status {
    Fault::new(codes::NOT_READY, "this member is ending")
        .with_next("ask another member")
        .with_leader(leader)
        .into_status(Code::Unavailable)
}

pub(crate) fn read(error: &ReadError, leader: Option<String>) -> Status {
    match error {
        ReadError::Overloaded => overloaded("too many reads wait already"),
        ReadError::NoLeader => no_leader("no leader confirmed in time that it leads", leader),
        ReadError::Behind => Fault::new(
            codes::READ_TIMED_OUT,
            "this member has not applied in time what the read must see",
        )
        .with_next("ask another member, or for a stale read by name")
        .with_leader(leader)
        .into_status(Code::DeadlineExceeded),
        ReadError::Halted(why) => halted(why),
    }
}

pub(crate) fn manage(error: &ManageError, leader: Option<String>) -> Status {
    match error {
        ManageError::NotLeader => no_leader("this member does not lead", leader),
        ManageError::UnknownMember(_) => Fault::new(codes::NOT_FOUND, error.to_string())
            .with_next("tally cluster status")
            .into_status(Code::NotFound),
        ManageError::Impossible(_) => Fault::new(codes::TRANSFER_FAILED, error.to_string())
            .with_next("tally cluster status")
            .into_status(Code::FailedPrecondition),
        ManageError::Late(_) => Fault::new(codes::OUTCOME_UNKNOWN, error.to_string())
            .with_next("tally cluster status")
            .into_status(Code::DeadlineExceeded),
        ManageError::Halted(why) => halted(why),
    }
}

pub(crate) fn invalid(error: &DecodeError) -> Status {
    Fault::new(codes::INVALID_ARGUMENT, error.to_string())
        .with_next("correct the request; nothing of it was appended")
        .into_status(Code::InvalidArgument)
}

/// Another member, or something that takes itself for one, asks what this member must not answer.
pub(crate) fn wrong_peer(found: impl Into<String>) -> Status {
    Fault::new(codes::WRONG_PEER, found)
        .with_next("compare --initial-cluster and the data directories of both")
        .into_status(Code::FailedPrecondition)
}

/// The disk failed while a request was read for.
pub(crate) fn disk(error: &std::io::Error) -> Status {
    halted(&error.to_string())
}

/// This member does not serve; `why` is a fault's text, code first.
pub(crate) fn not_ready(fault: Fault) -> Status {
    fault.into_status(Code::Unavailable)
}
