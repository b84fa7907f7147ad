//! Why a command was refused: stable codes, what was found, and a longer explanation of each.

use std::fmt;

use crate::identifier::{
    Incarnation, LeaseId, Marker, NodeId, NodeName, Revision, Sequence, SessionId,
};
use crate::keys::{ANSWER_BYTES_MAX, READ_BYTES_MAX, RESERVED_PREFIX, ROWS_MAX};
use crate::settings::Replication;
use crate::storage_state::StorageState;

/// Why a command did not take effect. Each variant carries what was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// T-101
    AlreadyFounded,
    /// T-102
    NotFounded,
    /// T-103: a command came without the tag that it needs, or with one that it must not have.
    TagExpected { expected: bool },
    /// T-201
    SessionExpired { session: SessionId },
    /// T-202
    RequestReused {
        stored_digest: u128,
        offered_digest: u128,
    },
    /// T-203
    AlreadyAcknowledged { acknowledged: Sequence },
    /// T-204
    TooManyUnacknowledged { held: u64, allowed: u64 },
    /// T-205
    SessionMarkerMismatch { session: SessionId },
    /// T-206: the tag was settled before the request arrived; it never takes effect.
    Abandoned,
    /// T-301
    UnknownNode { node: NodeId },
    /// T-310
    MarkerMismatch {
        node: NodeId,
        stored: Marker,
        offered: Marker,
    },
    /// T-311
    MarkerMissing { node: NodeId, stored: Marker },
    /// T-312: no marker is bound yet, so no marker can be compared.
    MarkerNotBound { node: NodeId },
    /// T-320
    StaleIncarnation {
        node: NodeId,
        current: Incarnation,
        offered: Incarnation,
    },
    /// T-330: an activation found no node in `provisioning` that it could move.
    NotProvisioning { node: NodeId, state: StorageState },
    /// T-331
    NameRemoved { name: NodeName, node: NodeId },
    /// T-410
    TransitionNotAllowed {
        node: NodeId,
        from: StorageState,
        to: StorageState,
        allowed: Vec<StorageState>,
    },
    /// T-411
    RevisionMismatch {
        node: NodeId,
        current: Revision,
        expected: Option<Revision>,
    },
    /// T-412: a node may only undo what it did itself.
    NotSetByNode { node: NodeId, state: StorageState },
    /// T-413: the forced transition's confirmation is not the node's name, or its reason is empty.
    ForceNotConfirmed {
        node: NodeId,
        name: NodeName,
        confirmed: String,
        reason_given: bool,
    },
    /// T-420
    ReplicationUnsatisfied {
        needed: Replication,
        writable: u32,
        already: Vec<NodeName>,
    },
    /// T-501: a put keeps the value or the lease of a key that is not there.
    KeyNotFound,
    /// T-502
    LeaseNotFound { lease: LeaseId },
    /// T-503
    RevisionCompacted {
        asked: Revision,
        compacted: Revision,
    },
    /// T-504
    RevisionInFuture { asked: Revision, current: Revision },
    /// T-505
    KeyReserved,
    /// T-506
    LeaseExists { lease: LeaseId },
    /// T-507: time for leases has come to another moment than the leader has counted from.
    LeaseTimeMoved { term: u64, now_ms: u64 },
    /// T-508
    TooManyLeases { held: u64 },
    /// T-509: a write looks at, keeps, or answers with more than goes into one entry, or a read with more than is held
    /// at once.
    TooMuchAtOnce,
}

