//! What happened, in the past tense, and what each happening writes.

use crate::claim::Claim;
use crate::history::HistoryEntry;
use crate::identifier::{Sequence, SessionId};
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
            Self::GlobalsChanged { globals } => tables.put_globals(globals),
        }
    }
}
