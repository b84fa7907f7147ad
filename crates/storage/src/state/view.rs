//! Reading the state as it stood after one entry.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::ops::{ControlFlow, Range};

use bytes::Bytes;
use prost::Message;
use rocksdb::{IteratorMode, Snapshot};
use tally_model::{
    AtMost, Claim, EventId, Globals, HistoryEntry, KeyChanged, KeyEvent, KeyRange, KeyValue, Lease,
    LeaseId, Marker, Node, NodeId, NodeName, Revision, Sequence, Session, SessionId, StoredOutcome,
    View,
};
use tally_proto::storage::{AppliedState, Membership};

use super::cache::Value;
use super::known::Known;
use crate::progress::Progress;
use crate::rocks;
use crate::table::{
    self, applied, claim, globals, history, key, key_count, key_event, key_version, lease,
    lease_end, lease_key, node, node_history, node_name, outcome, session, session_use, state_hash,
};

/// Outcomes that are looked at one by one; more are listed.
const LOOKED_AT_MAX: u64 = 16;

/// Bytes of events that nobody wants which are passed by at a time.
const PASSED_BYTES_MAX: usize = 4 << 20;

/// Some of the history of keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Events {
    /// In their order.
    pub found: Vec<(EventId, KeyEvent)>,
    /// The last revision that was looked at; nothing of it is left out.
    pub through: Revision,
}

/// The state after one entry, unmoved by later ones. Lives inside the closure that it is shown to.
///
/// Its methods cannot report a broken disk. When a read fails the view is marked, whatever it
/// gives from then on means nothing, and whoever made the view throws the closure's result away.
pub struct StateView<'a> {
    snapshot: Snapshot<'a>,
    /// Rows laid over the snapshot, by key; `None` hides one. Empty except while entries are applied.
    waiting: BTreeMap<Vec<u8>, Option<Value>>,
    laid_bytes: usize,
    /// The snapshot's globals, where they are known. While entries are applied, what is known has them.
    globals: Option<Globals>,
    /// What is known without reading; only while entries are applied.
    known: Option<RefCell<&'a mut Known>>,
    /// The first read that failed.
    broken: RefCell<Option<String>>,
}

impl<'a> StateView<'a> {
    pub(super) fn new(snapshot: Snapshot<'a>) -> Self {
        Self {
            snapshot,
            waiting: BTreeMap::new(),
            laid_bytes: 0,
            globals: None,
            known: None,
            broken: RefCell::new(None),
        }
    }

    /// The same with the globals of this state, if they are known.
    pub(super) fn with_globals(snapshot: Snapshot<'a>, globals: Option<Globals>) -> Self {
        Self {
            globals,
            ..Self::new(snapshot)
        }
    }

    /// The same with what is known of this state, and of no later one.
    pub(super) fn knowing(snapshot: Snapshot<'a>, known: &'a mut Known) -> Self {
        Self {
            known: Some(RefCell::new(known)),
            ..Self::new(snapshot)
        }
    }

    /// Shows another value, or none, in a row from now on.
    pub(super) fn lay_over(&mut self, key: Vec<u8>, value: Option<Value>) {
        self.laid_bytes += key.len() + value.as_ref().map_or(0, |value| value.bytes.len());
        self.waiting.insert(key, value);
    }

    /// Bytes of all that was laid over, each time that it was.
    pub(super) fn laid_bytes(&self) -> usize {
        self.laid_bytes
    }

    /// What is known, to note a change that was laid over.
    pub(super) fn known(&mut self) -> Option<&mut Known> {
        let known = self.known.as_mut()?;
        Some(known.get_mut())
    }

    /// What is known, to be looked at; `None` where nothing is kept known.
    pub(super) fn with_known<T>(&self, look: impl FnOnce(&mut Known) -> T) -> Option<T> {
        let known = self.known.as_ref()?;
        Some(look(&mut known.borrow_mut()))
    }

