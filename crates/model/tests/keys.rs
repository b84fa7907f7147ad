//! Keys against a naive model of etcd: one whole map for every revision, and the rules of etcd's
//! documentation written down again, simply.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use tally_model::command::{Compact, Found, OpenSession};
use tally_model::keys::{
    Bounds, Compare, Comparison, DeleteRange, Expected, LeaseOf, Order, Put, Range, RangeAnswer,
    SortBy, Txn, check_distinct,
};
use tally_model::memory::MemoryState;
use tally_model::{
    Answer, ClusterId, Command, Effect, KeyAnswer, KeyOp, KeyRange, KeyValue, Marker, Outcome,
    Request, Revision, SessionId, Settings, Stamp, Tag, Tagged, View, keys,
};

/// Every revision as a whole map.
struct Naive {
    /// Revision 1 is the first.
    maps: Vec<BTreeMap<Bytes, KeyValue>>,
    compacted: u64,
}

/// A transaction under way.
struct Working {
    map: BTreeMap<Bytes, KeyValue>,
    changed: bool,
}

impl Naive {
    fn new() -> Self {
        Self {
            maps: vec![BTreeMap::new()],
            compacted: 0,
        }
    }

    fn revision(&self) -> u64 {
        self.maps.len() as u64
    }

    fn at(&self, revision: u64) -> &BTreeMap<Bytes, KeyValue> {
        &self.maps[usize::try_from(revision - 1).unwrap()]
    }

    /// The answer, or the code of the refusal.
    fn run(&mut self, op: &KeyOp) -> Result<(u64, KeyAnswer), &'static str> {
        let before = self.at(self.revision());
        self.check(op, before)?;
        let mut working = Working {
            map: before.clone(),
            changed: false,
        };
        let answer = self.perform(op, &mut working);
        if working.changed {
            self.maps.push(working.map);
        }
        Ok((self.revision(), answer))
    }

    fn branch<'t>(&self, txn: &'t Txn) -> (bool, &'t [KeyOp]) {
        let now = self.at(self.revision());
        let holds = txn.compare.iter().all(|compare| holds(compare, now));
        (holds, if holds { &txn.success } else { &txn.failure })
    }

    fn check(&self, op: &KeyOp, map: &BTreeMap<Bytes, KeyValue>) -> Result<(), &'static str> {
        match op {
            KeyOp::Range(ask) => match ask.at {
                Some(Revision(at)) if at > self.revision() => Err("T-504"),
                Some(Revision(at)) if at < self.compacted => Err("T-503"),
                _ => Ok(()),
            },
            KeyOp::Put(ask) => {
                let kept = ask.value.is_none() || ask.lease == LeaseOf::Kept;
                match kept && !map.contains_key(&ask.key) {
                    true => Err("T-501"),
                    false => Ok(()),
                }
            }
            KeyOp::Delete(_) => Ok(()),
            KeyOp::Txn(txn) => self
                .branch(txn)
                .1
                .iter()
                .try_for_each(|op| self.check(op, map)),
        }
    }

    fn perform(&self, op: &KeyOp, working: &mut Working) -> KeyAnswer {
        let next = Revision(self.revision() + 1);
        match op {
            KeyOp::Range(ask) => {
                let seen = match ask.at {
                    Some(Revision(at)) => self.at(at),
                    None => &working.map,
                };
                let revision = self.revision() + u64::from(working.changed);
                KeyAnswer::Range(range(ask, seen, Revision(revision)))
            }
            KeyOp::Put(ask) => {
                let previous = working.map.get(&ask.key).cloned();
                let made = KeyValue {
                    key: ask.key.clone(),
                    value: match &ask.value {
                        Some(value) => value.clone(),
                        None => previous.as_ref().unwrap().value.clone(),
                    },
                    created: previous.as_ref().map_or(next, |old| old.created),
                    modified: next,
                    version: previous.as_ref().map_or(1, |old| old.version + 1),
                    lease: None,
                };
                working.map.insert(ask.key.clone(), made);
                working.changed = true;
                KeyAnswer::Put {
                    revision: next,
                    previous: previous.filter(|_| ask.want_previous),
                }
            }
            KeyOp::Delete(ask) => {
                let matching = working.map.keys().filter(|key| within(&ask.keys, key));
                let matching: Vec<Bytes> = matching.cloned().collect();
                let gone = matching.iter().map(|key| working.map.remove(key).unwrap());
                let gone: Vec<KeyValue> = gone.collect();
                working.changed |= !gone.is_empty();
                KeyAnswer::Deleted {
                    revision: Revision(self.revision() + u64::from(working.changed)),
                    count: gone.len() as u64,
                    previous: if ask.want_previous { gone } else { Vec::new() },
                }
            }
            KeyOp::Txn(txn) => {
                let (succeeded, ops) = self.branch(txn);
                KeyAnswer::Txn {
                    succeeded,
                    answers: ops.iter().map(|op| self.perform(op, working)).collect(),
                }
            }
        }
    }

    fn compact(&mut self, revision: u64) -> Result<(), &'static str> {
        if revision > self.revision() {
            return Err("T-504");
        }
        if revision <= self.compacted {
            return Err("T-503");
        }
        self.compacted = revision;
        Ok(())
    }
}

