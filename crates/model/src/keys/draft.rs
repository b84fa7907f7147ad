//! Keys as an entry in the making leaves them: what stands, and over it what the entry has written.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ops::ControlFlow;

use bytes::Bytes;

use super::{KeyRange, KeyValue};
use crate::identifier::Revision;
use crate::refusal::Refusal;
use crate::view::{Globals, View};

/// See the module.
pub(crate) struct KeysDraft<'v, V> {
    view: &'v V,
    /// The store's revision before the entry.
    before: Revision,
    compacted: Revision,
    /// Keys that the entry wrote, `None` for one that it deleted.
    written: BTreeMap<Bytes, Option<KeyValue>>,
    /// What has been looked at, and what of it goes into the answer.
    rows: Cell<u64>,
    answer_bytes: Cell<usize>,
    bounds: AtOnce,
    /// It has been too much once: what was found since then is not all.
    too_much: Cell<bool>,
    /// A put was to keep something of a key that an operation before it has deleted.
    kept_nothing: bool,
}

/// How much a request may look at, and answer with.
struct AtOnce {
    rows: u64,
    answer_bytes: usize,
}

impl AtOnce {
    const ANYTHING: Self = Self {
        rows: u64::MAX,
        answer_bytes: usize::MAX,
    };
    const FOR_WRITES: Self = Self {
        rows: ROWS_MAX,
        answer_bytes: ANSWER_BYTES_MAX,
    };
    const FOR_READS: Self = Self {
        answer_bytes: READ_BYTES_MAX,
        ..Self::ANYTHING
    };
}

/// Rows that one request which writes may look at. Every member looks at them while all others wait, and
/// again after a restart.
pub const ROWS_MAX: u64 = 2_000_000;

/// Bytes of a name that a deletion writes like one row more: a name is in several rows, and in memory several times.
const ROW_NAME_BYTES: usize = 128;

/// What it costs to look back to an earlier revision, once for the keys and once for their number, whatever is found: what
/// was changed since then, or was deleted before, is passed by.
const ROWS_OF_PAST: u64 = 5_000;

/// Bytes that the answer to one request which writes may have: it is stored, and passed between members.
pub const ANSWER_BYTES_MAX: usize = 16 << 20;

/// Bytes that a read may hold at once. A range whose keys come in their order need not be held: see
/// [`walk`](super::walk).
pub const READ_BYTES_MAX: usize = 64 << 20;

/// What it costs beside the keys that are found.
fn rows_of_past(keys: &KeyRange, past: Option<Revision>) -> u64 {
    match (keys, past) {
        (KeyRange::Between(..) | KeyRange::From(_), Some(_)) => ROWS_OF_PAST,
        (KeyRange::One(_), _) | (_, None) => 0,
    }
}

/// What a key takes in an answer beside its name and its value.
const ANSWERED_KEY_BYTES: usize = 64;

fn size(found: &KeyValue) -> usize {
    found.key.len() + found.value.len() + ANSWERED_KEY_BYTES
}

impl<'v, V: View> KeysDraft<'v, V> {
    pub(crate) fn new(view: &'v V, globals: &Globals) -> Self {
        Self {
            view,
            before: globals.revision,
            compacted: globals.compacted,
            written: BTreeMap::new(),
            rows: Cell::new(0),
            answer_bytes: Cell::new(0),
            bounds: AtOnce::ANYTHING,
            too_much: Cell::new(false),
            kept_nothing: false,
        }
    }

    /// Notes that a put was to keep what is no more.
    pub(super) fn keeps_nothing(&mut self) {
        self.kept_nothing = true;
    }

    /// True when a request must not stand: see [`KeysDraft::keeps_nothing`].
    pub(super) fn has_kept_nothing(&self) -> bool {
        self.kept_nothing
    }

    /// Has the bounds of a request that writes, or of one that does not, hold for what is looked at from now on.
    pub(super) fn set_bounds(&mut self, writes: bool) {
        self.bounds = match writes {
            true => AtOnce::FOR_WRITES,
            false => AtOnce::FOR_READS,
        };
    }

    /// True when a request must not go on: it has looked at, or answers with, too much.
    pub(super) fn is_too_much(&self) -> bool {
        self.too_much.get()
    }

    fn look_at_bounds(&self) {
        let AtOnce { rows, answer_bytes } = self.bounds;
        if self.rows.get() > rows || self.answer_bytes.get() > answer_bytes {
            self.too_much.set(true);
        }
    }

    /// Notes a key that is held, to go into the answer. Gives its bytes.
    pub(super) fn holds(&self, found: &KeyValue) -> usize {
        let bytes = size(found);
        self.holds_bytes(bytes);
        bytes
    }

    /// Notes the value of a key that is held already.
    pub(super) fn holds_value(&self, value: &Bytes) {
        self.holds_bytes(value.len());
    }