impl Refusal {
    /// The stable code. Codes are never renumbered and never reused.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::AlreadyFounded => "T-101",
            Self::NotFounded => "T-102",
            Self::TagExpected { .. } => "T-103",
            Self::SessionExpired { .. } => "T-201",
            Self::RequestReused { .. } => "T-202",
            Self::AlreadyAcknowledged { .. } => "T-203",
            Self::TooManyUnacknowledged { .. } => "T-204",
            Self::SessionMarkerMismatch { .. } => "T-205",
            Self::Abandoned => "T-206",
            Self::UnknownNode { .. } => "T-301",
            Self::MarkerMismatch { .. } => "T-310",
            Self::MarkerMissing { .. } => "T-311",
            Self::MarkerNotBound { .. } => "T-312",
            Self::StaleIncarnation { .. } => "T-320",
            Self::NotProvisioning { .. } => "T-330",
            Self::NameRemoved { .. } => "T-331",
            Self::TransitionNotAllowed { .. } => "T-410",
            Self::RevisionMismatch { .. } => "T-411",
            Self::NotSetByNode { .. } => "T-412",
            Self::ForceNotConfirmed { .. } => "T-413",
            Self::ReplicationUnsatisfied { .. } => "T-420",
            Self::KeyNotFound => "T-501",
            Self::LeaseNotFound { .. } => "T-502",
            Self::RevisionCompacted { .. } => "T-503",
            Self::RevisionInFuture { .. } => "T-504",
            Self::KeyReserved => "T-505",
            Self::LeaseExists { .. } => "T-506",
            Self::LeaseTimeMoved { .. } => "T-507",
            Self::TooManyLeases { .. } => "T-508",
            Self::TooMuchAtOnce => "T-509",
        }
    }

    /// The node that the refusal is about, when it is about one.
    pub const fn node(&self) -> Option<NodeId> {
        match self {
            Self::UnknownNode { node }
            | Self::MarkerMismatch { node, .. }
            | Self::MarkerMissing { node, .. }
            | Self::MarkerNotBound { node }
            | Self::StaleIncarnation { node, .. }
            | Self::NotProvisioning { node, .. }
            | Self::NameRemoved { node, .. }
            | Self::TransitionNotAllowed { node, .. }
            | Self::RevisionMismatch { node, .. }
            | Self::NotSetByNode { node, .. }
            | Self::ForceNotConfirmed { node, .. } => Some(*node),
            Self::AlreadyFounded
            | Self::NotFounded
            | Self::TagExpected { .. }
            | Self::SessionExpired { .. }
            | Self::RequestReused { .. }
            | Self::AlreadyAcknowledged { .. }
            | Self::TooManyUnacknowledged { .. }
            | Self::SessionMarkerMismatch { .. }
            | Self::Abandoned
            | Self::ReplicationUnsatisfied { .. }
            | Self::KeyNotFound
            | Self::LeaseNotFound { .. }
            | Self::RevisionCompacted { .. }
            | Self::RevisionInFuture { .. }
            | Self::KeyReserved
            | Self::LeaseExists { .. }
            | Self::LeaseTimeMoved { .. }
            | Self::TooManyLeases { .. }
            | Self::TooMuchAtOnce => None,
        }
    }

    /// True for the two refusals that say "this node belongs to another marker".
    pub const fn is_marker_conflict(&self) -> bool {
        matches!(
            self,
            Self::MarkerMismatch { .. } | Self::MarkerMissing { .. }
        )
    }
}

