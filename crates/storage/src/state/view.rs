//! Reading the state as it stood after one entry.

use std::cell::RefCell;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::Range;

use itertools::{EitherOrBoth, Itertools};
use prost::Message;
use rocksdb::{Direction, IteratorMode, Snapshot};
use tally_model::{
    Claim, Globals, HistoryEntry, Marker, Node, NodeId, NodeName, Revision, Sequence, Session,
    SessionId, StoredOutcome, View,
};
use tally_proto::storage::{AppliedState, Membership};

use super::cache::RowCache;
use crate::progress::Progress;
use crate::rocks;
use crate::table::{
    self, applied, claim, globals, history, node, node_history, node_name, outcome, session,
    session_use, state_hash,
};

/// Outcomes that are looked at one by one; more are listed.
const LOOKED_AT_MAX: u64 = 16;

/// The state after one entry, unmoved by later ones. Lives inside the closure that it is shown to.
///
/// Its methods cannot report a broken disk. When a read fails the view is marked, whatever it
/// gives from then on means nothing, and whoever made the view throws the closure's result away.
pub struct StateView<'a> {
    snapshot: Snapshot<'a>,
    /// Rows laid over the snapshot, by key; `None` hides one. Empty except while entries are applied.
    waiting: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    /// What is known of single rows without reading; only while entries are applied.
    cache: Option<RefCell<&'a mut RowCache>>,
    /// The first read that failed.
    broken: RefCell<Option<String>>,
}

impl<'a> StateView<'a> {
    pub(super) fn new(snapshot: Snapshot<'a>) -> Self {
        Self {
            snapshot,
            waiting: BTreeMap::new(),
            cache: None,
            broken: RefCell::new(None),
        }
    }

    /// The same with a cache, which knows of no later state than this one.
    pub(super) fn with_cache(snapshot: Snapshot<'a>, cache: &'a mut RowCache) -> Self {
        Self {
            cache: Some(RefCell::new(cache)),
            ..Self::new(snapshot)
        }
    }

    /// Shows another value, or none, in a row from now on.
    pub(super) fn lay_over(&mut self, key: Vec<u8>, value: Option<Vec<u8>>) {
        self.waiting.insert(key, value);
    }

    /// The rows laid over, by key.
    pub(super) fn into_waiting(self) -> BTreeMap<Vec<u8>, Option<Vec<u8>>> {
        self.waiting
    }

    /// The first read that failed, if one did.
    pub(super) fn into_broken(self) -> Option<String> {
        self.broken.into_inner()
    }

    pub(super) fn broken(&self) -> Option<String> {
        self.broken.borrow().clone()
    }

    /// Where the state stands in the log.
    pub fn applied(&self) -> AppliedState {
        self.row(&applied::KEY, |value| {
            AppliedState::decode(value).map_err(|error| error.to_string())
        })
        .unwrap_or_default()
    }

    /// The members of the cluster; none before the first membership entry.
    pub fn membership(&self) -> Membership {
        self.applied().membership.unwrap_or_default()
    }

    /// The store's revision.
    pub fn revision(&self) -> Revision {
        self.globals().revision
    }

    /// Nodes by id, from the one after `after` (the first for `None`), at most `limit`.
    pub fn nodes_after(&self, after: Option<NodeId>, limit: usize) -> Vec<Node> {
        let from = match after {
            Some(after) => table::after_prefix(&node::key(after)),
            None => vec![node::TAG],
        };
        self.rows(
            from,
            table::after_prefix(&[node::TAG]),
            limit,
            |_, value| table::decode::<node::Stored, Node>(value),
        )
    }