    /// Notes that a key is not held any more.
    pub(super) fn lets_go(&self, found: Option<KeyValue>) {
        let bytes = found.as_ref().map_or(0, size);
        self.answer_bytes
            .set(self.answer_bytes.get().saturating_sub(bytes));
    }

    /// Notes the name of a key that is deleted: however long it is, the request has it not, or only where it begins.
    pub(super) fn writes_name(&self, name: &Bytes) {
        self.looked_at((name.len() / ROW_NAME_BYTES) as u64);
    }

    fn holds_bytes(&self, bytes: usize) {
        self.answer_bytes
            .set(self.answer_bytes.get().saturating_add(bytes));
        self.look_at_bounds();
    }

    fn looked_at(&self, rows: u64) {
        self.rows.set(self.rows.get().saturating_add(rows));
        self.look_at_bounds();
    }

    /// Forgets what the entry wrote.
    pub(crate) fn forget(&mut self) {
        self.written.clear();
    }

    /// The revision of what is to be seen now: that of the entry, once it has written a key.
    pub(super) fn revision(&self) -> Revision {
        match self.written.is_empty() {
            true => self.before,
            false => self.before.next(),
        }
    }

    /// Refuses a revision that is not there yet, or not any more.
    pub(super) fn check_revision(&self, at: Option<Revision>) -> Result<(), Refusal> {
        match at {
            Some(asked) if asked > self.before => Err(Refusal::RevisionInFuture {
                asked,
                current: self.before,
            }),
            Some(asked) if asked < self.compacted => Err(Refusal::RevisionCompacted {
                asked,
                compacted: self.compacted,
            }),
            Some(_) | None => Ok(()),
        }
    }

    /// The key as it is now.
    pub(crate) fn get(&self, key: &[u8]) -> Option<KeyValue> {
        match self.written.get(key) {
            Some(written) => written.clone(),
            None => self.view.key(key),
        }
    }

    /// Shows another value of a key, or none, from now on.
    pub(crate) fn write(&mut self, key: Bytes, now: Option<KeyValue>) {
        self.written.insert(key, now);
    }

    /// Shows keys in their order until told to stop. As of a revision, what this entry wrote is not
    /// seen.
    pub(super) fn scan(
        &self,
        keys: &KeyRange,
        at: Option<Revision>,
        visit: &mut dyn FnMut(KeyValue) -> ControlFlow<()>,
    ) {
        let visit: &mut dyn FnMut(KeyValue) -> ControlFlow<()> = &mut |found| {
            self.looked_at(1);
            match self.is_too_much() {
                true => ControlFlow::Break(()),
                false => visit(found),
            }
        };
        // The state as it stands is what it was at its revision, and quicker to read.
        let past = at.filter(|at| *at < self.before);
        self.looked_at(rows_of_past(keys, past));
        if at.is_some() || self.written.is_empty() {
            return self.view.scan_keys(keys, past, visit);
        }
        let mut pass = |now: Option<KeyValue>| match now {
            Some(now) => visit(now),
            None => {
                self.looked_at(1);
                match self.is_too_much() {
                    true => ControlFlow::Break(()),
                    false => ControlFlow::Continue(()),
                }
            }
        };
        let mut written = self.written_in(keys).peekable();
        let mut stopped = false;
        self.view.scan_keys(keys, None, &mut |stored| {
            while let Some((key, now)) = written.next_if(|(key, _)| **key <= stored.key) {
                if pass(now.clone()).is_break() {
                    stopped = true;
                    return ControlFlow::Break(());
                }
                if *key == stored.key {
                    return ControlFlow::Continue(());
                }
            }
            let next = pass(Some(stored));
            stopped = next.is_break();
            next
        });
        if stopped {
            return;
        }
        for (_, now) in written {
            if pass(now.clone()).is_break() {
                return;
            }
        }
    }

    /// What the entry wrote of a range, in its order.
    fn written_in(&self, keys: &KeyRange) -> impl Iterator<Item = (&Bytes, &Option<KeyValue>)> {
        let written = self.written.range(keys.start().clone()..);
        written.take_while(|(key, _)| keys.contains(key))
    }

    /// How many keys [`KeysDraft::scan`] would show.
    pub(super) fn count(&self, keys: &KeyRange, at: Option<Revision>) -> u64 {
        let past = at.filter(|at| *at < self.before);
        let stored = self.view.count_keys(keys, past);
        self.looked_at(stored.max(rows_of_past(keys, past)));
        if at.is_some() {
            return stored;
        }
        self.written_in(keys).fold(stored, |count, (key, now)| {
            self.looked_at(1);
            let stands = self.view.key(key).is_some();
            count + u64::from(now.is_some()) - u64::from(stands)
        })
    }
}
