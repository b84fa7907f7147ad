//! Is there one order of everything that was recorded of each key?

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use super::{Asked, Found, KeyOperation, KeyRecord};
use crate::search::{Sequential, Timed, Verdict, search};

/// For the keys of one record together.
const SEARCHED_WITHIN: Duration = Duration::from_secs(60);

/// What was found to be linearizable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeysSearched {
    pub keys: usize,
    pub answered: usize,
    /// Requests without an answer, which may have taken effect or not.
    pub unanswered: usize,
}

impl KeysSearched {
    /// The same, if it was enough to say something.
    ///
    /// # Errors
    /// When fewer requests were answered.
    pub fn at_least(self, answered: usize) -> Result<Self> {
        ensure!(
            self.answered >= answered,
            "{self}, expected {answered} answers"
        );
        Ok(self)
    }
}

impl fmt::Display for KeysSearched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} answered requests and {} without an answer on {} keys are linearizable",
            self.answered, self.unanswered, self.keys
        )
    }
}

impl Timed for KeyOperation {
    fn invoked(&self) -> Instant {
        self.invoked
    }

    fn returned(&self) -> Option<Instant> {
        self.came.map(|(at, _)| at)
    }
}

/// A key's value, how often it was put, and at which revisions. Those of a write without an answer are
/// not known until somebody sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Pair {
    value: u64,
    version: i64,
    created: Option<i64>,
    modified: Option<i64>,
}

impl Pair {
    fn is(self, found: Found) -> bool {
        let told = |known: Option<i64>, told| known.is_none_or(|known| known == told);
        (self.value, self.version) == (found.value, found.version)
            && told(self.created, found.created)
            && told(self.modified, found.modified)
    }
}

/// One key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Key {
    pair: Option<Pair>,
    /// Nothing that comes later is answered with a smaller one, and no write with this one.
    revision: i64,
}

impl Key {
    /// The same with all that was found; `None` when something else must have been there.
    fn as_found(self, found: Option<Found>) -> Option<Self> {
        let pair = match (self.pair, found) {
            (None, None) => None,
            (Some(pair), Some(found)) if pair.is(found) => Some(Pair {
                created: Some(found.created),
                modified: Some(found.modified),
                ..pair
            }),
            (Some(_) | None, _) => return None,
        };
        Some(Self { pair, ..self })
    }

    /// After a request that changed nothing.
    fn left(self, at: Option<i64>) -> Option<Self> {
        let revision = at.unwrap_or(self.revision);
        (revision >= self.revision).then_some(Self { revision, ..self })
    }

    fn written(self, pair: Option<Pair>, at: Option<i64>) -> Option<Self> {
        let revision = at.unwrap_or(self.revision + 1);
        (revision > self.revision).then_some(Self { pair, revision })
    }

    fn put(self, value: u64, at: Option<i64>) -> Option<Self> {
        let pair = Pair {
            value,
            version: self.pair.map_or(0, |before| before.version) + 1,
            created: self.pair.map_or(at, |before| before.created),
            modified: at,
        };
        self.written(Some(pair), at)
    }
}

impl Sequential for Key {
    type Operation = KeyOperation;

    fn after(&self, operation: &KeyOperation) -> Option<Self> {
        let came = operation.came.map(|(_, came)| came);
        let now = match came {
            Some(came) => self.as_found(came.before)?,
            None => *self,
        };
        let at = came.map(|came| came.revision);
        let has = |expected| now.pair.is_some_and(|pair| pair.value == expected);
        let (after, done) = match operation.what {
            Asked::Get => (now.left(at), true),
            Asked::Put { value } => (now.put(value, at), true),
            Asked::Delete if now.pair.is_some() => (now.written(None, at), true),
            Asked::Delete => (now.left(at), false),
            Asked::Swap { expected, value } if has(expected) => (now.put(value, at), true),
            Asked::Swap { .. } => (now.left(at), false),
        };
        after.filter(|_| came.is_none_or(|came| came.done == done))
    }
}

impl KeyRecord {
    /// Looks for an order that explains everything that was answered.
    ///
    /// # Errors
    /// When there is none for a key, when none was found in a minute: not to know is a failure; or when revisions do not
    /// [rise](KeyRecord::revisions_rise).
    pub fn linearizable(&self) -> Result<KeysSearched> {
        self.linearizable_within(SEARCHED_WITHIN)
    }

