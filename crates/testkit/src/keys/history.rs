//! What watchers were told, by itself and beside what clients were answered: each event follows from the
//! one before it, each answered write is one of them, and each answer says what was there at its revision.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};

use super::{Asked, Came, Found, KeyOperation, KeyRecord, Noted, Way};

/// Every event, by key and revision.
#[derive(Clone, Debug, Default)]
pub struct KeyHistory {
    keys: BTreeMap<String, BTreeMap<i64, Noted>>,
}

impl KeyHistory {
    /// Of events in the order in which they were told.
    ///
    /// # Errors
    /// When one is out of order, or does not follow from the one before it of the same key.
    pub fn of(told: &[Noted]) -> Result<Self> {
        let mut history = Self::default();
        let mut last = 0;
        for event in told {
            ensure!(event.revision >= last, "after {last} came {event:?}");
            last = event.revision;
            let key = String::from_utf8(event.key.to_vec()).context("a key that nobody put")?;
            let events = history.keys.entry(key).or_default();
            let before = events.values().next_back();
            ensure!(
                follows(before, event),
                "{event:?} does not follow from {before:?}"
            );
            events.insert(event.revision, event.clone());
        }
        Ok(history)
    }

    /// Compares it with what clients did to keys of which it has every event. Events of other keys are
    /// not looked at.
    ///
    /// # Errors
    /// When an answer says something else, a value was put that nobody asked for or was put twice, of two keys that
    /// were put together only one was, or somebody who read all keys at once found what never was there at once.
    pub fn explains(&self, record: &KeyRecord) -> Result<()> {
        for operation in &record.operations {
            if let Some((_, came)) = &operation.came {
                let agrees = self.agrees(operation, came);
                agrees.with_context(|| format!("what was told does not explain {operation:?}"))?;
            }
            self.put_together(operation)?;
        }
        for snapshot in &record.snapshots {
            let expected = self.at(&snapshot.prefix, snapshot.revision);
            ensure!(
                snapshot.keys == expected,
                "there was {expected:?}, but found was {snapshot:?}"
            );
        }
        self.each_put_was_asked_for_once(record)
    }

    /// What there was below a prefix at a revision.
    fn at(&self, prefix: &str, revision: i64) -> BTreeMap<String, Found> {
        let keys = self.keys.range(prefix.to_owned()..);
        let keys = keys.take_while(|(key, _)| key.starts_with(prefix));
        let last = keys.filter_map(|(key, events)| {
            let (_, event) = events.range(..=revision).next_back()?;
            Some((key.clone(), found(event)?))
        });
        last.collect()
    }

    fn agrees(&self, operation: &KeyOperation, came: &Came) -> Result<()> {
        let nothing = BTreeMap::new();
        let events = self.keys.get(&operation.key).unwrap_or(&nothing);
        let wrote = came.done && operation.what != Asked::Get;
        let before = match wrote {
            true => events.range(..came.revision).next_back(),
            false => events.range(..=came.revision).next_back(),
        };
        let before = before.and_then(|(_, event)| found(event));
        ensure!(before == came.before, "there was {before:?}");
        if wrote {
            let event = events.get(&came.revision);
            let event = event.context("nothing was told of its revision")?;
            ensure!(event.number() == operation.what.value(), "told: {event:?}");
        }
        Ok(())
    }

    /// Two keys that are put by one request are put at one revision, or none of them is.
    fn put_together(&self, operation: &KeyOperation) -> Result<()> {
        let Way::TxnWith(other) = &operation.way else {
            return Ok(());
        };
        let [one, two] = [&operation.key, other].map(|key| self.puts(key, operation.what.value()));
        ensure!(one == two, "put at {one:?} and {two:?}: {operation:?}");
        Ok(())
    }

    /// Revisions at which a key was put to a value.
    fn puts(&self, key: &str, value: Option<u64>) -> Vec<i64> {
        let events = self.keys.get(key).into_iter().flatten();
        let puts = events.filter(|(_, event)| event.value.is_some() && event.number() == value);
        puts.map(|(revision, _)| *revision).collect()
    }

    fn each_put_was_asked_for_once(&self, record: &KeyRecord) -> Result<()> {
        let mut asked: BTreeMap<&str, BTreeSet<u64>> = BTreeMap::new();
        for operation in &record.operations {
            let values = asked.entry(&operation.key).or_default();
            let done = operation.came.is_none_or(|(_, came)| came.done);
            values.extend(operation.what.value().filter(|_| done));
        }
        for (key, mut asked) in asked {
            for event in self.keys.get(key).into_iter().flat_map(BTreeMap::values) {
                ensure!(
                    event.value.is_none() || event.number().is_some_and(|put| asked.remove(&put)),
                    "nobody asked for it, or it happened before: {event:?}"
                );
            }
        }
        Ok(())
    }
}

/// True when an event can be the next one of its key. Of a deletion only the revision is told.
fn follows(before: Option<&Noted>, event: &Noted) -> bool {
    let is_later = before.is_none_or(|before| before.revision < event.revision);
    let there = before.filter(|before| before.value.is_some());
    let expected = match (there, &event.value) {
        (Some(before), Some(_)) => (before.created, before.version + 1),
        (None, Some(_)) => (event.revision, 1),
        (Some(_), None) => (0, 0),
        (None, None) => return false,
    };
    is_later && (event.created, event.version) == expected
}

