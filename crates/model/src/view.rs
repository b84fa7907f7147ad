//! The tables as the model sees them: read by `apply`, written by `Change::write_to`.

use std::ops::Range;

use crate::claim::Claim;
use crate::history::HistoryEntry;
use crate::identifier::{ClusterId, Marker, NodeId, NodeName, Revision, Sequence, SessionId};
use crate::node::Node;
use crate::session::{Session, StoredOutcome};
use crate::settings::Settings;

/// Counters and facts of which there is one each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Globals {
    /// `None` until the cluster is founded.
    pub founded: Option<(ClusterId, Settings)>,
    pub revision: Revision,
    /// The largest stamped time so far, milliseconds since 1970.
    pub unix_ms: u64,
    pub last_node: NodeId,
    pub sessions: u64,
    /// Hash of the latest history entry; zeros when there is none.
    pub history_hash: [u8; 32],
}

impl Default for Globals {
    fn default() -> Self {
        Self {
            founded: None,
            revision: Revision::EMPTY,
            unix_ms: 0,
            last_node: NodeId(0),
            sessions: 0,
            history_hash: [0; 32],
        }
    }
}

/// Read access to the tables. A broken disk is not the model's business: an implementation that
/// cannot read must stop the member rather than answer `None`.
pub trait View {
    fn globals(&self) -> Globals;
    fn node(&self, id: NodeId) -> Option<Node>;
    fn node_by_name(&self, name: &NodeName) -> Option<Node>;
    /// Every node, by id.
    fn nodes(&self) -> Vec<Node>;
    fn claim(&self, node: NodeId, marker: Option<Marker>) -> Option<Claim>;
    /// Every claim for a node; at most [`crate::claim::CLAIMS_PER_NODE_MAX`].
    fn claims(&self, node: NodeId) -> Vec<Claim>;
    fn session(&self, id: SessionId) -> Option<Session>;
    /// The session unused for longest; the smaller id when two are equal.
    fn least_recently_used_session(&self) -> Option<Session>;
    fn stored_outcome(&self, session: SessionId, sequence: Sequence) -> Option<StoredOutcome>;
    /// Those of `among` that have a stored outcome, ascending. Asked only for sequences that were not
    /// acknowledged before: an implementation may have to pass by all that it has forgotten.
    fn stored_sequences(&self, session: SessionId, among: Range<Sequence>) -> Vec<Sequence>;
}

/// Write access to the tables. Everything written for one entry becomes visible at once.
pub trait Tables {
    fn put_globals(&mut self, globals: &Globals);
    /// `name` never changes for an id.
    fn put_node(&mut self, node: &Node);
    fn put_claim(&mut self, claim: &Claim);
    /// Replaces the record; an implementation keeps its order by last use in step.
    fn put_session(&mut self, session: &Session);
    /// Removes the record. Its outcomes are removed one by one before.
    fn remove_session(&mut self, id: SessionId);
    /// There is none yet under this session and sequence.
    fn append_outcome(&mut self, session: SessionId, sequence: Sequence, stored: &StoredOutcome);
    fn remove_outcome(&mut self, session: SessionId, sequence: Sequence);
    fn append_history(&mut self, entry: &HistoryEntry);
}