fn within(range: &KeyRange, key: &Bytes) -> bool {
    let (start, end) = (range.start(), range.end());
    match end.as_ref() {
        b"" => key == start,
        b"\0" => key >= start,
        _ => key >= start && *key < end,
    }
}

fn range(ask: &Range, map: &BTreeMap<Bytes, KeyValue>, revision: Revision) -> RangeAnswer {
    let inside = map.values().filter(|found| within(&ask.keys, &found.key));
    let mut found: Vec<KeyValue> = inside.cloned().collect();
    let count = found.len() as u64;
    let mut answer = RangeAnswer {
        revision,
        found: Vec::new(),
        more: false,
        count,
    };
    if ask.count_only {
        return answer;
    }
    let fits = |bounds: Bounds, revision: Revision| {
        let revision = i64::try_from(revision.0).unwrap();
        bounds.min.unwrap_or(i64::MIN) <= revision && revision <= bounds.max.unwrap_or(i64::MAX)
    };
    found.retain(|one| fits(ask.modified, one.modified) && fits(ask.created, one.created));
    let rank = |one: &KeyValue| match ask.order.by {
        SortBy::Key => (0, Bytes::new()),
        SortBy::Version => (one.version, Bytes::new()),
        SortBy::Created => (one.created.0, Bytes::new()),
        SortBy::Modified => (one.modified.0, Bytes::new()),
        SortBy::Value => (0, one.value.clone()),
    };
    let unbounded = (ask.modified, ask.created) == (Bounds::default(), Bounds::default());
    if let (None, Some(limit), true) = (ask.order.descending, ask.limit, unbounded) {
        // Whatever it sorts by, if it is not told in which order.
        found.truncate(usize::try_from(limit).unwrap().saturating_add(1));
    }
    let descending = ask.order.descending == Some(true);
    found.sort_by(|one, other| match (ask.order.by, descending) {
        (SortBy::Key, false) => one.key.cmp(&other.key),
        (SortBy::Key, true) => other.key.cmp(&one.key),
        (_, false) => rank(one).cmp(&rank(other)),
        (_, true) => rank(other).cmp(&rank(one)),
    });
    if let Some(limit) = ask.limit {
        let limit = usize::try_from(limit).unwrap();
        answer.more = found.len() > limit;
        found.truncate(limit);
    }
    if ask.keys_only {
        found.iter_mut().for_each(|one| one.value = Bytes::new());
    }
    answer.found = found;
    answer
}

