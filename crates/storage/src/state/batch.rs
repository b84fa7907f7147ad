//! Entries that are applied together: what they write waits in memory, seen by the entries after
//! them, until one write takes all of it.

use std::collections::BTreeMap;

use prost::Message;
use rocksdb::WriteBatch;
use tally_model::{
    Answer, Claim, EventId, Globals, HistoryEntry, KeyEvent, Lease, LeaseId, Node, Request,
    Sequence, Session, SessionId, Stamp, StoredOutcome, Tables, View,
};
use tally_proto::convert::decode_request;
use tally_proto::storage::log_entry::Payload;
use tally_proto::storage::{AppliedState, LogEntry, LogId, Membership, Proposal};

use super::cache::Value;
use super::parts::{PART_KEYS_MAX, Part};
use super::view::StateView;
use crate::table::{
    self, applied, claim, globals, history, key, key_count, key_event, key_version, lease,
    lease_end, lease_key, node, node_history, node_name, outcome, session, session_use, state_hash,
};

/// Why an entry was not applied.
pub(super) enum NotApplied {
    /// It does not come after the last applied one.
    Already(String),
    /// The state cannot be read.
    Failed(String),
}

impl From<String> for NotApplied {
    fn from(what: String) -> Self {
        Self::Failed(what)
    }
}

/// An entry that was read.
pub(super) struct Step {
    id: LogId,
    what: What,
}

#[expect(clippy::large_enum_variant, reason = "nearly all are proposals")]
enum What {
    Propose { unix_ms: u64, request: Request },
    SetMembership(Membership),
    Nothing,
}

impl Step {
    /// Reads an entry. The error says what cannot be applied by this version.
    pub(super) fn read(entry: LogEntry) -> Result<Self, String> {
        let id = entry
            .id
            .ok_or_else(|| "an entry without an id is to be applied".to_owned())?;
        let index = id.index;
        let what = match entry.payload {
            Some(Payload::Proposal(Proposal { request, unix_ms })) => {
                let request = decode_request(request)
                    .map_err(|error| format!("entry {index} cannot be decoded: {error}"))?;
                What::Propose { unix_ms, request }
            }
            Some(Payload::Membership(membership)) => What::SetMembership(membership),
            Some(Payload::Blank(_)) => What::Nothing,
            None => {
                let what = format!("entry {index} has a payload that this version does not know");
                return Err(what);
            }
        };
        Ok(Self { id, what })
    }

    pub(super) fn may_take_long(&self) -> bool {
        matches!(&self.what, What::Propose { request, .. } if request.command.may_take_long())
    }
}

/// Entries that have written so many bytes end a batch; an answer is among them, as its tag's outcome.
const BATCH_BYTES_MAX: usize = 4 << 20;

/// What several entries make of a state that stands still.
pub(super) struct Batch<'a> {
    view: StateView<'a>,
    applied: AppliedState,
    hash: u128,
    hash_before: u128,
    /// The state hash after each entry, by index.
    hashes: Vec<(u64, u128)>,
}

/// A batch that is ready to be written.
pub(super) struct Ready {
    /// Rows as they stand from now on, by key; `None` for one that goes.
    pub(super) rows: BTreeMap<Vec<u8>, Option<Value>>,
    pub(super) applied: AppliedState,
    pub(super) hashes: Vec<(u64, u128)>,
}

impl Ready {
    pub(super) fn to_write(&self) -> WriteBatch {
        let mut batch = WriteBatch::default();
        for (key, value) in &self.rows {
            match value {
                Some(value) => batch.put(key, &value.bytes),
                None => batch.delete(key),
            }
        }
        batch
    }
}

impl<'a> Batch<'a> {
    /// Begins on the state that `view` shows, which stands at `applied` with this hash.
    pub(super) fn new(view: StateView<'a>, applied: AppliedState, hash: u128) -> Self {
        Self {
            view,
            applied,
            hash,
            hash_before: hash,
            hashes: Vec::new(),
        }
    }

