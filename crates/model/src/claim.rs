//! Claims: refused requests for a node by someone who did not show its marker.

use crate::identifier::{Marker, NodeId, Revision, Tag};

/// Distinct claims kept for one node; further ones are only counted.
pub const CLAIMS_PER_NODE_MAX: usize = 64;

/// Someone asked for a node without being its owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    pub node: NodeId,
    /// What the claimant offered; `None` when it showed no marker (a wiped disk).
    pub marker: Option<Marker>,
    /// The tag of the latest attempt.
    pub tag: Tag,
    pub first_revision: Revision,
    pub last_revision: Revision,
    /// Time of the latest attempt, milliseconds since 1970.
    pub last_unix_ms: u64,
    /// Number of attempts.
    pub attempts: u64,
}
