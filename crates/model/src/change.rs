//! What happened, in the past tense, and what each happening writes.

use bytes::Bytes;

use crate::claim::Claim;
use crate::history::HistoryEntry;
use crate::identifier::{LeaseId, Sequence, SessionId};
use crate::keys::{EventId, KeyEvent};
use crate::lease::Lease;
use crate::node::Node;
use crate::session::{Session, StoredOutcome};
use crate::view::{Globals, Tables};

/// One thing that happened to the state. A change carries the whole record as it is afterwards, so
/// that writing it needs no reading.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    NodeRegistered {
        node: Node,
    },
    StorageStateChanged {
        node: Node,
    },
    ClaimRecorded {
        claim: Claim,
    },
    /// The node's table of claims was full; only the count in its record rose.
    ClaimDropped {
        node: Node,
    },
    HistoryAppended {
        entry: HistoryEntry,
    },
    SessionOpened {
        session: Session,
    },
    SessionUsed {
        session: Session,
    },
    SessionEnded {
        session: SessionId,
    },
    OutcomeStored {
        session: SessionId,
        sequence: Sequence,
        stored: StoredOutcome,
    },
    OutcomeForgotten {
        session: SessionId,
        sequence: Sequence,
    },
    KeyChanged {
        id: EventId,
        event: KeyEvent,
    },
    /// A lease was granted or renewed.
    LeaseHeld {
        lease: Lease,
    },
    LeaseEnded {
        lease: LeaseId,
    },
    /// The key ends with the lease from now on.
    LeaseAttached {
        lease: LeaseId,
        key: Bytes,
    },
    LeaseDetached {
        lease: LeaseId,
        key: Bytes,
    },
    VersionForgotten {
        id: EventId,
        key: Bytes,
    },
    GlobalsChanged {
        globals: Globals,
    },
}

impl Change {
    /// Writes the change.
    pub fn write_to(&self, tables: &mut impl Tables) {
        match self {
            Self::NodeRegistered { node }
            | Self::StorageStateChanged { node }
            | Self::ClaimDropped { node } => {
                tables.put_node(node);
            }
            Self::ClaimRecorded { claim } => tables.put_claim(claim),
            Self::HistoryAppended { entry } => tables.append_history(entry),
            Self::SessionOpened { session } | Self::SessionUsed { session } => {
                tables.put_session(session)
            }
            Self::SessionEnded { session } => tables.remove_session(*session),
            Self::OutcomeStored {
                session,
                sequence,
                stored,
            } => tables.append_outcome(*session, *sequence, stored),
            Self::OutcomeForgotten { session, sequence } => {
                tables.remove_outcome(*session, *sequence)
            }
            Self::KeyChanged { id, event } => tables.append_key_event(*id, event),
            Self::LeaseHeld { lease } => tables.put_lease(lease),
            Self::LeaseEnded { lease } => tables.remove_lease(*lease),
            Self::LeaseAttached { lease, key } => tables.attach_key(*lease, key),
            Self::LeaseDetached { lease, key } => tables.detach_key(*lease, key),
            Self::VersionForgotten { id, key } => tables.forget_version(*id, key),
            Self::GlobalsChanged { globals } => tables.put_globals(globals),
        }
    }
}