/// What was found, in one line, without the code.
impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AlreadyFounded => write!(f, "the cluster is already founded"),
            Self::NotFounded => write!(f, "the cluster is not founded yet"),
            Self::TagExpected { expected: true } => {
                write!(f, "the command needs a tag and has none")
            }
            Self::TagExpected { expected: false } => {
                write!(f, "the command has a tag and must have none")
            }
            Self::SessionExpired { session } => {
                write!(f, "session {session} is unknown or has ended")
            }
            Self::RequestReused {
                stored_digest,
                offered_digest,
            } => write!(
                f,
                "this tag was used for another request: stored digest {stored_digest:032x}, offered {offered_digest:032x}"
            ),
            Self::AlreadyAcknowledged { acknowledged } => {
                write!(
                    f,
                    "every request below {acknowledged} is acknowledged and forgotten"
                )
            }
            Self::TooManyUnacknowledged { held, allowed } => {
                write!(
                    f,
                    "the session holds {held} unacknowledged outcomes, {allowed} are allowed"
                )
            }
            Self::SessionMarkerMismatch { session } => {
                write!(f, "session {session} was opened under another marker")
            }
            Self::Abandoned => write!(
                f,
                "the request was settled before it arrived and never takes effect"
            ),
            Self::UnknownNode { node } => write!(f, "no node has the id {node}"),
            Self::MarkerMismatch {
                stored, offered, ..
            } => {
                write!(
                    f,
                    "marker mismatch: stored {}, offered {}",
                    stored.short(),
                    offered.short()
                )
            }
            Self::MarkerMissing { stored, .. } => write!(
                f,
                "the node is bound to marker {} and none was offered: its data directory was lost or replaced",
                stored.short()
            ),
            Self::MarkerNotBound { .. } => write!(f, "the node has no marker bound yet"),
            Self::StaleIncarnation {
                current, offered, ..
            } => {
                write!(
                    f,
                    "incarnation {offered} is fenced, the current one is {current}"
                )
            }
            Self::NotProvisioning { state, .. } => {
                write!(f, "the node is {state}, expected provisioning")
            }
            Self::NameRemoved { name, node } => {
                write!(f, "the name {name} is reserved by removed node {node}")
            }
            Self::TransitionNotAllowed {
                from, to, allowed, ..
            } => {
                write!(
                    f,
                    "no transition from {from} to {to}; from {from} one may ask for "
                )?;
                match allowed.as_slice() {
                    [] => f.write_str("nothing"),
                    allowed => {
                        let names: Vec<_> = allowed.iter().map(|state| state.as_str()).collect();
                        f.write_str(&names.join(", "))
                    }
                }
            }
            Self::RevisionMismatch {
                current,
                expected: Some(expected),
                ..
            } => {
                write!(f, "the node changed at {current}, expected {expected}")
            }
            Self::RevisionMismatch {
                current,
                expected: None,
                ..
            } => {
                write!(
                    f,
                    "no expected revision given, the node last changed at {current}"
                )
            }
            Self::NotSetByNode { state, .. } => {
                write!(
                    f,
                    "{state} was set by an operator, so only an operator may undo it"
                )
            }
            Self::ForceNotConfirmed {
                name,
                confirmed,
                reason_given,
                ..
            } => write!(
                f,
                "a forced transition needs the node's name typed again and a reason: name {name}, typed {confirmed:?}, reason {}",
                if *reason_given { "given" } else { "missing" }
            ),
            Self::ReplicationUnsatisfied {
                needed,
                writable,
                already,
            } => {
                let names: Vec<_> = already.iter().map(|name| name.as_str()).collect();
                write!(
                    f,
                    "fewer writable {}s than replication {needed} needs: {writable} would remain, writable then: {}",
                    needed.scope.as_str(),
                    if names.is_empty() {
                        "none".to_owned()
                    } else {
                        names.join(", ")
                    }
                )
            }
            Self::KeyNotFound => {
                f.write_str("the put keeps what the key has, and there is no such key")
            }
            Self::LeaseNotFound { lease } => write!(f, "no lease has the id {lease}"),
            Self::RevisionCompacted { asked, compacted } => {
                write!(
                    f,
                    "{asked} was compacted, the first to be read is {compacted}"
                )
            }
            Self::RevisionInFuture { asked, current } => {
                write!(f, "{asked} is not there yet, the current one is {current}")
            }
            Self::LeaseExists { lease } => write!(f, "there is a lease {lease} already"),
            Self::LeaseTimeMoved { term, now_ms } => write!(
                f,
                "time for leases has come to {now_ms} ms, as counted in term {term}"
            ),
            Self::TooMuchAtOnce => write!(
                f,
                "a write looks at more than {ROWS_MAX} keys or answers with more than {ANSWER_BYTES_MAX} bytes, \
                 or a read that sorts, or of a transaction, holds more than {READ_BYTES_MAX} bytes"
            ),
            Self::TooManyLeases { held } => write!(f, "{held} leases are held, which is the limit"),
            Self::KeyReserved => write!(
                f,
                "keys below {:?} are written by the cluster alone",
                String::from_utf8_lossy(RESERVED_PREFIX)
            ),
        }
    }
}