    /// Lines of the history with a revision above `after`, ascending, at most `limit`; those of one
    /// node when it is given.
    pub fn history_after(
        &self,
        after: Revision,
        of: Option<NodeId>,
        limit: usize,
    ) -> Vec<HistoryEntry> {
        let Some(of) = of else {
            let from = table::after_prefix(&history::key(after));
            return self.rows(
                from,
                table::after_prefix(&[history::TAG]),
                limit,
                |_, value| table::decode::<history::Stored, HistoryEntry>(value),
            );
        };
        let from = table::after_prefix(&node_history::key(of, after));
        let until = node_history::key(of, Revision(u64::MAX));
        let revisions = self.rows(from, until.to_vec(), limit, |key, _| {
            node_history::decode_key(key)
        });
        revisions
            .into_iter()
            .filter_map(|revision| {
                let line = self.message::<history::Stored, HistoryEntry>(&history::key(revision));
                if line.is_none() {
                    self.break_off(
                        &format!("history at {revision}"),
                        "it is listed for its node and missing",
                    );
                }
                line
            })
            .collect()
    }

    /// Claims by node, from the one after `after` (the first for `None`), at most `limit`.
    pub fn claims_after(
        &self,
        after: Option<(NodeId, Option<Marker>)>,
        limit: usize,
    ) -> Vec<Claim> {
        let from = match after {
            Some((node, marker)) => table::after_prefix(&claim::key(node, marker)),
            None => vec![claim::TAG],
        };
        self.claims_between(from, table::after_prefix(&[claim::TAG]), limit)
    }

    /// The first `limit` claims, by node.
    pub fn claims_all(&self, limit: usize) -> Vec<Claim> {
        self.claims_after(None, limit)
    }

    fn claims_between(&self, from: Vec<u8>, until: Vec<u8>, limit: usize) -> Vec<Claim> {
        self.rows(from, until, limit, |_, value| {
            table::decode::<claim::Stored, Claim>(value)
        })
    }

    /// The stored state hash; 0 for a state without rows.
    pub(super) fn stored_hash(&self) -> u128 {
        self.row(&state_hash::KEY, state_hash::decode)
            .unwrap_or_default()
    }

    /// The state hash from every row. Reads every block.
    pub(super) fn computed_hash(&self) -> u128 {
        let mut hash: u128 = 0;
        let mut progress = Progress::of("the state is read as a whole");
        let rows = self
            .snapshot
            .iterator_opt(IteratorMode::Start, rocks::once());
        for row in rows {
            match row {
                Ok((key, _)) if *key < [table::FIRST_HASHED_TAG][..] => {}
                Ok((key, value)) => {
                    hash = hash.wrapping_add(state_hash::row(&key, &value));
                    progress.add(key.len() + value.len());
                }
                Err(error) => {
                    self.break_off("the state", error.as_ref());
                    break;
                }
            }
        }
        hash
    }

    /// A row's value as it stands.
    pub(super) fn raw(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.row(key, |value| Ok(value.to_vec()))
    }

    fn message<Stored, Known>(&self, key: &[u8]) -> Option<Known>
    where
        Stored: Message + Default,
        Known: TryFrom<Stored, Error: Display>,
    {
        self.row(key, table::decode::<Stored, Known>)
    }

    fn row<T>(&self, key: &[u8], decode: impl FnOnce(&[u8]) -> Result<T, String>) -> Option<T> {
        let decoded = |value: &[u8]| {
            let decoded = decode(value);
            decoded
                .map_err(|error| self.break_off(&describe(key), &error))
                .ok()
        };
        if let Some(waiting) = self.waiting.get(key) {
            return waiting.as_deref().and_then(decoded);
        }
        let mut cache = self.cache.as_ref().map(RefCell::borrow_mut);
        if let Some(known) = cache.as_ref().and_then(|cache| cache.get(key)) {
            return known.and_then(decoded);
        }
        match self.snapshot.get_pinned(key) {
            Ok(value) => {
                if let Some(cache) = &mut cache {
                    cache.found(key, value.as_deref());
                }
                value.as_deref().and_then(decoded)
            }
            Err(error) => {
                self.break_off(&describe(key), error.as_ref());
                None
            }
        }
    }