fn holds(compare: &Compare, map: &BTreeMap<Bytes, KeyValue>) -> bool {
    let inside = map
        .values()
        .filter(|found| within(&compare.keys, &found.key));
    let mut inside: Vec<Option<&KeyValue>> = inside.map(Some).collect();
    if inside.is_empty() {
        inside.push(None);
    }
    inside.into_iter().all(|found| {
        let number = |number: fn(&KeyValue) -> u64| i64::try_from(found.map_or(0, number)).unwrap();
        let order = match &compare.expected {
            Expected::Version(given) => number(|found| found.version).cmp(given),
            Expected::Created(given) => number(|found| found.created.0).cmp(given),
            Expected::Modified(given) => number(|found| found.modified.0).cmp(given),
            Expected::Lease(given) => 0.cmp(given),
            Expected::Value(given) => match found {
                Some(found) => found.value.cmp(given),
                None => return false,
            },
        };
        match compare.comparison {
            Comparison::Equal => order.is_eq(),
            Comparison::NotEqual => order.is_ne(),
            Comparison::Greater => order.is_gt(),
            Comparison::Less => order.is_lt(),
        }
    })
}

fn key() -> impl Strategy<Value = Bytes> {
    let names: [&[u8]; 7] = [b"a", b"aa", b"a\0", b"b", b"b\xff", b"c", b"\0"];
    select(names.to_vec()).prop_map(Bytes::from_static)
}

fn value() -> impl Strategy<Value = Bytes> {
    let values: [&[u8]; 4] = [b"", b"1", b"2", b"10"];
    select(values.to_vec()).prop_map(Bytes::from_static)
}

fn key_range() -> impl Strategy<Value = KeyRange> {
    let ends: [&[u8]; 2] = [b"", b"\0"];
    let end = prop_oneof![select(ends.to_vec()).prop_map(Bytes::from_static), key()];
    (key(), end).prop_map(|(key, end)| KeyRange::new(key, end))
}

fn bounds() -> impl Strategy<Value = Bounds> {
    let bound = || option::weighted(0.1, select(vec![-1, 2, 3, 5, 9, 17]));
    (bound(), bound()).prop_map(|(min, max)| Bounds { min, max })
}

fn read() -> impl Strategy<Value = Range> {
    let targets = vec![
        SortBy::Key,
        SortBy::Version,
        SortBy::Created,
        SortBy::Modified,
        SortBy::Value,
    ];
    let order = (select(targets), option::of(any::<bool>()));
    let order = order.prop_map(|(by, descending)| Order { by, descending });
    let order = prop_oneof![3 => Just(Order::default()), 1 => order];
    let at = option::weighted(0.3, (1..40_u64).prop_map(Revision));
    (
        key_range(),
        option::weighted(0.4, 1..5_u64),
        at,
        order,
        any::<bool>(),
        prop::bool::weighted(0.2),
        (bounds(), bounds()),
    )
        .prop_map(
            |(keys, limit, at, order, keys_only, count_only, (modified, created))| Range {
                keys,
                limit,
                at,
                order,
                keys_only,
                count_only,
                modified,
                created,
            },
        )
}

fn put() -> impl Strategy<Value = Put> {
    let lease = prop_oneof![6 => Just(LeaseOf::Given(None)), 1 => Just(LeaseOf::Kept)];
    (key(), option::weighted(0.9, value()), lease, any::<bool>()).prop_map(
        |(key, value, lease, want_previous)| Put {
            key,
            value,
            lease,
            want_previous,
        },
    )
}

fn delete() -> impl Strategy<Value = DeleteRange> {
    (key_range(), any::<bool>()).prop_map(|(keys, want_previous)| DeleteRange {
        keys,
        want_previous,
    })
}

fn compare() -> impl Strategy<Value = Compare> {
    let number = || select(vec![-1, 0, 1, 2, 5]);
    let expected = prop_oneof![
        number().prop_map(Expected::Version),
        number().prop_map(Expected::Created),
        number().prop_map(Expected::Modified),
        number().prop_map(Expected::Lease),
        value().prop_map(Expected::Value),
    ];
    let comparison = select(vec![
        Comparison::Equal,
        Comparison::NotEqual,
        Comparison::Greater,
        Comparison::Less,
    ]);
    (key_range(), comparison, expected).prop_map(|(keys, comparison, expected)| Compare {
        keys,
        comparison,
        expected,
    })
}

