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

/// One key: a value that counts how often it was put.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Key(Option<Found>);

impl Key {
    fn put(self, value: u64) -> Self {
        let version = self.0.map_or(0, |found| found.version) + 1;
        Self(Some(Found { value, version }))
    }
}

impl Sequential for Key {
    type Operation = KeyOperation;

    fn after(&self, operation: &KeyOperation) -> Option<Self> {
        let (after, done) = match operation.what {
            Asked::Get => (*self, true),
            Asked::Put { value } => (self.put(value), true),
            Asked::Delete => (Self(None), true),
            Asked::Swap { expected, value } => {
                match self.0.is_some_and(|found| found.value == expected) {
                    true => (self.put(value), true),
                    false => (*self, false),
                }
            }
        };
        match operation.came {
            Some((_, came)) if came.before != self.0 || came.done != done => None,
            Some(_) | None => Some(after),
        }
    }
}

impl KeyRecord {
    /// Looks for an order that explains everything that was answered.
    ///
    /// # Errors
    /// When there is none for a key, or when none was found in a minute: not to know is a failure.
    pub fn linearizable(&self) -> Result<KeysSearched> {
        self.linearizable_within(SEARCHED_WITHIN)
    }

    fn linearizable_within(&self, within: Duration) -> Result<KeysSearched> {
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
    use crate::keys::Came;

    struct Story {
        begin: Instant,
        record: KeyRecord,
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

        fn tell(&mut self, what: Asked, from: u64, came: Option<(u64, Option<(u64, i64)>)>) {
            let came = came.map(|(at, before)| {
                let before = before.map(|(value, version)| Found { value, version });
                (self.at(at), Came { before, done: true })
            });
            self.record.operations.push(KeyOperation {
                key: "k".to_owned(),
                what,
                invoked: self.at(from),
                came,
            });
        }
    }

    #[test]
    fn an_unanswered_put_may_have_happened_or_not() {
        for seen in [None, Some((7, 1))] {
            let mut story = Story::new();
            story.tell(Asked::Put { value: 7 }, 0, None);
            story.tell(Asked::Get, 10, Some((20, seen)));
            story.record.linearizable().expect("either is possible");
        }
    }

    #[test]
    fn a_put_that_happened_twice_is_noticed() {
        let mut story = Story::new();
        story.tell(Asked::Put { value: 7 }, 0, Some((5, None)));
        story.tell(Asked::Get, 10, Some((20, Some((7, 2)))));
        story.record.linearizable().expect_err("its version is 2");
    }

    #[test]
    fn a_stale_read_is_noticed() {
        let mut story = Story::new();
        story.tell(Asked::Put { value: 7 }, 0, Some((5, None)));
        story.tell(Asked::Delete, 6, Some((8, Some((7, 1)))));
        story.tell(Asked::Get, 10, Some((20, Some((7, 1)))));
        story
            .record
            .linearizable()
            .expect_err("it was deleted before");
    }

    #[test]
    fn not_to_know_is_a_failure() {
        let mut story = Story::new();
        story.tell(Asked::Get, 0, Some((5, None)));
        let unknown = story.record.linearizable_within(Duration::ZERO);
        let why = unknown.expect_err("there was no time").to_string();
        assert!(why.contains("unknown"), "{why}");
    }
}
