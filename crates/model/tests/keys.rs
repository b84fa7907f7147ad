//! Keys and leases against a naive model of etcd.
//!
//! Requests of every kind about keys and leases, compaction and the removal of what was compacted come in any order.
//! The state in memory has no snapshots; the storage crate compares with it after snapshots and restarts.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "keys/bounds.rs"]
mod bounds;
#[path = "keys/drawn.rs"]
mod drawn;
#[path = "keys/naive.rs"]
mod naive;
#[path = "keys/reading.rs"]
mod reading;
#[path = "keys/steps.rs"]
mod steps;
#[path = "keys/store.rs"]
mod store;

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use tally_model::command::Compact;
use tally_model::keys::{DeleteRange, LeaseOf, Put, Txn};
use tally_model::lease::PassLeaseTime;
use tally_model::memory::MemoryState;
use tally_model::{
    AtMost, Command, EventId, KeyChanged, KeyEvent, KeyOp, KeyRange, KeyValue, Lease, Revision,
    View, keys,
};

use crate::drawn::LEASES;
use crate::naive::Naive;
use crate::steps::{Step, step};
use crate::store::{Store, needs_tag, result};

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

/// The store and the naive model, asked the same.
struct Pair {
    store: Store,
    naive: Naive,
    /// The last request by which time passed.
    passed: PassLeaseTime,
}

impl Pair {
    fn new() -> Self {
        let naive = Naive::new();
        Self {
            store: Store::new(),
            passed: naive.evidence(),
            naive,
        }
    }

    /// Both answer alike.
    fn take(&mut self, step: Step) -> Result<(), TestCaseError> {
        let command = step.command(self.passed, self.naive.evidence());
        if let Command::PassLeaseTime(ask) = &command {
            self.passed = *ask;
        }
        let foretold = match &command {
            Command::Keys(op) => Some(result(&keys::read(&self.store.state, op))),
            _ => None,
        };
        let before = self.store.state.clone();
        let answer = self.store.ask(command.clone());
        let expected = self.naive.take(&command);
        prop_assert_eq!(&result(&answer.outcome), &expected, "{:?}", &command);
        prop_assert_eq!(answer.revision, Revision(self.naive.revision()));
        if let Some(foretold) = foretold {
            prop_assert_eq!(&foretold, &expected, "{:?}", &command);
        }
        if expected.is_err() && !needs_tag(&command) {
            prop_assert_eq!(&self.store.state, &before, "{:?}", &command);
        }
        Ok(())
    }

    /// Both have the same.
    fn compare(&self) -> Result<(), TestCaseError> {
        self.compare_keys()?;
        self.compare_events()?;
        self.compare_leases()
    }

    /// Every revision that can be read is equal, however much of what was compacted is removed meanwhile.
    fn compare_keys(&self) -> Result<(), TestCaseError> {
        let (state, naive) = (&self.store.state, &self.naive);
        prop_assert_eq!(state.globals().revision, Revision(naive.revision()));
        for revision in naive.first()..=naive.revision() {
            let expected: Vec<_> = naive.at(revision).map.values().cloned().collect();
            prop_assert_eq!(everything(state, Some(Revision(revision))), expected);
        }
        let now: Vec<_> = naive.now().map.values().cloned().collect();
        prop_assert_eq!(everything(state, None), now);
        Ok(())
    }

    /// What was told of each revision is equal, and so is what is still known of those from which one may watch.
    fn compare_events(&self) -> Result<(), TestCaseError> {
        let (state, naive) = (&self.store.state, &self.naive);
        let events = |first: u64| {
            (first..=naive.revision()).flat_map(|revision| {
                let events = (0..).zip(&naive.at(revision).events);
                events.map(move |(number, event)| {
                    let revision = Revision(revision);
                    (EventId { revision, number }, event.clone())
                })
            })
        };
        prop_assert_eq!(&self.store.told, &events(1).collect::<Vec<_>>());
        let known = events(naive.first()).map(|(id, event)| KeyChanged {
            id,
            key: event.key().clone(),
            deleted: matches!(event, KeyEvent::Deleted { .. }),
        });
        let before = EventId::last_of(Revision(naive.first() - 1));
        let last = EventId::last_of(Revision(naive.revision()));
        let changed = state.keys_changed(before, last, AtMost::ALL);
        prop_assert_eq!(changed, known.collect::<Vec<_>>());
        Ok(())
    }