fn simple() -> impl Strategy<Value = KeyOp> {
    prop_oneof![
        2 => read().prop_map(KeyOp::Range),
        3 => put().prop_map(KeyOp::Put),
        1 => delete().prop_map(KeyOp::Delete),
    ]
}

fn txn(inner: impl Strategy<Value = KeyOp> + Clone) -> impl Strategy<Value = Txn> {
    let branch = || vec(inner.clone(), 0..4);
    (vec(compare(), 0..3), branch(), branch()).prop_map(|(compare, success, failure)| Txn {
        compare,
        success,
        failure,
    })
}

fn op() -> impl Strategy<Value = KeyOp> {
    let simple = simple().boxed();
    let deep = simple
        .clone()
        .prop_recursive(2, 12, 4, |inner| txn(inner).prop_map(KeyOp::Txn));
    let distinct = deep.prop_filter("a key is written twice", |op| match op {
        KeyOp::Txn(txn) => {
            check_distinct(&txn.success).is_ok() && check_distinct(&txn.failure).is_ok()
        }
        KeyOp::Range(_) | KeyOp::Put(_) | KeyOp::Delete(_) => true,
    });
    prop_oneof![2 => simple, 3 => distinct]
}

#[derive(Clone, Debug)]
enum Step {
    Run(KeyOp),
    Compact(u64),
    Reclaim,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => op().prop_map(Step::Run),
        1 => (0..30_u64).prop_map(Step::Compact),
        2 => Just(Step::Reclaim),
    ]
}

const MARKER: Marker = Marker {
    bits: 0xa,
    created_unix_ms: 1,
};

/// A founded store with one session.
struct Store {
    state: MemoryState,
    index: u64,
    sequence: u64,
}

impl Store {
    fn new() -> Self {
        let mut store = Self {
            state: MemoryState::default(),
            index: 0,
            sequence: 0,
        };
        store.enter(
            None,
            Command::Found(Found {
                cluster: ClusterId(1),
                settings: Settings::default(),
            }),
        );
        store.enter(None, Command::OpenSession(OpenSession { marker: MARKER }));
        store
    }

    fn enter(&mut self, tagged: Option<Tagged>, command: Command) -> Answer {
        self.index += 1;
        let stamp = Stamp {
            index: self.index,
            unix_ms: 1_000,
        };
        self.state.apply(stamp, &Request { tagged, command })
    }

    fn tagged(&mut self, command: Command) -> Outcome {
        self.sequence += 1;
        let tagged = Tagged {
            tag: Tag {
                session: SessionId(2),
                sequence: self.sequence,
            },
            marker: Some(MARKER),
            acknowledged: self.sequence,
            digest: 0,
        };
        self.enter(Some(tagged), command).outcome
    }
}

fn result(outcome: &Outcome) -> Result<(u64, KeyAnswer), &'static str> {
    match outcome {
        Outcome::Applied {
            revision,
            effect: Effect::Keys(answer),
        } => Ok((revision.0, answer.clone())),
        Outcome::Refused(refusal) => Err(refusal.code()),
        other => panic!("{other:?}"),
    }
}