    /// Rows from `from` up to but not including `until`, at most `limit`.
    fn rows<T>(
        &self,
        from: Vec<u8>,
        until: Vec<u8>,
        limit: usize,
        mut decode: impl FnMut(&[u8], &[u8]) -> Result<T, String>,
    ) -> Vec<T> {
        let mut found = Vec::new();
        if from >= until {
            return found;
        }
        let mode = IteratorMode::From(&from, Direction::Forward);
        let range = from.clone()..until.clone();
        let stored = self.snapshot.iterator_opt(mode, rocks::bounded_by(until));
        let rows = stored.merge_join_by(self.waiting.range(range), |stored, (waiting, _)| {
            // An error comes first: what would follow it is unknown.
            stored
                .as_ref()
                .map_or(Ordering::Less, |(key, _)| (**key).cmp(waiting.as_slice()))
        });
        let rows = rows.filter_map(|row| match row {
            EitherOrBoth::Left(stored) => Some(stored),
            EitherOrBoth::Right((key, value)) | EitherOrBoth::Both(_, (key, value)) => {
                let value = value.as_deref()?;
                Some(Ok((key.as_slice().into(), value.into())))
            }
        });
        for row in rows.take(limit) {
            match row {
                Ok((key, value)) => match decode(&key, &value) {
                    Ok(decoded) => found.push(decoded),
                    Err(error) => self.break_off(&describe(&key), &error),
                },
                Err(error) => self.break_off("the state", error.as_ref()),
            }
            if self.broken.borrow().is_some() {
                break;
            }
        }
        found
    }

    fn break_off(&self, what: &str, error: &str) {
        self.broken
            .borrow_mut()
            .get_or_insert_with(|| format!("{what} cannot be read: {error}"));
    }
}

fn describe(key: &[u8]) -> String {
    format!("row {key:02x?} of the state")
}

impl View for StateView<'_> {
    fn globals(&self) -> Globals {
        self.message::<globals::Stored, _>(&globals::KEY)
            .unwrap_or_default()
    }

    fn node(&self, id: NodeId) -> Option<Node> {
        self.message::<node::Stored, _>(&node::key(id))
    }

    fn node_by_name(&self, name: &NodeName) -> Option<Node> {
        let id = self.row(&node_name::key(name), node_name::decode)?;
        let node = self.node(id);
        if node.is_none() {
            self.break_off(
                &format!("node {id}"),
                "its name is taken and its record is missing",
            );
        }
        node
    }

    fn nodes(&self) -> Vec<Node> {
        self.nodes_after(None, usize::MAX)
    }

    fn claim(&self, node: NodeId, marker: Option<Marker>) -> Option<Claim> {
        self.message::<claim::Stored, _>(&claim::key(node, marker))
    }

    fn claims(&self, node: NodeId) -> Vec<Claim> {
        let prefix = claim::prefix(node);
        self.claims_between(prefix.to_vec(), table::after_prefix(&prefix), usize::MAX)
    }

    fn session(&self, id: SessionId) -> Option<Session> {
        self.message::<session::Stored, _>(&session::key(id))
    }

    fn least_recently_used_session(&self) -> Option<Session> {
        let until = table::after_prefix(&[session_use::TAG]);
        let first = self.rows(vec![session_use::TAG], until, 1, |key, _| {
            session_use::decode_key(key)
        });
        let id = *first.first()?;
        let session = self.session(id);
        if session.is_none() {
            self.break_off(
                &format!("session {id}"),
                "it is listed by its last use and missing",
            );
        }
        session
    }

    fn stored_outcome(&self, session: SessionId, sequence: Sequence) -> Option<StoredOutcome> {
        self.message::<outcome::Stored, _>(&outcome::key(session, sequence))
    }

    fn stored_sequences(&self, session: SessionId, among: Range<Sequence>) -> Vec<Sequence> {
        // What was removed is passed by one by one until it is compacted away; a look at a key is not.
        if among.end.saturating_sub(among.start) <= LOOKED_AT_MAX {
            let stored = |sequence: &Sequence| {
                let found = self.row(&outcome::key(session, *sequence), |_| Ok(()));
                found.is_some()
            };
            return among.filter(stored).collect();
        }
        let from = outcome::key(session, among.start);
        let until = outcome::key(session, among.end);
        self.rows(from.to_vec(), until.to_vec(), usize::MAX, |key, _| {
            outcome::decode_key(key)
        })
    }
}
