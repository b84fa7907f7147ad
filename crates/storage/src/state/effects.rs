//! What one entry writes, gathered into one batch.

use std::collections::BTreeMap;

use prost::Message;
use rocksdb::WriteBatch;
use tally_model::{
    Claim, Globals, HistoryEntry, Node, Sequence, Session, SessionId, StoredOutcome, Tables, View,
};
use tally_proto::storage::AppliedState;

use super::view::StateView;
use crate::table::{
    self, applied, claim, globals, history, node, node_history, node_name, outcome, session,
    session_use, state_hash,
};

/// Rows to be written over a view; the last write of a row counts.
pub(super) struct Effects<'a> {
    view: &'a StateView<'a>,
    /// By key; `None` removes.
    rows: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    /// Sessions as this entry leaves them, so far.
    sessions: BTreeMap<SessionId, Option<Session>>,
}

impl<'a> Effects<'a> {
    pub(super) fn new(view: &'a StateView<'a>) -> Self {
        Self {
            view,
            rows: BTreeMap::new(),
            sessions: BTreeMap::new(),
        }
    }

    /// The batch that writes everything, and the state hash after it.
    pub(super) fn finish(self, applied: &AppliedState, hash: u128) -> (WriteBatch, u128) {
        let mut batch = WriteBatch::default();
        let mut after = hash;
        for (key, value) in &self.rows {
            let before = self.view.raw(key);
            if before == *value {
                continue;
            }
            if let Some(before) = &before {
                after = after.wrapping_sub(state_hash::row(key, before));
            }
            match value {
                Some(value) => {
                    after = after.wrapping_add(state_hash::row(key, value));
                    batch.put(key, value);
                }
                None => batch.delete(key),
            }
        }
        if after != hash {
            batch.put(state_hash::KEY, state_hash::encode(after));
        }
        batch.put(applied::KEY, applied.encode_to_vec());
        (batch, after)
    }

    fn put(&mut self, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) {
        self.rows.insert(key.into(), Some(value.into()));
    }

    fn remove(&mut self, key: impl Into<Vec<u8>>) {
        self.rows.insert(key.into(), None);
    }

    /// Takes a session out of the order of use.
    fn forget_use(&mut self, id: SessionId) {
        let before = match self.sessions.get(&id) {
            Some(written) => written.clone(),
            None => self.view.session(id),
        };
        if let Some(before) = before {
            self.remove(session_use::key(&before));
        }
    }
}

impl Tables for Effects<'_> {
    fn put_globals(&mut self, globals: &Globals) {
        self.put(globals::KEY, table::encode::<globals::Stored, _>(globals));
    }

    fn put_node(&mut self, node: &Node) {
        self.put(node::key(node.id), table::encode::<node::Stored, _>(node));
        self.put(node_name::key(&node.name), node_name::encode(node.id));
    }

    fn put_claim(&mut self, claim: &Claim) {
        let key = claim::key(claim.node, claim.marker);
        self.put(key, table::encode::<claim::Stored, _>(claim));
    }

    fn put_session(&mut self, session: &Session) {
        self.forget_use(session.id);
        self.put(
            session::key(session.id),
            table::encode::<session::Stored, _>(session),
        );
        self.put(session_use::key(session), []);
        self.sessions.insert(session.id, Some(session.clone()));
    }

    fn remove_session(&mut self, id: SessionId) {
        self.forget_use(id);
        self.remove(session::key(id));
        self.sessions.insert(id, None);
    }

    fn put_outcome(&mut self, session: SessionId, sequence: Sequence, stored: &StoredOutcome) {
        self.put(
            outcome::key(session, sequence),
            table::encode::<outcome::Stored, _>(stored),
        );
    }

    fn remove_outcome(&mut self, session: SessionId, sequence: Sequence) {
        self.remove(outcome::key(session, sequence));
    }

    fn append_history(&mut self, entry: &HistoryEntry) {
        self.put(
            history::key(entry.revision),
            table::encode::<history::Stored, _>(entry),
        );
        self.put(node_history::key(entry.node, entry.revision), []);
    }
}
