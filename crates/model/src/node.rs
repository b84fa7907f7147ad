//! A log server's record, and the command that registers it.

use crate::identifier::{Incarnation, Location, Marker, NodeId, NodeName, Revision};
use crate::storage_state::StorageState;

/// One log server as the cluster knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub id: NodeId,
    pub name: NodeName,
    pub address: String,
    pub location: Location,
    pub storage_state: StorageState,
    pub incarnation: Incarnation,
    pub binding: Option<Binding>,
    /// Who set the present storage state.
    pub set_by: SetBy,
    pub created_revision: Revision,
    /// Revision of the last change to this record: what an operator's expected revision means.
    pub revision: Revision,
    /// Revision of the last transition.
    pub state_revision: Revision,
    /// When the last transition was applied, milliseconds since 1970.
    pub state_unix_ms: u64,
    /// Claims that were refused and not kept, because the node's table of claims was full.
    pub claims_dropped: u64,
}

/// The bond between a node and the marker on its disk. Made once, at activation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Binding {
    pub marker: Marker,
    /// Revision of the activation that made it.
    pub since: Revision,
}

/// Who made a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetBy {
    Node,
    Operator,
}

impl SetBy {
    /// As people and programs read it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Operator => "operator",
        }
    }
}
