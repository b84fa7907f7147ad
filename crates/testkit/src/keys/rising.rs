//! Do revisions rise with time, whichever keys they are of?

use std::time::Instant;

use anyhow::{Result, ensure};

use super::{Asked, KeyRecord};

/// One answer.
#[derive(Clone, Debug)]
struct Answered<'a> {
    keys: &'a str,
    invoked: Instant,
    answered: Instant,
    revision: i64,
    wrote: bool,
}

impl KeyRecord {
    /// Looks whether what was asked after something had been answered was answered with that revision or a later one;
    /// a write with a later one. Keys share one store, so it does not matter which they were.
    ///
    /// # Errors
    /// When an answer is of an earlier revision than one that had come before it was asked for.
    pub fn revisions_rise(&self) -> Result<()> {
        let mut by_answer: Vec<Answered> = self.answers().collect();
        let mut by_call = by_answer.clone();
        by_answer.sort_by_key(|one| one.answered);
        by_call.sort_by_key(|one| one.invoked);
        let mut before = by_answer.iter().peekable();
        let mut highest = 0;
        for one in by_call {
            while let Some(earlier) = before.next_if(|earlier| earlier.answered < one.invoked) {
                highest = highest.max(earlier.revision);
            }
            let least = highest + i64::from(one.wrote);
            ensure!(
                one.revision >= least,
                "of {} came r{}, asked for after r{highest} had been answered",
                one.keys,
                one.revision
            );
        }
        Ok(())
    }

    /// Every answer that must be of the latest revision.
    fn answers(&self) -> impl Iterator<Item = Answered<'_>> {
        let operations = self.operations.iter().filter_map(|one| {
            let (answered, came) = one.came?;
            Some(Answered {
                keys: &one.key,
                invoked: one.invoked,
                answered,
                revision: came.revision,
                wrote: came.done && one.what != Asked::Get,
            })
        });
        let latest = self.snapshots.iter().filter(|look| !look.serializable);
        let looks = latest.map(|look| Answered {
            keys: &look.prefix,
            invoked: look.invoked,
            answered: look.answered,
            revision: look.revision,
            wrote: false,
        });
        operations.chain(looks)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::*;
    use crate::keys::{Came, KeyOperation, KeySnapshot, Way};

    fn asked(key: &str, what: Asked, at_ms: [u64; 2], revision: i64) -> KeyOperation {
        let begin = Instant::now();
        let [from, until] = at_ms.map(|ms| begin + Duration::from_millis(ms));
        let came = Came {
            before: None,
            done: true,
            revision,
        };
        KeyOperation {
            key: key.to_owned(),
            what,
            way: Way::Plain,
            invoked: from,
            came: Some((until, came)),
        }
    }

    fn rise(second: KeyOperation) -> bool {
        let record = KeyRecord {
            operations: vec![asked("a", Asked::Put { value: 1 }, [0, 1_000], 5), second],
            ..Default::default()
        };
        record.revisions_rise().is_ok()
    }

    #[test]
    fn a_stale_read_of_another_key_is_noticed() {
        assert!(rise(asked("b", Asked::Get, [2_000, 3_000], 5)));
        assert!(!rise(asked("b", Asked::Get, [2_000, 3_000], 4)));
        assert!(rise(asked("b", Asked::Get, [500, 3_000], 4)));
    }

    #[test]
    fn a_stale_look_at_all_keys_is_noticed_unless_it_may_be() {
        let put = asked("a", Asked::Put { value: 1 }, [0, 1_000], 5);
        let later = put.invoked + Duration::from_secs(2);
        for (serializable, revision, possible) in
            [(false, 5, true), (false, 4, false), (true, 4, true)]
        {
            let look = KeySnapshot {
                prefix: String::new(),
                serializable,
                invoked: later,
                answered: later,
                revision,
                keys: BTreeMap::new(),
            };
            let record = KeyRecord {
                operations: vec![put.clone()],
                snapshots: vec![look],
            };
            assert_eq!(record.revisions_rise().is_ok(), possible);
        }
    }

    #[test]
    fn a_write_of_another_key_has_a_revision_of_its_own() {
        let put = Asked::Put { value: 2 };
        assert!(rise(asked("b", put, [2_000, 3_000], 6)));
        assert!(!rise(asked("b", put, [2_000, 3_000], 5)));
    }
}
