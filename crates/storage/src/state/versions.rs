//! Keys as they were at an earlier revision.
//!
//! Every version of a key is listed, without its value. What a key has now it has had since its last change,
//! so values are looked up by themselves only of keys that were changed since.

use std::cmp::Ordering;
use std::ops::ControlFlow;

use tally_model::{EventId, KeyEvent, KeyRange, KeyValue, Revision, View};

use super::rows::Cursor;
use super::view::{StateView, key_rows};
use crate::table::key_version::Version;
use crate::table::{self, key, key_event, key_version};

/// A key, by how its versions' rows begin, with its last version up to a revision.
type KeyAt = (Vec<u8>, Option<Version>);

/// Versions of a key that are passed by; of more, those that are wanted are looked up.
const PASSED_BY_MAX: usize = 32;

impl StateView<'_> {
    /// Shows keys of a range as of an earlier revision, in their order, until told to stop.
    pub(super) fn scan_keys_at(
        &self,
        keys: &KeyRange,
        at: Revision,
        visit: &mut dyn FnMut(KeyValue) -> ControlFlow<()>,
    ) {
        if let KeyRange::One(name) = keys {
            if let Some(found) = self.key_at(name, at) {
                // It was the only one.
                let _ = visit(found);
            }
            return;
        }
        let (from, until) = key_rows(keys);
        let Some(mut now) = self.cursor(from, until) else {
            return;
        };
        self.scan_versions(keys, at, |name, id| {
            match unchanged_since(&mut now, name, at) {
                Ok(Some(found)) => return visit(found),
                Ok(None) => {}
                Err(error) => {
                    self.break_off(&format!("the key of event {id:?}"), &error);
                    return ControlFlow::Break(());
                }
            }
            match self.put_at(id) {
                Some(found) => visit(found),
                None => ControlFlow::Break(()),
            }
        });
        self.has_read(&now);
    }

    /// One key as of an earlier revision.
    fn key_at(&self, name: &[u8], at: Revision) -> Option<KeyValue> {
        let version = self.version_at(&key_version::prefix(name), at)?;
        match version.deleted {
            true => None,
            false => self.put_at(version.id),
        }
    }

    /// What an event that a version says to be a put has put.
    fn put_at(&self, id: EventId) -> Option<KeyValue> {
        match self.key_event(id) {
            Some(KeyEvent::Put(found)) => Some(found),
            Some(KeyEvent::Deleted { .. }) | None => {
                self.break_off(&format!("event {id:?}"), "a version is listed and missing");
                None
            }
        }
    }

    /// Of each key's versions up to a revision the last, unless it is a deletion; with how its rows begin.
    pub(super) fn scan_versions(
        &self,
        keys: &KeyRange,
        at: Revision,
        mut visit: impl FnMut(&[u8], EventId) -> ControlFlow<()>,
    ) {
        let (from, until) = version_rows(keys);
        let Some(mut cursor) = self.cursor(from, until) else {
            return;
        };
        loop {
            let shown = match self.next_key_at(&mut cursor, at) {
                Ok(None) => break,
                Ok(Some((name, Some(version)))) if !version.deleted => visit(&name, version.id),
                Ok(Some((_, Some(_) | None))) => ControlFlow::Continue(()),
                Err(error) => return self.break_off("a version of a key", &error),
            };
            if shown.is_break() {
                return;
            }
        }
        self.has_read(&cursor);
    }

    /// The key that the cursor stands at, by how its rows begin, with its last version up to a revision if there is one.
    /// Leaves the cursor at the next key. Few versions are passed by; of many the one is looked up.
    fn next_key_at(&self, cursor: &mut Cursor<'_>, at: Revision) -> Result<Option<KeyAt>, String> {
        let Some((row, _)) = cursor.row() else {
            return Ok(None);
        };
        let name = key_version::key_part(row)?.to_vec();
        let mut latest = None;
        for _ in 0..PASSED_BY_MAX {
            let Some((row, value)) = cursor.row() else {
                return Ok(Some((name, latest)));
            };
            if key_version::key_part(row)? != name {
                return Ok(Some((name, latest)));
            }
            let version = key_version::decode(row, value)?;
            if version.id.revision <= at {
                latest = Some(version);
            }
            cursor.next();
        }
        let latest = self.version_at(&name, at);
        cursor.seek(&table::after_prefix(&name));
        Ok(Some((name, latest)))
    }

    /// The last version up to a revision of the key whose versions' rows begin like this.
    pub(super) fn version_at(&self, name: &[u8], at: Revision) -> Option<Version> {
        let after = [&key_version::row(name, EventId::last_of(at))[..], &[0]].concat();
        self.last_row(name.to_vec(), after, key_version::decode)
    }

    /// The event at this place; `None` when there was none, or it was forgotten.
    pub fn key_event(&self, id: EventId) -> Option<KeyEvent> {
        self.message::<key_event::Stored, _>(&key_event::key(id))
    }

    /// The key as it was before the revision of an event; `None` when there was none, or that was compacted.
    pub fn previous(&self, key: &[u8], event: EventId) -> Option<KeyValue> {
        let revision = event.revision;
        if revision <= self.globals().compacted {
            return None;
        }
        let first = EventId {
            revision,
            number: 0,
        };
        match self.key_event(self.version_before(key, first)?)? {
            KeyEvent::Put(found) => Some(found),
            KeyEvent::Deleted { .. } => None,
        }
    }
}

/// The key whose versions' rows begin like this, as it is now, if it was not changed after a revision. Moves
/// the cursor, which stands at rows of keys, up to it.
fn unchanged_since(
    now: &mut Cursor<'_>,
    name: &[u8],
    at: Revision,
) -> Result<Option<KeyValue>, String> {
    while let Some((row, value)) = now.row() {
        match key_version::prefix(key::name(row)).as_slice().cmp(name) {
            Ordering::Less => now.next(),
            Ordering::Equal => {
                let found = key::decode(row, value)?;
                return Ok(Some(found).filter(|found| found.modified <= at));
            }
            Ordering::Greater => break,
        }
    }
    Ok(None)
}

/// The rows of keys' versions.
fn version_rows(keys: &KeyRange) -> (Vec<u8>, Vec<u8>) {
    match keys {
        KeyRange::One(name) => {
            let prefix = key_version::prefix(name);
            (prefix.clone(), table::after_prefix(&prefix))
        }
        KeyRange::Between(from, until) => (key_version::from(from), key_version::from(until)),
        KeyRange::From(from) => (
            key_version::from(from),
            table::after_prefix(&[key_version::TAG]),
        ),
    }
}