fn everything(state: &MemoryState, at: Option<Revision>) -> Vec<KeyValue> {
    let mut found = Vec::new();
    let all = KeyRange::From(Bytes::from_static(b"\0"));
    state.scan_keys(&all, at, &mut |one| {
        found.push(one);
        ControlFlow::Continue(())
    });
    assert_eq!(state.count_keys(&all, at), found.len() as u64);
    found
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    /// Answers are equal, each of them, and so is every revision that can be read, however much of
    /// what was compacted is removed meanwhile.
    #[test]
    fn keys_are_what_a_naive_etcd_has(steps in vec(step(), 1..60)) {
        let (mut store, mut naive) = (Store::new(), Naive::new());
        for step in steps {
            match step {
                Step::Run(op) => {
                    let seen = result(&keys::read(&store.state, &op));
                    let outcome = store.tagged(Command::Keys(op.clone()));
                    let answer = result(&outcome);
                    prop_assert_eq!(&answer, &naive.run(&op), "{:?}", &op);
                    if op.is_read_only() {
                        prop_assert_eq!(seen, answer);
                    }
                }
                Step::Compact(revision) => {
                    let command = Command::Compact(Compact { revision: Revision(revision) });
                    let answer = match store.tagged(command) {
                        Outcome::Applied { .. } => Ok(()),
                        Outcome::Refused(refusal) => Err(refusal.code()),
                        other => panic!("{other:?}"),
                    };
                    prop_assert_eq!(answer, naive.compact(revision));
                }
                Step::Reclaim => {
                    store.enter(None, Command::ReclaimVersions);
                    prop_assert!(!store.state.globals().is_reclaiming());
                }
            }
            prop_assert_eq!(store.state.globals().revision, Revision(naive.revision()));
            for revision in naive.compacted.max(1)..=naive.revision() {
                let expected: Vec<_> = naive.at(revision).values().cloned().collect();
                prop_assert_eq!(everything(&store.state, Some(Revision(revision))), expected);
            }
            let now: Vec<_> = naive.at(naive.revision()).values().cloned().collect();
            prop_assert_eq!(everything(&store.state, None), now);
        }
    }

    /// After a compaction at the latest revision each key has one version, and nothing else is kept
    /// but what happened at that very revision, from which one may still watch.
    #[test]
    fn what_nobody_can_read_is_removed(steps in vec(op(), 1..60)) {
        let mut store = Store::new();
        for op in steps {
            store.tagged(Command::Keys(op));
        }
        let revision = store.state.globals().revision;
        store.tagged(Command::Compact(Compact { revision }));
        store.enter(None, Command::ReclaimVersions);
        let left = store.state.keys_changed(keys::EventId::NONE, keys::EventId::last_of(revision), usize::MAX);
        let (last, before): (Vec<_>, Vec<_>) = left.into_iter().partition(|left| left.id.revision == revision);
        prop_assert!(before.iter().all(|left| !left.deleted));
        let kept = before.into_iter().map(|left| (left.key, left.id.revision));
        // A key that changed at the last revision has its version there, if it has one.
        let touched: BTreeSet<Bytes> = last.into_iter().map(|left| left.key).collect();
        let mut kept: Vec<_> = kept.collect();
        kept.sort();
        let now = everything(&store.state, None).into_iter();
        let now = now.filter(|one| !touched.contains(&one.key));
        prop_assert_eq!(kept, now.map(|one| (one.key, one.modified)).collect::<Vec<_>>());
    }
}

#[test]
fn a_reserved_key_is_read_by_all_and_written_by_nobody() {
    let mut store = Store::new();
    let reserved = Bytes::from_static(b"\0tally/nodes/1");
    let put = Put {
        key: reserved.clone(),
        value: Some(Bytes::new()),
        lease: LeaseOf::Given(None),
        want_previous: false,
    };
    let outcome = store.tagged(Command::Keys(KeyOp::Put(put)));
    assert_eq!(result(&outcome), Err("T-505"));
    let delete = DeleteRange {
        keys: KeyRange::One(reserved),
        want_previous: false,
    };
    let outcome = store.tagged(Command::Keys(KeyOp::Delete(delete)));
    assert_eq!(result(&outcome), Err("T-505"));
    assert_eq!(store.state.globals().revision, Revision::EMPTY);
}

fn put_of(key: &str, value: Vec<u8>) -> KeyOp {
    KeyOp::Put(Put {
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: Some(value.into()),
        lease: LeaseOf::Given(None),
        want_previous: false,
    })
}

fn all() -> KeyRange {
    KeyRange::From(Bytes::from_static(b"\0"))
}