    /// Applies the next entry; the answer is there for proposals. After an error the batch is of no
    /// use any more.
    pub(super) fn apply(&mut self, step: Step) -> Result<Option<Answer>, NotApplied> {
        let Step { id, what } = step;
        let last = self.applied.last_applied;
        if let Some(last) = last.filter(|last| last.index >= id.index) {
            return Err(NotApplied::Already(format!(
                "entry {} is to be applied, and {} was applied already",
                id.index, last.index
            )));
        }
        let answer = match what {
            What::Propose { unix_ms, request } => {
                let index = id.index;
                Some(self.decide(Stamp { index, unix_ms }, &request))
            }
            What::SetMembership(membership) => {
                self.set_membership(id, membership);
                None
            }
            What::Nothing => None,
        };
        // A view that broke has shown things that do not stand; what came of them is not written.
        if let Some(what) = self.view.broken() {
            return Err(what.into());
        }
        self.applied.last_applied = Some(id);
        self.hashes.push((id.index, self.hash));
        Ok(answer)
    }

    /// True when no more entries are to be applied with these: what they write is held several times before it is
    /// written.
    pub(super) fn is_full(&self) -> bool {
        self.view.laid_bytes() >= BATCH_BYTES_MAX
    }

    /// Everything that the entries wrote, and where the state then stands.
    pub(super) fn finish(mut self) -> Ready {
        if self.hash != self.hash_before {
            let hash = state_hash::encode(self.hash);
            self.lay_over_unhashed(&state_hash::KEY, hash.into());
        }
        let applied = self.applied.encode_to_vec();
        self.lay_over_unhashed(&applied::KEY, applied);
        Ready {
            rows: self.view.into_waiting(),
            applied: self.applied,
            hashes: self.hashes,
        }
    }

    /// Runs the state machine for one proposal.
    fn decide(&mut self, stamp: Stamp, request: &Request) -> Answer {
        let (answer, changes) = tally_model::apply(&self.view, stamp, request);
        for change in &changes {
            change.write_to(self);
        }
        answer
    }

    fn set_membership(&mut self, id: LogId, membership: Membership) {
        self.applied.membership_at = Some(id);
        self.applied.membership = Some(membership);
    }

    /// Writes a row that is no part of the state hash.
    fn lay_over_unhashed(&mut self, key: &[u8], bytes: Vec<u8>) {
        let value = Value { bytes, hash: None };
        self.view.lay_over(key.into(), Some(value));
    }

    /// Writes a row, `None` to remove it, and keeps the hash in step. True when the row existed.
    fn write(&mut self, key: Vec<u8>, value: Option<Vec<u8>>) -> bool {
        // `None` when nothing changes.
        let before = self.view.look(&key, |before| match (before, &value) {
            (None, None) => None,
            (Some((before, _)), Some(value)) if before == value => None,
            (Some((before, hash)), _) => {
                Some(Some(hash.unwrap_or_else(|| state_hash::row(&key, before))))
            }
            (None, Some(_)) => Some(None),
        });
        let Some(before) = before else {
            return value.is_some();
        };
        if let Some(before) = before {
            self.hash = self.hash.wrapping_sub(before);
        }
        self.lay_over(key, value);
        before.is_some()
    }

    /// Lays a row over and adds it to the hash.
    fn lay_over(&mut self, key: Vec<u8>, value: Option<Vec<u8>>) {
        let value = value.map(|bytes| {
            let hash = state_hash::row(&key, &bytes);
            self.hash = self.hash.wrapping_add(hash);
            Value {
                bytes,
                hash: Some(hash),
            }
        });
        self.view.lay_over(key, value);
    }

    fn put(&mut self, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> bool {
        self.write(key.into(), Some(value.into()))
    }

    /// Writes a row under a key that holds none: one with the revision or the tag of this entry.
    fn append(&mut self, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) {
        let (key, value) = (key.into(), value.into());
        debug_assert!(
            self.view.look(&key, |row| row.is_none()),
            "{key:02x?} stands already"
        );
        self.lay_over(key, Some(value));
    }

    /// True when there was something to remove.
    fn remove(&mut self, key: impl Into<Vec<u8>>) -> bool {
        self.write(key.into(), None)
    }

    /// Counts a key that has just been written, and was not there before.
    fn count_made(&mut self, name: &[u8]) {
        let mut part = self.view.part_of(name);
        part.keys += 1;
        if part.keys > PART_KEYS_MAX
            && let Some(middle) = self.view.middle_of(&part)
        {
            let (lower, upper) = part.divide(middle);
            self.put_part(upper);
            part = lower;
        }
        self.put_part(part);
    }

    /// Counts a key that has just been removed.
    fn count_removed(&mut self, name: &[u8]) {
        let mut part = self.view.part_of(name);
        let Some(left) = part.keys.checked_sub(1) else {
            return self.view.miscounted(&part.from);
        };
        if left == 0 && !part.from.is_empty() {
            self.remove(key_count::key(&part.from));
            if let Some(known) = self.view.known() {
                known.parts.clear();
            }
            return;
        }
        part.keys = left;
        self.put_part(part);
    }

    fn put_part(&mut self, part: Part) {
        self.put(key_count::key(&part.from), key_count::encode(part.keys));
        if let Some(known) = self.view.known() {
            known.parts.set(part);
        }
    }
}

impl Tables for Batch<'_> {
    fn put_globals(&mut self, globals: &Globals) {
        self.put(globals::KEY, table::encode::<globals::Stored, _>(globals));
        if let Some(known) = self.view.known() {
            known.set_globals(globals.clone());
        }
    }

