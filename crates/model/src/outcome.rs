//! What apply decided. A refusal is an outcome like any other: replicated, stored and replayed; only
//! those that are about the session itself (T-102, T-103, T-201 to T-205) are not kept.

use crate::identifier::{Incarnation, LeaseId, NodeId, Revision, SessionId};
use crate::keys::KeyAnswer;
use crate::refusal::Refusal;
use crate::storage_state::StorageState;

/// What the requester is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub outcome: Outcome,
    /// True when this tag was answered before and the outcome is the one of that time.
    pub repeat: bool,
    /// The storage state, after this entry, of the node that the command names.
    pub now: Option<StorageState>,
    /// The store's revision after this entry.
    pub revision: Revision,
}

/// Applied, replayed or refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It took effect, at `revision`.
    Applied { revision: Revision, effect: Effect },
    /// It had taken effect before, at `since`; nothing changed now.
    Replayed { since: Revision, effect: Effect },
    /// It did not take effect, and will not under this tag unless the refusal says to send it again.
    Refused(Refusal),
}

/// What took effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    Founded,
    SessionOpened {
        session: SessionId,
    },
    SessionClosed,
    NodeRegistered {
        node: NodeId,
        incarnation: Incarnation,
    },
    NodeActivated {
        node: NodeId,
        incarnation: Incarnation,
    },
    StorageStateSet {
        node: NodeId,
        from: StorageState,
        to: StorageState,
        /// What an operator should look at although nothing was refused.
        alarms: Vec<Alarm>,
    },
    Keys(KeyAnswer),
    Compacted,
    VersionsReclaimed {
        /// True when nothing more is to be removed for now.
        all: bool,
    },
    LeaseGranted {
        lease: LeaseId,
        /// Seconds; may be more than was asked for.
        ttl_s: u64,
    },
    LeaseRevoked,
    LeaseRenewed {
        lease: LeaseId,
        /// Seconds from now on.
        ttl_s: u64,
    },
    LeaseTimePassed {
        /// True when every lease has ended whose time is over.
        all: bool,
    },
}

/// A condition that a transition left behind and that no check could refuse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Alarm {
    /// Fewer writable places than the cluster's replication asks for.
    ReplicationUnsatisfied { needed: u32, writable: u32 },
}
