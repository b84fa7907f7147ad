//! Counting keys without reading them: all keys, in their order, are divided into parts, and each part knows
//! how many it has. Only the parts that a range begins and ends in are read.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};

use tally_model::{EventId, KeyEvent, KeyRange, Revision};

use super::view::StateView;
use crate::table::{self, key, key_count, key_event, key_version};

/// A part with more keys is divided. It is a rule of the state: every member must divide at the same key.
pub(super) const PART_KEYS_MAX: u32 = 512;

/// Parts that are known without reading.
const KNOWN_MAX: usize = 1_024;
/// Bounds of a part that is kept known have no more bytes.
const KNOWN_BYTES_MAX: usize = 512;

/// Later events that are looked at to count as of an earlier revision, and their bytes, before all versions are
/// read instead, which hold no values.
const EVENTS_MAX: u32 = 10_000;
const EVENT_BYTES_MAX: usize = 4 << 20;

/// Some of all keys, next to each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// It has keys from this one on, which need not be one.
    pub(super) from: Vec<u8>,
    /// Up to but not including this one; `None` for the last part.
    pub(super) until: Option<Vec<u8>>,
    pub(super) keys: u32,
}

impl Part {
    fn contains(&self, name: &[u8]) -> bool {
        let ends_before = |until: &[u8]| until <= name;
        self.from.as_slice() <= name && !self.until.as_deref().is_some_and(ends_before)
    }

    /// Two parts of the same keys, the second of which begins at `middle`.
    pub(super) fn divide(self, middle: Vec<u8>) -> (Self, Self) {
        let lower = Self {
            from: self.from,
            until: Some(middle.clone()),
            keys: self.keys / 2,
        };
        let upper = Self {
            from: middle,
            until: self.until,
            keys: self.keys - lower.keys,
        };
        (lower, upper)
    }
}

/// Parts that were looked at, by where they begin.
#[derive(Default)]
pub(super) struct KnownParts(BTreeMap<Vec<u8>, Part>);

impl KnownParts {
    fn of(&self, name: &[u8]) -> Option<&Part> {
        let up_to = (Bound::Unbounded, Bound::Included(name));
        let (_, part) = self.0.range::<[u8], _>(up_to).next_back()?;
        Some(part).filter(|part| part.contains(name))
    }

    /// Notes a part as it is now.
    pub(super) fn set(&mut self, part: Part) {
        let bytes = part.from.len() + part.until.as_ref().map_or(0, Vec::len);
        if bytes > KNOWN_BYTES_MAX {
            self.0.remove(&part.from);
            return;
        }
        if self.0.len() >= KNOWN_MAX {
            self.0.clear();
        }
        self.0.insert(part.from.clone(), part);
    }

    /// A part has gone, and the one before it has grown.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

impl StateView<'_> {
    /// The part that this key is in, or would be.
    pub(super) fn part_of(&self, name: &[u8]) -> Part {
        if let Some(part) = self
            .with_known(|known| known.parts.of(name).cloned())
            .flatten()
        {
            return part;
        }
        let after = [&key_count::key(name)[..], &[0]].concat();
        let own = self.last_row(vec![key_count::TAG], after.clone(), |row, value| {
            Ok((
                key_count::decode_key(row).to_vec(),
                key_count::decode(value)?,
            ))
        });
        let until = self.rows(
            after,
            table::after_prefix(&[key_count::TAG]),
            1,
            |row, _| Ok(key_count::decode_key(row).to_vec()),
        );
        let (from, keys) = own.unwrap_or_default();
        let part = Part {
            from,
            until: until.into_iter().next(),
            keys,
        };
        let _ = self.with_known(|known| known.parts.set(part.clone()));
        part
    }

    /// Where the second half of a part's keys begins: as few bytes as tell it from the first. `None` when the
    /// part has not as many keys as it says.
    pub(super) fn middle_of(&self, part: &Part) -> Option<Vec<u8>> {
        let (from, until) = key_rows(&part.from, part.until.as_deref());
        let half = part.keys / 2;
        let mut seen = 0;
        let mut last_of_first = Vec::new();
        let mut middle = None;
        self.each_row(from, until, |row, _| {
            seen += 1;
            if seen == half {
                last_of_first = row.to_vec();
            }
            if seen <= half {
                return Ok(ControlFlow::Continue(()));
            }
            let pairs = last_of_first.iter().zip(row);
            let same = pairs.take_while(|(one, other)| one == other).count();
            middle = row.get(1..=same).map(<[u8]>::to_vec);
            Ok(ControlFlow::Break(()))
        });
        if middle.is_none() {
            self.miscounted(&part.from);
        }
        middle
    }