/// What an event leaves there.
fn found(event: &Noted) -> Option<Found> {
    Some(Found {
        value: event.number()?,
        version: event.version,
        created: event.created,
        modified: event.revision,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::keys::KeySnapshot;

    fn put(revision: i64, key: &'static str, value: u64, created: i64, version: i64) -> Noted {
        Noted {
            revision,
            key: key.into(),
            value: Some(value.to_string().into()),
            created,
            version,
        }
    }

    fn gone(revision: i64, key: &'static str) -> Noted {
        Noted {
            revision,
            key: key.into(),
            value: None,
            created: 0,
            version: 0,
        }
    }

    /// `a` and `b` are put together; `a` is put again, deleted, and made anew.
    fn told() -> Vec<Noted> {
        vec![
            put(2, "a", 1, 2, 1),
            put(2, "b", 1, 2, 1),
            put(3, "a", 2, 2, 2),
            gone(5, "a"),
            put(6, "a", 3, 6, 1),
        ]
    }

    fn asked(key: &str, what: Asked, way: Way, came: Option<Came>) -> KeyOperation {
        KeyOperation {
            key: key.to_owned(),
            what,
            way,
            invoked: Instant::now(),
            came: came.map(|came| (Instant::now(), came)),
        }
    }

    fn came(revision: i64, before: Option<&Noted>) -> Option<Came> {
        Some(Came {
            before: before.and_then(found),
            done: true,
            revision,
        })
    }

    /// What clients did of which that was told.
    fn record() -> KeyRecord {
        let told = told();
        let together = |key, other: &str, came| {
            let way = Way::TxnWith(other.to_owned());
            asked(key, Asked::Put { value: 1 }, way, came)
        };
        let put = |value, came| asked("a", Asked::Put { value }, Way::Plain, came);
        KeyRecord {
            operations: vec![
                together("a", "b", None),
                together("b", "a", None),
                put(2, came(3, Some(&told[0]))),
                asked("a", Asked::Get, Way::Plain, came(4, Some(&told[2]))),
                asked("a", Asked::Delete, Way::Plain, came(5, Some(&told[2]))),
                put(3, came(6, None)),
            ],
            ..Default::default()
        }
    }

    fn explained(told: &[Noted], record: &KeyRecord) -> Result<()> {
        KeyHistory::of(told)?.explains(record)
    }

    #[test]
    fn what_happened_explains_what_was_answered() {
        explained(&told(), &record()).expect("it is what happened");
    }

    #[test]
    fn each_event_that_is_left_out_is_missed() {
        for number in 0..told().len() {
            let mut told = told();
            let lost = told.remove(number);
            explained(&told, &record()).expect_err(&format!("lost: {lost:?}"));
        }
    }

    #[test]
    fn each_event_that_is_told_twice_is_noticed() {
        for number in 0..told().len() {
            let mut told = told();
            told.insert(number, told[number].clone());
            KeyHistory::of(&told).expect_err(&format!("twice: {:?}", told[number]));
        }
    }

    #[test]
    fn a_life_of_a_key_that_is_left_out_is_missed_by_who_was_answered() {
        let told = [put(2, "a", 1, 2, 1), gone(3, "a"), put(4, "a", 2, 4, 1)];
        let get = asked("a", Asked::Get, Way::Plain, came(2, Some(&told[0])));
        let delete = asked("a", Asked::Delete, Way::Plain, came(3, Some(&told[0])));
        for operation in [get, delete] {
            let record = KeyRecord {
                operations: vec![
                    asked("a", Asked::Put { value: 1 }, Way::Plain, None),
                    asked("a", Asked::Put { value: 2 }, Way::Plain, None),
                    operation,
                ],
                ..Default::default()
            };
            explained(&told, &record).expect("it is what happened");
            explained(&told[2..], &record).expect_err("a life is lost");
        }
    }

    #[test]
    fn keys_that_were_never_there_at_once_are_noticed() {
        let look = |revision, keys: &[(&str, &Noted)]| {
            let mut record = record();
            let keys = keys.iter().map(|(key, event)| {
                let found = found(event).expect("it was put");
                ((*key).to_owned(), found)
            });
            record.snapshots.push(KeySnapshot {
                prefix: String::new(),
                serializable: true,
                invoked: Instant::now(),
                answered: Instant::now(),
                revision,
                keys: keys.collect(),
            });
            explained(&told(), &record)
        };
        let told = told();
        let (first, beside, second) = (&told[0], &told[1], &told[2]);
        look(1, &[]).expect("nothing was there");
        look(2, &[("a", first), ("b", beside)]).expect("both were put at once");
        look(4, &[("a", second), ("b", beside)]).expect("4 is of other keys");
        look(5, &[("b", beside)]).expect("one was deleted");
        look(2, &[("a", first)]).expect_err("only half of what was put at once");
        look(3, &[("a", first), ("b", beside)]).expect_err("it is of 2");
    }

    #[test]
    fn an_event_out_of_order_is_noticed() {
        let told = [put(3, "a", 1, 3, 1), put(2, "b", 2, 2, 1)];
        KeyHistory::of(&told).expect_err("2 came after 3");
    }

    #[test]
    fn a_value_that_was_put_again_or_by_nobody_is_noticed() {
        for value in [3, 4] {
            let mut told = told();
            told.push(put(7, "a", value, 6, 2));
            explained(&told, &record()).expect_err("nobody asked for it");
        }
    }
}