    /// Leases, their keys and the order in which they end are equal, and so is the clock.
    fn compare_leases(&self) -> Result<(), TestCaseError> {
        let (state, naive) = (&self.store.state, &self.naive);
        let mut leases = naive.leases();
        for id in LEASES {
            let expected = leases.iter().find(|lease| lease.id == id);
            prop_assert_eq!(state.lease(id), expected.copied());
            prop_assert_eq!(state.lease_keys(id), naive.lease_keys(id));
        }
        let globals = state.globals();
        let PassLeaseTime { term, from_ms, .. } = naive.evidence();
        prop_assert_eq!(globals.leases, leases.len() as u64);
        prop_assert_eq!(
            (globals.lease_term, globals.lease_clock_ms),
            (term, from_ms)
        );
        leases.sort_by_key(|lease| (lease.ends_ms, lease.id));
        for moment in leases.iter().flat_map(|one| [one.ends_ms - 1, one.ends_ms]) {
            let is_over = |lease: &&Lease| lease.ends_ms <= moment;
            let over = leases.iter().filter(is_over).map(|lease| lease.id);
            for limit in [1, usize::MAX] {
                let expected: Vec<_> = over.clone().take(limit).collect();
                prop_assert_eq!(state.leases_over(moment, limit), expected);
            }
        }
        Ok(())
    }
}

/// Takes the steps, and compares everything after each.
fn compare_after_each(steps: impl IntoIterator<Item = Step>) -> Result<(), TestCaseError> {
    let mut pair = Pair::new();
    for step in steps {
        pair.take(step)?;
        pair.compare()?;
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    /// Answers, and all that can be read between them.
    #[test]
    fn keys_and_leases_are_what_a_naive_etcd_has(steps in vec(step(), 1..100)) {
        compare_after_each(steps)?;
    }

    /// After a compaction at the latest revision each key has one version, and nothing else is kept
    /// but what happened at that very revision, from which one may still watch.
    #[test]
    fn what_nobody_can_read_is_removed(steps in vec(step(), 1..100)) {
        let mut pair = Pair::new();
        for step in steps {
            pair.take(step)?;
        }
        let mut store = pair.store;
        let revision = store.state.globals().revision;
        store.ask(Command::Compact(Compact { revision }));
        store.ask(Command::ReclaimVersions);
        let left = store.state.keys_changed(EventId::NONE, EventId::last_of(revision), AtMost::ALL);
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

fn put(key: &'static str, value: Option<&'static str>) -> KeyOp {
    KeyOp::Put(Put {
        key: Bytes::from_static(key.as_bytes()),
        value: value.map(|value| Bytes::from_static(value.as_bytes())),
        lease: LeaseOf::Given(None),
        want_previous: false,
    })
}

fn delete(keys: KeyRange) -> KeyOp {
    KeyOp::Delete(DeleteRange {
        keys,
        want_previous: false,
    })
}

fn together(success: Vec<KeyOp>) -> KeyOp {
    KeyOp::Txn(Txn {
        compare: Vec::new(),
        success,
        failure: Vec::new(),
    })
}

fn compare_after_each_of(commands: impl IntoIterator<Item = Command>) {
    compare_after_each(commands.into_iter().map(Step::Ask)).unwrap();
}

#[test]
fn a_key_that_one_revision_makes_and_deletes_is_in_none() {
    let all = KeyRange::From(Bytes::from_static(b"\0"));
    let made = together(vec![put("b", Some("1"))]);
    let deleted = together(vec![delete(all)]);
    let revision = Revision(3);
    compare_after_each_of([
        Command::Keys(together(vec![made, deleted])),
        Command::Keys(put("a", Some("1"))),
        Command::Keys(put("a", None)),
        Command::Compact(Compact { revision }),
        Command::ReclaimVersions,
    ]);
}

#[test]
fn a_key_that_its_transaction_has_deleted_keeps_nothing() {
    let all = KeyRange::From(Bytes::from_static(b"a"));
    compare_after_each_of([
        Command::Keys(put("c", Some("1"))),
        Command::Keys(together(vec![delete(all), put("c", None)])),
    ]);
}
