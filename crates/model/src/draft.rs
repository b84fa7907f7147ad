//! What one entry is about to change. Checks read the view; accepted changes gather here.

use crate::change::Change;
use crate::claim::{CLAIMS_PER_NODE_MAX, Claim};
use crate::history::{Event, HistoryEntry};
use crate::identifier::{LeaseId, Marker, NodeId, Revision, Stamp, Tag};
use crate::keys::{self, EventId, KeyEvent, KeysDraft};
use crate::node::{Node, SetBy};
use crate::record_keys;
use crate::settings::Settings;
use crate::storage_state::StorageState;
use crate::view::{Globals, View};

/// Changes of one entry in the making.
pub(crate) struct Draft<'v, V> {
    pub(crate) view: &'v V,
    pub(crate) stamp: Stamp,
    pub(crate) globals: Globals,
    /// Keys as the entry leaves them.
    pub(crate) keys: KeysDraft<'v, V>,
    before: Globals,
    changes: Vec<Change>,
    key_events: u32,
}

impl<'v, V: View> Draft<'v, V> {
    pub(crate) fn new(view: &'v V, stamp: Stamp) -> Self {
        let before = view.globals();
        let mut globals = before.clone();
        // Leadership may move to a slower clock; time in the state must not run backwards.
        globals.unix_ms = globals.unix_ms.max(stamp.unix_ms);
        Self {
            view,
            stamp,
            keys: KeysDraft::new(view, &before),
            globals,
            before,
            changes: Vec::new(),
            key_events: 0,
        }
    }

    /// Stamped time, never smaller than any seen before.
    pub(crate) fn unix_ms(&self) -> u64 {
        self.globals.unix_ms
    }

    /// Settings of the founded cluster. Commands that need them are refused before the founding.
    pub(crate) fn settings(&self) -> Settings {
        self.globals
            .founded
            .as_ref()
            .map(|(_, settings)| settings.clone())
            .unwrap_or_default()
    }

    /// The revision of this entry's changes: one more than before, however many changes there are.
    pub(crate) fn revise(&mut self) -> Revision {
        self.globals.revision = self.before.revision.next();
        self.globals.revision
    }

    /// Changes a key, at this entry's revision. `before` is the lease that the key had until now.
    pub(crate) fn change_key(&mut self, event: KeyEvent, before: Option<LeaseId>) {
        let id = EventId {
            revision: self.revise(),
            number: self.key_events,
        };
        self.key_events += 1;
        let now = match &event {
            KeyEvent::Put(made) => Some(made.clone()),
            KeyEvent::Deleted { .. } => None,
        };
        let key = event.key();
        let after = now.as_ref().and_then(|now| now.lease);
        if before != after {
            if let Some(lease) = before {
                let key = key.clone();
                self.changes.push(Change::LeaseDetached { lease, key });
            }
            if let Some(lease) = after {
                let key = key.clone();
                self.changes.push(Change::LeaseAttached { lease, key });
            }
        }
        self.keys.write(event.key().clone(), now);
        self.push(Change::KeyChanged { id, event });
    }

    /// How many changes there are.
    pub(crate) fn changes(&self) -> usize {
        self.changes.len()
    }

    /// Takes back every change but the first ones, among which none is of a key or has a revision.
    pub(crate) fn undo_keys(&mut self, first: usize) {
        self.changes.truncate(first);
        self.globals.revision = self.before.revision;
        self.key_events = 0;
        self.keys.forget();
    }

    pub(crate) fn push(&mut self, change: Change) {
        self.changes.push(change);
    }

    /// State of a node as this entry leaves it.
    pub(crate) fn storage_state_after(&self, id: NodeId) -> Option<StorageState> {
        let changed = self.changes.iter().rev().find_map(|change| match change {
            Change::NodeRegistered { node } | Change::StorageStateChanged { node }
                if node.id == id =>
            {
                Some(node.storage_state)
            }
            _ => None,
        });
        changed.or_else(|| self.view.node(id).map(|node| node.storage_state))
    }

    /// Appends a history entry at this entry's revision.
    pub(crate) fn record(
        &mut self,
        node: NodeId,
        actor: SetBy,
        tag: Tag,
        event: Event,
        reason: &str,
    ) {
        let entry = HistoryEntry {
            revision: self.revise(),
            unix_ms: self.unix_ms(),
            node,
            actor,
            tag,
            event,
            reason: reason.to_owned(),
            hash: [0; 32],
        };
        let entry = entry.chained_to(&self.globals.history_hash);
        self.globals.history_hash = entry.hash;
        self.push(Change::HistoryAppended { entry });
    }

    /// Records that someone asked for `node` without being its owner. The node itself is not
    /// changed, so that its owner and its operator notice nothing.
    pub(crate) fn claim(&mut self, node: &Node, marker: Option<Marker>, tag: Tag) {
        let revision = self.revise();
        let unix_ms = self.unix_ms();
        if let Some(mut claim) = self.view.claim(node.id, marker) {
            claim.tag = tag;
            claim.last_revision = revision;
            claim.last_unix_ms = unix_ms;
            claim.attempts += 1;
            self.push(Change::ClaimRecorded { claim });
        } else if self.view.claims(node.id).len() < CLAIMS_PER_NODE_MAX {
            let claim = Claim {
                node: node.id,
                marker,
                tag,
                first_revision: revision,
                last_revision: revision,
                last_unix_ms: unix_ms,
                attempts: 1,
            };
            self.push(Change::ClaimRecorded { claim });
            self.record(node.id, SetBy::Node, tag, Event::Claimed { marker }, "");
        } else {
            let node = Node {
                claims_dropped: node.claims_dropped + 1,
                ..node.clone()
            };
            self.push(Change::ClaimDropped { node });
        }
    }

    /// Has every node and claim that the entry changed shown as a key.
    fn show_records(&mut self) {
        let shown = self.changes.iter().filter_map(|change| match change {
            Change::NodeRegistered { node }
            | Change::StorageStateChanged { node }
            | Change::ClaimDropped { node } => Some((
                record_keys::node_key(node.id),
                record_keys::node_value(node),
            )),
            Change::ClaimRecorded { claim } => {
                let key = record_keys::claim_key(claim.node, claim.marker);
                Some((key, record_keys::claim_value(claim)))
            }
            _ => None,
        });
        for (key, value) in shown.collect::<Vec<_>>() {
            let previous = self.keys.get(&key);
            let revision = self.revise();
            let made = keys::next_version(previous.as_ref(), key, value, revision);
            self.change_key(KeyEvent::Put(made), None);
        }
    }

    /// The changes, the globals last.
    pub(crate) fn finish(mut self) -> Vec<Change> {
        self.show_records();
        let (before, after) = (self.before.revision, self.globals.revision);
        assert!(
            after == before || after == before.next(),
            "revision must rise by at most one for each entry: {before} to {after}"
        );
        if self.globals != self.before {
            self.changes.push(Change::GlobalsChanged {
                globals: self.globals,
            });
        }
        self.changes
    }
}
