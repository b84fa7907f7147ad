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

impl StateView<'_> {
    /// Shows keys of a range as of an earlier revision, in their order, until told to stop.
    pub(super) fn scan_keys_at(
        &self,
        keys: &KeyRange,
        at: Revision,
        visit: &mut dyn FnMut(KeyValue) -> ControlFlow<()>,
    ) {
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
            match self.key_event(id) {
                Some(KeyEvent::Put(found)) => visit(found),
                Some(KeyEvent::Deleted { .. }) | None => {
                    self.break_off(&format!("event {id:?}"), "a version is listed and missing");
                    ControlFlow::Break(())
                }
            }
        });
        self.has_read(&now);
    }

    /// Of each key's versions up to a revision the last, unless it is a deletion; with how its rows begin.
    pub(super) fn scan_versions(
        &self,
        keys: &KeyRange,
        at: Revision,
        mut visit: impl FnMut(&[u8], EventId) -> ControlFlow<()>,
    ) {
        let (from, until) = version_rows(keys);
        let mut latest: Option<(Vec<u8>, Version)> = None;
        let mut show = |latest: Option<(Vec<u8>, Version)>| match latest {
            Some((name, version)) if !version.deleted => visit(&name, version.id),
            Some(_) | None => ControlFlow::Continue(()),
        };
        let mut stopped = false;
        self.each_row(from, until, |row, value| {
            let version = key_version::decode(row, value)?;
            if version.id.revision > at {
                return Ok(ControlFlow::Continue(()));
            }
            let name = key_version::key_part(row)?;
            match &mut latest {
                Some((known, latest)) if known == name => *latest = version,
                _ => {
                    let before = latest.replace((name.to_vec(), version));
                    stopped = show(before).is_break();
                }
            }
            Ok(match stopped {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            })
        });
        if !stopped {
            // Nothing comes after it.
            let _ = show(latest);
        }
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