    /// Keys of a range as they are now.
    pub(super) fn count_now(&self, keys: &KeyRange) -> u64 {
        let (from, until) = match keys {
            KeyRange::One(name) => return self.look(&key::key(name), |row| row.is_some().into()),
            KeyRange::Between(from, until) => (&from[..], Some(&until[..])),
            KeyRange::From(from) => (&from[..], None),
        };
        let rows_until = match until {
            Some(until) => key_count::key(until),
            None => table::after_prefix(&[key_count::TAG]),
        };
        let mut count = 0;
        // The part before the present one, by where it begins.
        let mut before: Option<(Vec<u8>, u32)> = None;
        let first = self.part_of(from).from;
        self.each_row(key_count::key(&first), rows_until, |row, value| {
            let begins = key_count::decode_key(row);
            if let Some((first, keys)) = &before {
                count += match first.as_slice() >= from {
                    true => u64::from(*keys),
                    false => self.count_rows(from, Some(begins)),
                };
            }
            before = Some((begins.to_vec(), key_count::decode(value)?));
            Ok(ControlFlow::Continue(()))
        });
        count
            + match before {
                Some((first, keys)) if until.is_none() && first.as_slice() >= from => keys.into(),
                Some((first, _)) => self.count_rows(from.max(&first), until),
                None => 0,
            }
    }

    /// Keys of a range as of an earlier revision.
    pub(super) fn count_at(&self, keys: &KeyRange, at: Revision) -> u64 {
        if let KeyRange::One(name) = keys {
            let last = self.version_at(&key_version::prefix(name), at);
            return last.is_some_and(|version| !version.deleted).into();
        }
        self.count_without_later(keys, at).unwrap_or_else(|| {
            let mut count = 0;
            self.scan_versions(keys, at, |_, _| {
                count += 1;
                ControlFlow::Continue(())
            });
            count
        })
    }

    /// Keys of a range now, without what was made and deleted since a revision. `None` when that is too much.
    fn count_without_later(&self, keys: &KeyRange, at: Revision) -> Option<u64> {
        let mut count = self.count_now(keys).cast_signed();
        let (mut events, mut bytes) = (0, 0);
        let from = table::after_prefix(&key_event::key(EventId::last_of(at)));
        self.each_row(from, table::after_prefix(&[key_event::TAG]), |_, value| {
            events += 1;
            bytes += value.len();
            if events > EVENTS_MAX || bytes > EVENT_BYTES_MAX {
                return Ok(ControlFlow::Break(()));
            }
            let event = table::decode::<key_event::Stored, KeyEvent>(value)?;
            count += match &event {
                KeyEvent::Put(made) if made.version == 1 && keys.contains(&made.key) => -1,
                KeyEvent::Deleted { key, .. } if keys.contains(key) => 1,
                KeyEvent::Put(_) | KeyEvent::Deleted { .. } => 0,
            };
            Ok(ControlFlow::Continue(()))
        });
        let all = events <= EVENTS_MAX && bytes <= EVENT_BYTES_MAX;
        all.then(|| count.cast_unsigned())
    }

    /// Counts keys by reading them.
    fn count_rows(&self, from: &[u8], until: Option<&[u8]>) -> u64 {
        let (from, until) = key_rows(from, until);
        let mut count = 0;
        self.each_row(from, until, |_, _| {
            count += 1;
            Ok(ControlFlow::Continue(()))
        });
        count
    }

    /// A part says that it has another number of keys than it has.
    pub(super) fn miscounted(&self, from: &[u8]) {
        self.break_off(
            &format!("the number of keys from {}", from.escape_ascii()),
            "there are not as many keys",
        );
    }
}

/// Rows of keys as they are now.
fn key_rows(from: &[u8], until: Option<&[u8]>) -> (Vec<u8>, Vec<u8>) {
    let until = match until {
        Some(until) => key::key(until),
        None => table::after_prefix(&[key::TAG]),
    };
    (key::key(from), until)
}