    fn linearizable_within(&self, within: Duration) -> Result<KeysSearched> {
        self.revisions_rise()?;
        let deadline = Instant::now() + within;
        let mut by_key: BTreeMap<&str, Vec<KeyOperation>> = BTreeMap::new();
        for operation in &self.operations {
            by_key
                .entry(&operation.key)
                .or_default()
                .push(operation.clone());
        }
        let searched = KeysSearched {
            answered: self.answered(),
            unanswered: self.operations.len() - self.answered(),
            keys: by_key.len(),
        };
        for (key, operations) in by_key {
            let count = operations.len();
            match search::<Key>(&operations, deadline) {
                Verdict::Linearizable => {}
                Verdict::NotLinearizable => {
                    bail!("what was seen of {key} is not linearizable: {operations:#?}")
                }
                Verdict::Unknown => bail!(
                    "unknown whether what was seen of {key} is linearizable: no order of its {count} operations was found in {within:?}"
                ),
            }
        }
        Ok(searched)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::{Came, Way};

    struct Story {
        begin: Instant,
        record: KeyRecord,
    }

    fn found(value: u64, version: i64, created: i64, modified: i64) -> Option<Found> {
        Some(Found {
            value,
            version,
            created,
            modified,
        })
    }

    fn came(before: Option<Found>, revision: i64) -> Came {
        Came {
            before,
            done: true,
            revision,
        }
    }

    impl Story {
        fn new() -> Self {
            Self {
                begin: Instant::now(),
                record: KeyRecord::default(),
            }
        }

        fn at(&self, ms: u64) -> Instant {
            self.begin + Duration::from_millis(ms)
        }

        fn tell(&mut self, what: Asked, from: u64, came: Option<(u64, Came)>) {
            self.record.operations.push(KeyOperation {
                key: "k".to_owned(),
                what,
                way: Way::Plain,
                invoked: self.at(from),
                came: came.map(|(at, came)| (self.at(at), came)),
            });
        }
    }

    #[test]
    fn an_unanswered_put_may_have_happened_or_not() {
        for (seen, revision) in [(None, 1), (found(7, 1, 2, 2), 2)] {
            let mut story = Story::new();
            story.tell(Asked::Put { value: 7 }, 0, None);
            story.tell(Asked::Get, 10, Some((20, came(seen, revision))));
            story.record.linearizable().expect("either is possible");
        }
    }

    #[test]
    fn the_revisions_of_an_unanswered_put_are_those_that_are_seen_first() {
        for (again, possible) in [(found(7, 1, 2, 2), true), (found(7, 1, 2, 3), false)] {
            let mut story = Story::new();
            story.tell(Asked::Put { value: 7 }, 0, None);
            story.tell(Asked::Get, 10, Some((20, came(found(7, 1, 2, 2), 3))));
            story.tell(Asked::Get, 30, Some((40, came(again, 3))));
            assert_eq!(story.record.linearizable().is_ok(), possible, "{again:?}");
        }
    }

    #[test]
    fn a_put_that_happened_twice_is_noticed() {
        let mut story = Story::new();
        story.tell(Asked::Put { value: 7 }, 0, Some((5, came(None, 2))));
        story.tell(Asked::Get, 10, Some((20, came(found(7, 2, 2, 3), 3))));
        story.record.linearizable().expect_err("its version is 2");
    }

    #[test]
    fn a_stale_read_is_noticed() {
        let mut story = Story::new();
        let put = found(7, 1, 2, 2);
        story.tell(Asked::Put { value: 7 }, 0, Some((5, came(None, 2))));
        story.tell(Asked::Delete, 6, Some((8, came(put, 3))));
        story.tell(Asked::Get, 10, Some((20, came(put, 3))));
        story
            .record
            .linearizable()
            .expect_err("it was deleted before");
    }

    #[test]
    fn revisions_that_are_not_those_of_the_write_are_noticed() {
        for seen in [found(7, 1, 2, 3), found(7, 1, 3, 2)] {
            let mut story = Story::new();
            story.tell(Asked::Put { value: 7 }, 0, Some((5, came(None, 2))));
            story.tell(Asked::Get, 10, Some((20, came(seen, 3))));
            story.record.linearizable().expect_err("both were 2");
        }
    }

    #[test]
    fn an_answer_of_an_earlier_revision_is_noticed() {
        let put = found(7, 1, 5, 5);
        for (what, earlier) in [
            (Asked::Get, came(put, 4)),
            (Asked::Put { value: 8 }, came(put, 5)),
        ] {
            let mut story = Story::new();
            story.tell(Asked::Put { value: 7 }, 0, Some((5, came(None, 5))));
            story.tell(what, 10, Some((20, earlier)));
            story.record.linearizable().expect_err("it was 5 before");
        }
    }

    #[test]
    fn a_deletion_says_whether_there_was_something() {
        for (done, possible) in [(false, true), (true, false)] {
            let mut story = Story::new();
            let nothing = Came {
                done,
                ..came(None, 2)
            };
            story.tell(Asked::Delete, 0, Some((5, nothing)));
            assert_eq!(story.record.linearizable().is_ok(), possible, "{nothing:?}");
        }
    }

    #[test]
    fn not_to_know_is_a_failure() {
        let mut story = Story::new();
        story.tell(Asked::Get, 0, Some((5, came(None, 1))));
        let unknown = story.record.linearizable_within(Duration::ZERO);
        let why = unknown.expect_err("there was no time").to_string();
        assert!(why.contains("unknown"), "{why}");
    }
}
