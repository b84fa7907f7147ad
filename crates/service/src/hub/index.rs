//! Which watchers watch a key. Those that watch the same keys are one group.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;

use bytes::Bytes;
use interavl::IntervalTree;
use tally_model::KeyRange;

use super::told::Wanted;

/// Where a range of keys begins or ends.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Edge {
    Key(Bytes),
    /// After every key.
    End,
}

/// Watchers of the same keys, by number.
#[derive(Debug)]
pub(crate) struct Group {
    /// Unlike that of any other group.
    pub(crate) number: u64,
    pub(crate) watchers: BTreeSet<u64>,
}

/// See the module.
#[derive(Debug, Default)]
struct Index {
    next: u64,
    keys: HashMap<Bytes, Group>,
    ranges: IntervalTree<Edge, Group>,
}

impl Index {
    fn insert(&mut self, keys: &KeyRange, watcher: u64) {
        let number = self.next;
        self.next += 1;
        let new = || Group {
            number,
            watchers: BTreeSet::new(),
        };
        let group = match keys {
            KeyRange::One(key) => self.keys.entry(key.clone()).or_insert_with(new),
            KeyRange::Between(..) | KeyRange::From(_) => {
                let Some(range) = edges(keys) else {
                    return;
                };
                self.ranges.entry(range).or_insert_with(new)
            }
        };
        group.watchers.insert(watcher);
    }

    fn remove(&mut self, keys: &KeyRange, watcher: u64) {
        let leave = |group: &mut Group| {
            group.watchers.remove(&watcher);
            group.watchers.is_empty()
        };
        match keys {
            KeyRange::One(key) => {
                if self.keys.get_mut(key).is_some_and(leave) {
                    self.keys.remove(key);
                }
            }
            KeyRange::Between(..) | KeyRange::From(_) => {
                if let Some(range) = edges(keys)
                    && self.ranges.get_mut(&range).is_some_and(leave)
                {
                    self.ranges.remove(&range);
                }
            }
        }
    }

    /// True when anybody watches a key.
    fn has(&self, key: &Bytes) -> bool {
        let is_one = || self.keys.contains_key(key);
        let point = Edge::Key(key.clone())..Edge::Key(key.clone());
        let in_range = || {
            let mut ranges = self.ranges.iter_contains(&point);
            ranges.any(|(range, _)| range.contains(&point.start))
        };
        is_one() || in_range()
    }

    /// Shows each group that watches a key.
    fn each<'a>(&'a self, key: &Bytes, mut visit: impl FnMut(&'a Group)) {
        if let Some(group) = self.keys.get(key) {
            visit(group);
        }
        let key = Edge::Key(key.clone());
        let point = key.clone()..key;
        for (range, group) in self.ranges.iter_contains(&point) {
            // The end of a range is not of it.
            if range.contains(&point.start) {
                visit(group);
            }
        }
    }
}

/// Who watches a key, and whether anybody of them wants to know what was there before.
#[derive(Debug, Default)]
pub(crate) struct Watched {
    all: Index,
    of_previous: Index,
}

impl Watched {
    pub(crate) fn insert(&mut self, wanted: &Wanted, watcher: u64) {
        self.all.insert(&wanted.keys, watcher);
        if wanted.previous {
            self.of_previous.insert(&wanted.keys, watcher);
        }
    }

    pub(crate) fn remove(&mut self, wanted: &Wanted, watcher: u64) {
        self.all.remove(&wanted.keys, watcher);
        if wanted.previous {
            self.of_previous.remove(&wanted.keys, watcher);
        }
    }

    /// True when anybody watches a key.
    pub(crate) fn has(&self, key: &Bytes) -> bool {
        self.all.has(key)
    }

    /// True when somebody wants to know what was there before an event of a key.
    pub(crate) fn wants_previous(&self, key: &Bytes) -> bool {
        self.of_previous.has(key)
    }

    /// Shows each group that watches a key.
    pub(crate) fn each<'a>(&'a self, key: &Bytes, visit: impl FnMut(&'a Group)) {
        self.all.each(key, visit);
    }
}

/// Where a range begins and ends; `None` for one key, and when there are none.
fn edges(keys: &KeyRange) -> Option<Range<Edge>> {
    let key = |key: &Bytes| Edge::Key(key.clone());
    let range = match keys {
        KeyRange::One(_) => return None,
        KeyRange::Between(from, until) => key(from)..key(until),
        KeyRange::From(from) => key(from)..Edge::End,
    };
    (!range.is_empty()).then_some(range)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// Short keys of few letters: many are prefixes of others, or equal.
    fn key() -> impl Strategy<Value = Bytes> {
        prop::collection::vec(0..3u8, 0..4).prop_map(Bytes::from)
    }

    fn keys() -> impl Strategy<Value = KeyRange> {
        prop_oneof![
            key().prop_map(KeyRange::One),
            (key(), key()).prop_map(|(from, until)| KeyRange::Between(from, until)),
            key().prop_map(KeyRange::From),
        ]
    }

    /// A watcher that comes, or the place of one that goes.
    fn change() -> impl Strategy<Value = Result<KeyRange, prop::sample::Index>> {
        prop_oneof![
            2 => keys().prop_map(Ok),
            1 => any::<prop::sample::Index>().prop_map(Err),
        ]
    }

    proptest! {
        #[test]
        fn a_key_has_the_watchers_that_a_look_at_each_of_them_finds(
            changes in prop::collection::vec(change(), 0..60),
            looked_for in prop::collection::vec(key(), 1..20),
        ) {
            let mut index = Index::default();
            let mut all: BTreeMap<u64, KeyRange> = BTreeMap::new();
            for (number, change) in (0..).zip(changes) {
                match change {
                    Ok(keys) => {
                        index.insert(&keys, number);
                        all.insert(number, keys);
                    }
                    Err(_) if all.is_empty() => {}
                    Err(gone) => {
                        let gone = *gone.get(&all.keys().copied().collect::<Vec<_>>());
                        if let Some(keys) = all.remove(&gone) {
                            index.remove(&keys, gone);
                        }
                    }
                }
            }
            for key in looked_for {
                let mut found = Vec::new();
                let mut groups = BTreeSet::new();
                index.each(&key, |group| {
                    assert!(groups.insert(group.number), "shown twice: {group:?}");
                    assert!(!group.watchers.is_empty(), "nobody's: {group:?}");
                    found.extend(group.watchers.iter().copied());
                });
                found.sort_unstable();
                let naive = all.iter().filter(|(_, keys)| keys.contains(&key));
                let naive: Vec<u64> = naive.map(|(number, _)| *number).collect();
                prop_assert_eq!(found, naive, "watchers of {:?}", key);
            }
            for (number, keys) in all {
                index.remove(&keys, number);
            }
            prop_assert!(index.keys.is_empty() && index.ranges.iter().next().is_none());
        }
    }
}
