//! The tables as the model sees them: read by `apply`, written by `Change::write_to`.

use std::ops::{ControlFlow, Range};

use bytes::Bytes;

use crate::claim::Claim;
use crate::history::HistoryEntry;
use crate::identifier::{
    ClusterId, LeaseId, Marker, NodeId, NodeName, Revision, Sequence, SessionId,
};
use crate::keys::{self, AtMost, EventId, KeyChanged, KeyEvent, KeyRange, KeyValue};
use crate::lease::Lease;
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
    /// Keys cannot be read as of an earlier revision than this one; 0 when they can be from the first.
    pub compacted: Revision,
    /// The last key event that was looked at to remove what nobody can read any more.
    pub reclaimed: EventId,
    /// Leases that are held.
    pub leases: u64,
    /// Time for leases, milliseconds since the founding, counted only while someone leads.
    pub lease_clock_ms: u64,
    /// The latest term in which a leader has counted it.
    pub lease_term: u64,
}

impl Globals {
    /// True when [`Command::ReclaimVersions`](crate::Command::ReclaimVersions) has something to do.
    pub fn is_reclaiming(&self) -> bool {
        self.compacted > Revision(0) && self.reclaimed != keys::reclaimed_for(self.compacted)
    }

    /// True when every key event after this revision is still there. Of what was compacted, that is so as far as nobody
    /// has looked yet for what it makes unnecessary, which came before it.
    pub fn has_history_after(&self, revision: Revision) -> bool {
        revision.next() >= self.compacted || self.reclaimed <= EventId::last_of(revision)
    }
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
            compacted: Revision(0),
            reclaimed: EventId::NONE,
            leases: 0,
            lease_clock_ms: 0,
            lease_term: 0,
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
    fn key(&self, key: &[u8]) -> Option<KeyValue>;
    /// Shows keys in their order until told to stop; those of an earlier revision when one is given,
    /// which was not compacted.
    fn scan_keys(
        &self,
        keys: &KeyRange,
        at: Option<Revision>,
        visit: &mut dyn FnMut(KeyValue) -> ControlFlow<()>,
    );
    /// How many keys [`View::scan_keys`] would show.
    fn count_keys(&self, keys: &KeyRange, at: Option<Revision>) -> u64;
    /// Which keys changed after one event, up to and including another, in the order of the events, as far as
    /// `at_most` says.
    fn keys_changed(&self, after: EventId, until: EventId, at_most: AtMost) -> Vec<KeyChanged>;
    /// The latest event of a key before another event, as far as it was not forgotten.
    fn version_before(&self, key: &[u8], before: EventId) -> Option<EventId>;
    fn lease(&self, id: LeaseId) -> Option<Lease>;
    /// The keys that end with a lease, in their order.
    fn lease_keys(&self, id: LeaseId) -> Vec<Bytes>;
    /// Leases that end at a moment of their clock or before, the earliest first, at most `limit`.
    fn leases_over(&self, now_ms: u64, limit: usize) -> Vec<LeaseId>;
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
    /// Adds the event, and makes the key what it says.
    fn append_key_event(&mut self, id: EventId, event: &KeyEvent);
    /// Replaces the record; an implementation keeps the order in which leases end in step.
    fn put_lease(&mut self, lease: &Lease);
    /// Removes the record. Its keys are detached one by one before.
    fn remove_lease(&mut self, id: LeaseId);
    fn attach_key(&mut self, id: LeaseId, key: &[u8]);
    fn detach_key(&mut self, id: LeaseId, key: &[u8]);
    /// Removes an event of a key. The key as it is now stays.
    fn forget_version(&mut self, id: EventId, key: &[u8]);
}