    fn put_node(&mut self, node: &Node) {
        let existed = self.put(node::key(node.id), table::encode::<node::Stored, _>(node));
        if !existed {
            self.put(node_name::key(&node.name), node_name::encode(node.id));
        }
    }

    fn put_claim(&mut self, claim: &Claim) {
        let key = claim::key(claim.node, claim.marker);
        self.put(key, table::encode::<claim::Stored, _>(claim));
    }

    fn put_session(&mut self, session: &Session) {
        let before = self.view.session(session.id);
        let use_before = before.as_ref().map(session_use::key);
        let use_now = session_use::key(session);
        if use_before != Some(use_now) {
            if let Some(use_before) = use_before {
                self.remove(use_before);
            }
            self.put(use_now, []);
        }
        self.put(
            session::key(session.id),
            table::encode::<session::Stored, _>(session),
        );
        if let Some(known) = self.view.known() {
            known.set_session(session.clone());
        }
    }

    fn remove_session(&mut self, id: SessionId) {
        if let Some(before) = self.view.session(id) {
            self.remove(session_use::key(&before));
        }
        self.remove(session::key(id));
        if let Some(known) = self.view.known() {
            known.forget_session(id);
        }
    }

    fn append_outcome(&mut self, session: SessionId, sequence: Sequence, stored: &StoredOutcome) {
        self.append(
            outcome::key(session, sequence),
            table::encode::<outcome::Stored, _>(stored),
        );
        if let Some(known) = self.view.known() {
            known.outcome_stored(session, sequence);
        }
    }

    fn remove_outcome(&mut self, session: SessionId, sequence: Sequence) {
        self.remove(outcome::key(session, sequence));
        if let Some(known) = self.view.known() {
            known.outcome_removed(session, sequence);
        }
    }

    fn append_history(&mut self, entry: &HistoryEntry) {
        self.append(
            history::key(entry.revision),
            table::encode::<history::Stored, _>(entry),
        );
        self.append(node_history::key(entry.node, entry.revision), []);
    }

    fn append_key_event(&mut self, id: EventId, event: &KeyEvent) {
        let name = event.key();
        let row = key::key(name);
        match event {
            KeyEvent::Put(made) => {
                if !self.put(row, key::encode(made)) {
                    self.count_made(name);
                }
            }
            KeyEvent::Deleted { .. } => {
                if self.remove(row) {
                    self.count_removed(name);
                }
            }
        }
        let deleted = matches!(event, KeyEvent::Deleted { .. });
        self.append(
            key_event::key(id),
            table::encode::<key_event::Stored, _>(event),
        );
        self.append(key_version::key(name, id), key_version::encode(deleted));
    }

    fn forget_version(&mut self, id: EventId, name: &[u8]) {
        self.remove(key_event::key(id));
        self.remove(key_version::key(name, id));
    }

    fn put_lease(&mut self, lease: &Lease) {
        if let Some(before) = self.view.lease(lease.id) {
            self.remove(lease_end::key(&before));
        }
        self.put(lease_end::key(lease), []);
        self.put(
            lease::key(lease.id),
            table::encode::<lease::Stored, _>(lease),
        );
    }

    fn remove_lease(&mut self, id: LeaseId) {
        if let Some(before) = self.view.lease(id) {
            self.remove(lease_end::key(&before));
        }
        self.remove(lease::key(id));
    }

    fn attach_key(&mut self, id: LeaseId, key: &[u8]) {
        self.put(lease_key::key(id, key), []);
    }

    fn detach_key(&mut self, id: LeaseId, key: &[u8]) {
        self.remove(lease_key::key(id, key));
    }
}
