//! What is refused, and what takes more than one command, because it would be too much at once.

use std::ops::ControlFlow;

use bytes::Bytes;
use tally_model::command::Compact;
use tally_model::keys::{DeleteRange, LeaseOf, Order, Put, Range, SortBy, Txn};
use tally_model::lease::{GrantLease, LEASES_MAX, PassLeaseTime};
use tally_model::{
    AtMost, Change, Command, Effect, KeyAnswer, KeyOp, KeyRange, LeaseId, Outcome, Revision, View,
    keys,
};

use crate::store::{Store, result};

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
    let outcome = store.ask(Command::Keys(KeyOp::Put(put))).outcome;
    assert_eq!(result(&outcome), Err("T-505"));
    let delete = DeleteRange {
        keys: KeyRange::One(reserved),
        want_previous: false,
    };
    let outcome = store.ask(Command::Keys(KeyOp::Delete(delete))).outcome;
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
        store.ask(Command::Keys(put_of(
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
    let outcome = store.ask(Command::Keys(greedy.clone())).outcome;
    assert_eq!(result(&outcome), Err("T-509"));
    assert_eq!(store.state.globals().revision, before);
    assert_eq!(store.state.key(b"new"), None);
    let last = keys::EventId::last_of(before.next());
    let events = store
        .state
        .keys_changed(keys::EventId::NONE, last, AtMost::ALL);
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

/// A request may be small, and what it keeps or answers with large.
#[test]
fn puts_that_keep_or_answer_with_too_much_are_refused_and_change_nothing() {
    let mut store = Store::new();
    let names: Vec<String> = (0..20).map(|number| format!("large/{number:02}")).collect();
    for name in &names {
        store.ask(Command::Keys(put_of(name, vec![0; 1 << 20])));
    }
    let before = store.state.globals().revision;
    for (value, want_previous, refused) in [
        (None, false, true),
        (Some(Bytes::new()), true, true),
        (Some(Bytes::new()), false, false),
    ] {
        let puts = names.iter().map(|name| {
            KeyOp::Put(Put {
                key: name.clone().into(),
                value: value.clone(),
                lease: LeaseOf::Given(None),
                want_previous,
            })
        });
        let all = KeyOp::Txn(Txn {
            compare: Vec::new(),
            success: puts.collect(),
            failure: Vec::new(),
        });
        let outcome = store.ask(Command::Keys(all)).outcome;
        match refused {
            true => {
                assert_eq!(result(&outcome), Err("T-509"));
                assert_eq!(store.state.globals().revision, before);
            }
            false => assert!(result(&outcome).is_ok()),
        }
    }
}

/// The names are in the state several times, and in memory while it is written.
#[test]
fn long_names_count_for_what_they_take() {
    let mut store = Store::new();
    let long = |number: u32| format!("{number:03}{}", "n".repeat(1 << 20));
    for number in 0..300 {
        store.ask(Command::Keys(put_of(&long(number), Vec::new())));
    }
    let delete = |keys| {
        KeyOp::Delete(DeleteRange {
            keys,
            want_previous: false,
        })
    };
    let outcome = store.ask(Command::Keys(delete(all()))).outcome;
    assert_eq!(result(&outcome), Err("T-509"));
    assert_eq!(store.state.count_keys(&all(), None), 300);
    let some = KeyRange::Between("000".into(), "050".into());
    assert!(result(&store.ask(Command::Keys(delete(some))).outcome).is_ok());
    assert_eq!(store.state.count_keys(&all(), None), 250);
    // What they leave behind is removed in steps that are no larger for it.
    let revision = store.state.globals().revision;
    store.ask(Command::Compact(Compact { revision }));
    let first = store.state.globals().reclaimed;
    store.ask(Command::ReclaimVersions);
    let second = store.state.globals().reclaimed;
    assert_eq!(
        second.revision.0,
        first.revision.0 + 2,
        "{first:?}, {second:?}"
    );
}

/// What a transaction has deleted is passed by, again and again, and counts.
#[test]
fn what_a_transaction_passes_by_counts() {
    let mut store = Store::new();
    let count = 2_000;
    for number in 0..count {
        store.ask(Command::Keys(put_of(&format!("{number:05}"), Vec::new())));
    }
    let before = store.state.globals().revision;
    let with_reads = |reads| {
        let delete = KeyOp::Delete(DeleteRange {
            keys: all(),
            want_previous: false,
        });
        let reads = (0..reads).map(|_| KeyOp::Range(Range::of(all())));
        KeyOp::Txn(Txn {
            compare: Vec::new(),
            success: [delete].into_iter().chain(reads).collect(),
            failure: Vec::new(),
        })
    };
    let outcome = store.ask(Command::Keys(with_reads(1_000))).outcome;
    assert_eq!(result(&outcome), Err("T-509"));
    assert_eq!(store.state.globals().revision, before);
    let outcome = store.ask(Command::Keys(with_reads(100))).outcome;
    assert!(result(&outcome).is_ok());
    assert_eq!(store.state.count_keys(&all(), None), 0);
}

/// Whoever sorts holds all that is sorted, but for the values.
#[test]
fn a_read_that_would_hold_too_much_is_refused_and_one_in_order_is_not() {
    let mut store = Store::new();
    let count = 1 + (keys::READ_BYTES_MAX >> 20);
    for number in 0..count {
        let name = format!("large/{number:03}");
        store.ask(Command::Keys(put_of(&name, vec![0; 1 << 20])));
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
    let count = keys::RECLAIMED_AT_ONCE.changes + 100;
    for number in 0..count {
        store.ask(Command::Keys(put_of(&format!("k/{number:05}"), Vec::new())));
    }
    let delete = DeleteRange {
        keys: all(),
        want_previous: false,
    };
    store.ask(Command::Keys(KeyOp::Delete(delete)));
    let deleted = store.state.globals().revision;
    let compact = |store: &mut Store| {
        let revision = store.state.globals().revision;
        store.ask(Command::Compact(Compact { revision }));
    };
    compact(&mut store);
    // Past the puts, and into the deletions.
    for _ in 0..2 {
        store.ask(Command::ReclaimVersions);
    }
    // Who watches from there on has all of it still, and who watches from earlier has not.
    let globals = store.state.globals();
    let before = Revision(deleted.0 - 1);
    assert!(globals.has_history_after(before), "{globals:?}");
    assert!(
        !globals.has_history_after(Revision(before.0 - 1)),
        "{globals:?}"
    );
    let from = keys::EventId::last_of(before);
    let there = keys::EventId::last_of(deleted);
    let there = store.state.keys_changed(from, there, AtMost::ALL);
    assert_eq!(there.len(), count);
    store.ask(Command::Keys(put_of("last", Vec::new())));
    compact(&mut store);
    while store.state.globals().is_reclaiming() {
        store.ask(Command::ReclaimVersions);
    }
    let last = keys::EventId::last_of(store.state.globals().revision);
    let left = store
        .state
        .keys_changed(keys::EventId::NONE, last, AtMost::ALL);
    assert_eq!(left.len(), 1, "{left:?}");
}

/// Leases that end with one command, and keys after which no further lease does.
const ENDED_AT_ONCE: usize = 1_000;

fn grant(store: &mut Store, lease: i64) -> LeaseId {
    let lease = LeaseId(lease);
    let ttl_s = 2;
    store.ask(Command::GrantLease(GrantLease { lease, ttl_s }));
    lease
}

/// Has a second pass. Tells whether all leases ended whose time is over, and at which revision.
fn pass_a_second(store: &mut Store) -> (bool, u64) {
    let from_ms = store.state.globals().lease_clock_ms;
    let ask = PassLeaseTime {
        term: 1,
        from_ms,
        passed_ms: 1_000,
    };
    match result(&store.ask(Command::PassLeaseTime(ask)).outcome) {
        Ok((revision, Effect::LeaseTimePassed { all })) => (all, revision),
        other => panic!("{other:?}"),
    }
}

#[test]
fn leases_that_are_too_many_to_end_at_once_end_with_the_next_command() {
    let mut store = Store::new();
    for lease in 1..=1_100 {
        grant(&mut store, lease);
    }
    assert_eq!(pass_a_second(&mut store), (true, 1));
    assert_eq!(pass_a_second(&mut store), (true, 1));
    assert_eq!(store.state.globals().leases, 1_100);
    assert_eq!(pass_a_second(&mut store), (false, 1));
    assert_eq!(store.state.globals().leases, 1_100 - ENDED_AT_ONCE as u64);
    assert_eq!(pass_a_second(&mut store), (true, 1));
    assert_eq!(store.state.globals().leases, 0);
}

#[test]
fn no_more_than_a_million_leases_are_held() {
    let mut store = Store::new();
    // As if all but one of them had been granted.
    let mut globals = store.state.globals();
    globals.leases = LEASES_MAX - 1;
    Change::GlobalsChanged { globals }.write_to(&mut store.state);
    let mut ask = |lease| {
        let (lease, ttl_s) = (LeaseId(lease), 2);
        store.ask(Command::GrantLease(GrantLease { lease, ttl_s }))
    };
    assert!(result(&ask(1).outcome).is_ok());
    assert_eq!(result(&ask(2).outcome), Err("T-508"));
    // What is held already is told first.
    assert_eq!(result(&ask(1).outcome), Err("T-506"));
}

/// The keys of one lease are deleted together, however many there are.
#[test]
fn a_lease_with_many_keys_ends_before_the_next_one_does() {
    let mut store = Store::new();
    let (many, few) = (grant(&mut store, 1), grant(&mut store, 2));
    let put = |key: String, lease| {
        let KeyOp::Put(put) = put_of(&key, Vec::new()) else {
            panic!("it is a put");
        };
        let lease = LeaseOf::Given(Some(lease));
        KeyOp::Put(Put { lease, ..put })
    };
    let keys = 0..ENDED_AT_ONCE + 1;
    let mut puts: Vec<KeyOp> = keys.map(|key| put(format!("{key:05}"), many)).collect();
    puts.push(put("last".to_owned(), few));
    let txn = Txn {
        compare: Vec::new(),
        success: puts,
        failure: Vec::new(),
    };
    store.ask(Command::Keys(KeyOp::Txn(txn)));
    let count = |store: &Store| store.state.count_keys(&all(), None);
    pass_a_second(&mut store);
    assert_eq!(pass_a_second(&mut store), (true, 2));
    assert_eq!(count(&store), ENDED_AT_ONCE as u64 + 2);
    assert_eq!(pass_a_second(&mut store), (false, 3));
    assert_eq!(count(&store), 1);
    assert_eq!(store.state.lease_keys(few).len(), 1);
    assert_eq!(pass_a_second(&mut store), (true, 4));
    assert_eq!(count(&store), 0);
}