    pub(super) fn snapshot(&self) -> &Snapshot<'_> {
        &self.snapshot
    }

    /// The rows laid over, by key; `None` hides one.
    pub(super) fn waiting(&self) -> &BTreeMap<Vec<u8>, Option<Value>> {
        &self.waiting
    }

    /// The same, when nothing else is wanted any more.
    pub(super) fn into_waiting(self) -> BTreeMap<Vec<u8>, Option<Value>> {
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
                let line = self.history_at(revision);
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

    /// The line of the history at a revision, if there is one.
    pub fn history_at(&self, revision: Revision) -> Option<HistoryEntry> {
        self.message::<history::Stored, _>(&history::key(revision))
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

    /// The state hash from every row. Reads every block, and counts the keys again.
    pub(super) fn computed_hash(&self) -> u128 {
        let mut hash: u128 = 0;
        let (mut keys, mut counted) = (0_u64, 0);
        let mut progress = Progress::of("the state is read as a whole");
        let rows = self
            .snapshot
            .iterator_opt(IteratorMode::Start, rocks::once());
        for row in rows {
            match row {
                Ok((key, _)) if *key < [table::FIRST_HASHED_TAG][..] => {}
                Ok((key, value)) => {
                    match key.first() {
                        Some(&key::TAG) => keys += 1,
                        Some(&key_count::TAG) => match key_count::decode(&value) {
                            Ok(part) => counted += u64::from(part),
                            Err(error) => self.break_off(&describe(&key), &error),
                        },
                        Some(_) | None => {}
                    }
                    hash = hash.wrapping_add(state_hash::row(&key, &value));
                    progress.add(key.len() + value.len());
                }
                Err(error) => {
                    self.break_off("the state", error.as_ref());
                    break;
                }
            }
        }
        if keys != counted {
            self.break_off(
                "the number of keys",
                &format!("there are {keys}, and {counted} were counted"),
            );
        }
        hash
    }

    /// Shows a row's value as it stands, and its hash where that is known.
    pub(super) fn look<T>(
        &self,
        key: &[u8],
        show: impl FnOnce(Option<(&[u8], Option<u128>)>) -> T,
    ) -> T {
        fn parts(value: &Value) -> (&[u8], Option<u128>) {
            (&value.bytes, value.hash)
        }
        if let Some(waiting) = self.waiting.get(key) {
            return show(waiting.as_ref().map(parts));
        }
        let mut known = self.known.as_ref().map(RefCell::borrow_mut);
        if let Some(row) = known.as_ref().and_then(|known| known.rows.get(key)) {
            return show(row.map(parts));
        }
        match self.snapshot.get_pinned(key) {
            Ok(value) => {
                let value = value.as_deref();
                if let Some(known) = &mut known {
                    known.rows.found(key, value);
                }
                show(value.map(|value| (value, None)))
            }
            Err(error) => {
                self.break_off(&describe(key), error.as_ref());
                show(None)
            }
        }
    }

    pub(super) fn message<Stored, Known>(&self, key: &[u8]) -> Option<Known>
    where
        Stored: Message + Default,
        Known: TryFrom<Stored, Error: Display>,
    {
        self.row(key, table::decode::<Stored, Known>)
    }

    fn row<T>(&self, key: &[u8], decode: impl FnOnce(&[u8]) -> Result<T, String>) -> Option<T> {
        self.look(key, |row| {
            let decoded = decode(row?.0);
            decoded
                .map_err(|error| self.break_off(&describe(key), &error))
                .ok()
        })
    }

    /// Shows the numbers of all outcomes that a session holds; `None` where they are read from the state
    /// when they are needed.
    fn held<T>(&self, session: SessionId, show: impl Fn(&BTreeSet<Sequence>) -> T) -> Option<T> {
        let known = self.known.as_ref()?;
        known.borrow().held(session).map(&show)
    }

    /// The same, once they were read.
    fn held_now<T>(
        &self,
        session: SessionId,
        show: impl Fn(&BTreeSet<Sequence>) -> T,
    ) -> Option<T> {
        if let Some(shown) = self.held(session, &show) {
            return Some(shown);
        }
        let known = self.known.as_ref()?;
        // Below that none is left, and what was removed there need not be passed by.
        let from = outcome::key(session, self.session(session)?.acknowledged);
        let until = table::after_prefix(&outcome::prefix(session));
        let held = self.rows(from.to_vec(), until, usize::MAX, |key, _| {
            outcome::decode_key(key)
        });
        let held = held.into_iter().collect();
        let shown = show(&held);
        known.borrow_mut().set_held(session, held);
        Some(shown)
    }

    /// Leases by id, from the one after `after` (the first for `None`), at most `limit`.
    pub fn leases_after(&self, after: Option<LeaseId>, limit: usize) -> Vec<Lease> {
        let from = match after {
            Some(after) => table::after_prefix(&lease::key(after)),
            None => vec![lease::TAG],
        };
        let until = table::after_prefix(&[lease::TAG]);
        self.rows(from, until, limit, |_, value| {
            table::decode::<lease::Stored, Lease>(value)
        })
    }

    /// Events of the revisions after one that `wanted` accepts, in their order: of whole revisions, of as
    /// many as it takes to look at `rows_max` events or to find `bytes_max` bytes, or to pass by some that are not wanted.
    pub fn events_after(
        &self,
        after: Revision,
        rows_max: usize,
        bytes_max: usize,
        wanted: impl Fn(&KeyEvent) -> bool,
    ) -> Events {
        let (mut rows, mut bytes, mut passed) = (0, 0, 0);
        let mut found = Vec::new();
        let mut last = after;
        let mut through = self.revision();
        let from = table::after_prefix(&key_event::key(EventId::last_of(after)));
        let until = table::after_prefix(&[key_event::TAG]);
        self.each_row(from, until, |row, value| {
            let id = key_event::decode_key(row)?;
            let enough = rows >= rows_max || bytes >= bytes_max || passed >= PASSED_BYTES_MAX;
            if id.revision != last && enough {
                through = last;
                return Ok(ControlFlow::Break(()));
            }
            last = id.revision;
            rows += 1;
            let event = table::decode::<key_event::Stored, KeyEvent>(value)?;
            match wanted(&event) {
                true => {
                    bytes += value.len();
                    found.push((id, event));
                }
                false => passed += value.len(),
            }
            Ok(ControlFlow::Continue(()))
        });
        Events { found, through }
    }

    pub(super) fn break_off(&self, what: &str, error: &str) {
        self.broken
            .borrow_mut()
            .get_or_insert_with(|| format!("{what} cannot be read: {error}"));
    }
}

pub(super) fn describe(key: &[u8]) -> String {
    format!("row {key:02x?} of the state")
}

impl View for StateView<'_> {
    fn globals(&self) -> Globals {
        if let Some(globals) = &self.globals {
            return globals.clone();
        }
        if let Some(known) = &self.known
            && let Some(globals) = known.borrow().globals()
        {
            return globals.clone();
        }
        let globals: Globals = self
            .message::<globals::Stored, _>(&globals::KEY)
            .unwrap_or_default();
        if let Some(known) = &self.known {
            known.borrow_mut().set_globals(globals.clone());
        }
        globals
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
        if let Some(known) = &self.known
            && let Some(session) = known.borrow().session(id)
        {
            return Some(session.clone());
        }
        let session: Session = self.message::<session::Stored, _>(&session::key(id))?;
        if let Some(known) = &self.known {
            known.borrow_mut().set_session(session.clone());
        }
        Some(session)
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
        // Most are asked for before they are there: a look at the state would be in vain.
        let holds = self.held_now(session, |held| held.contains(&sequence));
        match holds {
            Some(false) => None,
            Some(true) | None => {
                self.message::<outcome::Stored, _>(&outcome::key(session, sequence))
            }
        }
    }

    fn stored_sequences(&self, session: SessionId, among: Range<Sequence>) -> Vec<Sequence> {
        if let Some(found) = self.held(session, |held| held.range(among.clone()).copied().collect())
        {
            return found;
        }
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

    fn key(&self, name: &[u8]) -> Option<KeyValue> {
        let row = key::key(name);
        self.row(&row, |value| key::decode(&row, value))
    }

    fn scan_keys(
        &self,
        keys: &KeyRange,
        at: Option<Revision>,
        visit: &mut dyn FnMut(KeyValue) -> ControlFlow<()>,
    ) {
        match (keys, at) {
            (KeyRange::One(name), None) => {
                if let Some(found) = self.key(name) {
                    // It was the only one.
                    let _ = visit(found);
                }
            }
            (_, None) => {
                let (from, until) = key_rows(keys);
                self.each_row(from, until, |row, value| {
                    Ok(visit(key::decode(row, value)?))
                });
            }
            (_, Some(at)) => self.scan_keys_at(keys, at, visit),
        }
    }

    fn count_keys(&self, keys: &KeyRange, at: Option<Revision>) -> u64 {
        match at {
            None => self.count_now(keys),
            Some(at) => self.count_at(keys, at),
        }
    }

    fn keys_changed(&self, after: EventId, until: EventId, at_most: AtMost) -> Vec<KeyChanged> {
        let from = table::after_prefix(&key_event::key(after));
        let until = table::after_prefix(&key_event::key(until));
        let (mut changed, mut bytes) = (Vec::new(), 0);
        self.each_row(from, until, |row, value| {
            if at_most.is_reached(changed.len(), bytes) {
                return Ok(ControlFlow::Break(()));
            }
            let event = table::decode::<key_event::Stored, KeyEvent>(value)?;
            bytes += event.key().len();
            changed.push(KeyChanged {
                id: key_event::decode_key(row)?,
                // A copy: the value is beside it.
                key: Bytes::copy_from_slice(event.key()),
                deleted: matches!(event, KeyEvent::Deleted { .. }),
            });
            Ok(ControlFlow::Continue(()))
        });
        changed
    }

    fn version_before(&self, name: &[u8], before: EventId) -> Option<EventId> {
        let from = key_version::prefix(name);
        let until = key_version::key(name, before);
        self.last_row(from, until, |row, value| {
            key_version::decode(row, value).map(|version| version.id)
        })
    }

    fn lease(&self, id: LeaseId) -> Option<Lease> {
        self.message::<lease::Stored, Lease>(&lease::key(id))
    }

    fn lease_keys(&self, id: LeaseId) -> Vec<Bytes> {
        let prefix = lease_key::prefix(id);
        let until = table::after_prefix(&prefix);
        self.rows(prefix, until, usize::MAX, |row, _| {
            lease_key::decode_key(row)
        })
    }

    fn leases_over(&self, now_ms: u64, limit: usize) -> Vec<LeaseId> {
        let until = lease_end::after(now_ms);
        self.rows(vec![lease_end::TAG], until, limit, |row, _| {
            lease_end::decode_key(row)
        })
    }
}

/// The rows of keys as they are now: from the first, up to but not including the second.
pub(super) fn key_rows(keys: &KeyRange) -> (Vec<u8>, Vec<u8>) {
    match keys {
        KeyRange::One(name) => (key::key(name), [key::key(name), vec![0]].concat()),
        KeyRange::Between(from, until) => (key::key(from), key::key(until)),
        KeyRange::From(from) => (key::key(from), table::after_prefix(&[key::TAG])),
    }
}
