//! Do revisions rise with time, whichever keys they are of?

use std::time::Instant;

use anyhow::{Result, ensure};

use super::{Asked, Came, KeyOperation, KeyRecord};

impl KeyRecord {
    /// Looks whether what was asked after something had been answered was answered with that revision or a later one;
    /// a write with a later one. Keys share one store, so it does not matter which they were.
    ///
    /// # Errors
    /// When an answer is of an earlier revision than one that had come before it was asked for.
    pub fn revisions_rise(&self) -> Result<()> {
        let answered = self.operations.iter();
        let answered = answered.filter_map(|one| one.came.map(|came| (one, came)));
        let mut by_answer: Vec<(&KeyOperation, (Instant, Came))> = answered.collect();
        let mut by_call = by_answer.clone();
        by_answer.sort_by_key(|(_, (at, _))| *at);
        by_call.sort_by_key(|(one, _)| one.invoked);
        let mut before = by_answer.iter().peekable();
        let mut highest = 0;
        for (one, (_, came)) in by_call {
            while let Some((_, (_, earlier))) = before.next_if(|(_, (at, _))| *at < one.invoked) {
                highest = highest.max(earlier.revision);
            }
            let wrote = came.done && one.what != Asked::Get;
            let least = highest + i64::from(wrote);
            ensure!(
                came.revision >= least,
                "r{highest} had been answered before this was asked: {one:?}"
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::keys::Way;

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
    fn a_write_of_another_key_has_a_revision_of_its_own() {
        let put = Asked::Put { value: 2 };
        assert!(rise(asked("b", put, [2_000, 3_000], 6)));
        assert!(!rise(asked("b", put, [2_000, 3_000], 5)));
    }
}