/// Every member would have to do it, and once more after each restart.
#[test]
fn a_write_that_answers_with_too_much_is_refused_and_changes_nothing() {
    let mut store = Store::new();
    for number in 0..20 {
        store.tagged(Command::Keys(put_of(
            &format!("large/{number}"),
            vec![0; 1 << 20],
        )));
    }
    let before = store.state.globals().revision;
    let greedy = KeyOp::Txn(Txn {
        compare: Vec::new(),
        success: vec![put_of("new", Vec::new()), KeyOp::Range(Range::of(all()))],
        failure: Vec::new(),
    });
    let outcome = store.tagged(Command::Keys(greedy.clone()));
    assert_eq!(result(&outcome), Err("T-509"));
    assert_eq!(store.state.globals().revision, before);
    assert_eq!(store.state.key(b"new"), None);
    let last = keys::EventId::last_of(before.next());
    let events = store
        .state
        .keys_changed(keys::EventId::NONE, last, usize::MAX);
    assert_eq!(events.len(), 20);
    // What only reads may be as large as it is.
    let KeyOp::Txn(greedy) = greedy else {
        panic!("it is a transaction");
    };
    let read = KeyOp::Txn(Txn {
        success: greedy.success[1..].to_vec(),
        ..greedy
    });
    assert!(result(&keys::read(&store.state, &read)).is_ok());
}

/// Whoever sorts holds all that is sorted, but for the values.
#[test]
fn a_read_that_would_hold_too_much_is_refused_and_one_in_order_is_not() {
    let mut store = Store::new();
    let count = 1 + (keys::READ_BYTES_MAX >> 20);
    for number in 0..count {
        let name = format!("large/{number:03}");
        store.tagged(Command::Keys(put_of(&name, vec![0; 1 << 20])));
    }
    let sorted = |by, limit| Range {
        order: Order {
            by,
            descending: Some(true),
        },
        limit,
        ..Range::of(all())
    };
    let read = |ask| keys::read(&store.state, &KeyOp::Range(ask));
    let is_refused = |outcome| result(&outcome).is_err_and(|code| code == "T-509");
    assert!(is_refused(read(sorted(SortBy::Value, None))));
    assert!(is_refused(read(sorted(SortBy::Modified, None))));
    assert!(!is_refused(read(sorted(SortBy::Value, Some(1)))));
    let Outcome::Applied {
        effect: Effect::Keys(KeyAnswer::Range(latest)),
        ..
    } = read(sorted(SortBy::Modified, Some(1)))
    else {
        panic!("the latest key is read");
    };
    assert_eq!((latest.count, latest.more), (count as u64, true));
    assert_eq!(latest.found[0].key, format!("large/{:03}", count - 1));
    assert_eq!(latest.found[0].value.len(), 1 << 20);

    let mut bytes = 0;
    let end = keys::walk(&store.state, &Range::of(all()), &|| true, &mut |one| {
        bytes += one.value.len();
        ControlFlow::Continue(())
    });
    let end = end.unwrap().unwrap();
    assert_eq!((end.count, end.more), (count as u64, false));
    assert_eq!(bytes, count << 20);
}

/// The second compaction comes before the first one has removed everything.
#[test]
fn no_deletion_outlives_two_compactions() {
    let mut store = Store::new();
    let count = keys::RECLAIMED_AT_ONCE_MAX + 100;
    for number in 0..count {
        store.tagged(Command::Keys(put_of(&format!("k/{number:05}"), Vec::new())));
    }
    let delete = DeleteRange {
        keys: all(),
        want_previous: false,
    };
    store.tagged(Command::Keys(KeyOp::Delete(delete)));
    let compact = |store: &mut Store| {
        let revision = store.state.globals().revision;
        store.tagged(Command::Compact(Compact { revision }));
    };
    compact(&mut store);
    // Past the puts, and into the deletions.
    for _ in 0..2 {
        store.enter(None, Command::ReclaimVersions);
    }
    store.tagged(Command::Keys(put_of("last", Vec::new())));
    compact(&mut store);
    while store.state.globals().is_reclaiming() {
        store.enter(None, Command::ReclaimVersions);
    }
    let last = keys::EventId::last_of(store.state.globals().revision);
    let left = store
        .state
        .keys_changed(keys::EventId::NONE, last, usize::MAX);
    assert_eq!(left.len(), 1, "{left:?}");
}
