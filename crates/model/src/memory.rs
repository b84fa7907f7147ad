//! The tables in memory: for tests, and the reference that storage is compared with.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use crate::claim::Claim;
use crate::history::HistoryEntry;
use crate::identifier::{Marker, NodeId, NodeName, Sequence, SessionId, Stamp};
use crate::node::Node;
use crate::outcome::Answer;
use crate::session::{Session, StoredOutcome};
use crate::view::{Globals, Tables, View};
use crate::{Request, apply};

/// A whole state. Two are equal when every row is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryState {
    globals: Globals,
    nodes: BTreeMap<NodeId, Node>,
    claims: BTreeMap<(NodeId, Option<Marker>), Claim>,
    sessions: BTreeMap<SessionId, Session>,
    sessions_by_use: BTreeSet<(u64, SessionId)>,
    outcomes: BTreeMap<(SessionId, Sequence), StoredOutcome>,
    history: Vec<HistoryEntry>,
}

impl MemoryState {
    /// Applies one request and keeps its changes.
    pub fn apply(&mut self, stamp: Stamp, request: &Request) -> Answer {
        let (answer, changes) = apply(self, stamp, request);
        for change in &changes {
            change.write_to(self);
        }
        answer
    }

    /// Every history entry, oldest first.
    pub fn history(&self) -> &[HistoryEntry] {
        &self.history
    }
}

impl View for MemoryState {
    fn globals(&self) -> Globals {
        self.globals.clone()
    }

    fn node(&self, id: NodeId) -> Option<Node> {
        self.nodes.get(&id).cloned()
    }

    fn node_by_name(&self, name: &NodeName) -> Option<Node> {
        self.nodes.values().find(|node| node.name == *name).cloned()
    }

    fn nodes(&self) -> Vec<Node> {
        self.nodes.values().cloned().collect()
    }

    fn claim(&self, node: NodeId, marker: Option<Marker>) -> Option<Claim> {
        self.claims.get(&(node, marker)).cloned()
    }

    fn claims(&self, node: NodeId) -> Vec<Claim> {
        self.claims
            .values()
            .filter(|claim| claim.node == node)
            .cloned()
            .collect()
    }

    fn session(&self, id: SessionId) -> Option<Session> {
        self.sessions.get(&id).cloned()
    }

    fn least_recently_used_session(&self) -> Option<Session> {
        let (_, id) = self.sessions_by_use.first()?;
        self.session(*id)
    }

    fn stored_outcome(&self, session: SessionId, sequence: Sequence) -> Option<StoredOutcome> {
        self.outcomes.get(&(session, sequence)).cloned()
    }

    fn stored_sequences(&self, session: SessionId, among: Range<Sequence>) -> Vec<Sequence> {
        let range = (session, among.start)..(session, among.end);
        self.outcomes
            .range(range)
            .map(|((_, sequence), _)| *sequence)
            .collect()
    }
}

impl Tables for MemoryState {
    fn put_globals(&mut self, globals: &Globals) {
        self.globals = globals.clone();
    }

    fn put_node(&mut self, node: &Node) {
        self.nodes.insert(node.id, node.clone());
    }

    fn put_claim(&mut self, claim: &Claim) {
        self.claims
            .insert((claim.node, claim.marker), claim.clone());
    }

    fn put_session(&mut self, session: &Session) {
        if let Some(old) = self.sessions.insert(session.id, session.clone()) {
            self.sessions_by_use.remove(&(old.used_unix_ms, old.id));
        }
        self.sessions_by_use
            .insert((session.used_unix_ms, session.id));
    }

    fn remove_session(&mut self, id: SessionId) {
        if let Some(old) = self.sessions.remove(&id) {
            self.sessions_by_use.remove(&(old.used_unix_ms, old.id));
        }
    }

    fn append_outcome(&mut self, session: SessionId, sequence: Sequence, stored: &StoredOutcome) {
        self.outcomes.insert((session, sequence), stored.clone());
    }

    fn remove_outcome(&mut self, session: SessionId, sequence: Sequence) {
        self.outcomes.remove(&(session, sequence));
    }

    fn append_history(&mut self, entry: &HistoryEntry) {
        self.history.push(entry.clone());
    }
}
