//! The tables in memory: for tests, and the reference that storage is compared with.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{ControlFlow, Range};

use bytes::Bytes;

use crate::claim::Claim;
use crate::history::HistoryEntry;
use crate::identifier::{LeaseId, Marker, NodeId, NodeName, Revision, Sequence, SessionId, Stamp};
use crate::keys::{AtMost, EventId, KeyChanged, KeyEvent, KeyRange, KeyValue};
use crate::lease::Lease;
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
    /// Every version that was not forgotten, and the deletions.
    versions: BTreeMap<Bytes, BTreeMap<EventId, KeyEvent>>,
    keys: BTreeMap<Bytes, KeyValue>,
    leases: BTreeMap<LeaseId, Lease>,
    lease_keys: BTreeSet<(LeaseId, Bytes)>,
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

    /// Keys as of a revision, in their order.
    fn keys_at(
        &self,
        keys: &KeyRange,
        at: Option<Revision>,
    ) -> Box<dyn Iterator<Item = &KeyValue> + '_> {
        let keys = keys.clone();
        let Some(at) = at else {
            return Box::new(
                self.keys
                    .values()
                    .filter(move |found| keys.contains(&found.key)),
            );
        };
        let versions = self.versions.iter();
        let versions = versions.filter(move |(key, _)| keys.contains(key));
        Box::new(versions.filter_map(move |(_, versions)| {
            let latest = versions.iter().rfind(|(id, _)| id.revision <= at);
            match latest?.1 {
                KeyEvent::Put(made) => Some(made),
                KeyEvent::Deleted { .. } => None,
            }
        }))
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

    fn key(&self, key: &[u8]) -> Option<KeyValue> {
        self.keys.get(key).cloned()
    }

    fn scan_keys(
        &self,
        keys: &KeyRange,
        at: Option<Revision>,
        visit: &mut dyn FnMut(KeyValue) -> ControlFlow<()>,
    ) {
        for found in self.keys_at(keys, at) {
            if visit(found.clone()).is_break() {
                return;
            }
        }
    }

    fn count_keys(&self, keys: &KeyRange, at: Option<Revision>) -> u64 {
        self.keys_at(keys, at).count() as u64
    }

    fn keys_changed(&self, after: EventId, until: EventId, at_most: AtMost) -> Vec<KeyChanged> {
        let versions = self.versions.values().flatten();
        let between = versions.filter(|(id, _)| after < **id && **id <= until);
        let changed = between.map(|(id, event)| KeyChanged {
            id: *id,
            key: event.key().clone(),
            deleted: matches!(event, KeyEvent::Deleted { .. }),
        });
        let mut changed: Vec<_> = changed.collect();
        changed.sort_by_key(|changed| changed.id);
        let (mut changes, mut key_bytes) = (0, 0);
        changed.retain(|changed| {
            let goes_on = !at_most.is_reached(changes, key_bytes);
            changes += 1;
            key_bytes += changed.key.len();
            goes_on
        });
        changed
    }

    fn version_before(&self, key: &[u8], before: EventId) -> Option<EventId> {
        let mut versions = self.versions.get(key)?.keys();
        versions.rfind(|id| **id < before).copied()
    }

    fn lease(&self, id: LeaseId) -> Option<Lease> {
        self.leases.get(&id).copied()
    }

    fn lease_keys(&self, id: LeaseId) -> Vec<Bytes> {
        let attached = self.lease_keys.range((id, Bytes::new())..);
        let attached = attached.take_while(|(lease, _)| *lease == id);
        attached.map(|(_, key)| key.clone()).collect()
    }

    fn leases_over(&self, now_ms: u64, limit: usize) -> Vec<LeaseId> {
        let over = self.leases.values().filter(|lease| lease.ends_ms <= now_ms);
        let mut over: Vec<_> = over.map(|lease| (lease.ends_ms, lease.id)).collect();
        over.sort();
        over.into_iter().map(|(_, id)| id).take(limit).collect()
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

    fn append_key_event(&mut self, id: EventId, event: &KeyEvent) {
        match event {
            KeyEvent::Put(made) => self.keys.insert(made.key.clone(), made.clone()),
            KeyEvent::Deleted { key } => self.keys.remove(key),
        };
        let versions = self.versions.entry(event.key().clone()).or_default();
        versions.insert(id, event.clone());
    }

    fn put_lease(&mut self, lease: &Lease) {
        self.leases.insert(lease.id, *lease);
    }

    fn remove_lease(&mut self, id: LeaseId) {
        self.leases.remove(&id);
    }

    fn attach_key(&mut self, id: LeaseId, key: &[u8]) {
        self.lease_keys.insert((id, Bytes::copy_from_slice(key)));
    }

    fn detach_key(&mut self, id: LeaseId, key: &[u8]) {
        self.lease_keys.remove(&(id, Bytes::copy_from_slice(key)));
    }

    fn forget_version(&mut self, id: EventId, key: &[u8]) {
        if let Some(versions) = self.versions.get_mut(key) {
            versions.remove(&id);
            if versions.is_empty() {
                self.versions.remove(key);
            }
        }
    }
}
