//! Keys as of an earlier revision are those of then, whatever has become of them since.

use std::ops::ControlFlow;

use bytes::Bytes;
use tally_model::command::Compact;
use tally_model::keys::{DeleteRange, LeaseOf, Put, Range, Txn};
use tally_model::{
    Answer, Command, Effect, KeyAnswer, KeyOp, KeyRange, Outcome, Revision, Settings, View,
};

use crate::member::Member;
use crate::restart::keys_at;
use crate::script::{MARKER_A, found, open_session, proposal, tagged, untagged};

/// Each is the beginning of the next, or sorts beside it only as it should.
const KEYS: [&[u8]; 6] = [b"\0", b"\0\0", b"a", b"a\0", b"a\0\xff", b"b"];

fn put(key: &'static [u8], value: &'static [u8]) -> KeyOp {
    KeyOp::Put(Put {
        key: Bytes::from_static(key),
        value: Some(Bytes::from_static(value)),
        lease: LeaseOf::Given(None),
        want_previous: false,
    })
}

fn delete(key: &'static [u8]) -> KeyOp {
    KeyOp::Delete(DeleteRange {
        keys: KeyRange::One(Bytes::from_static(key)),
        want_previous: false,
    })
}

/// Applies commands, one entry each, in a cluster that is founded.
fn applied(member: &Member) -> impl FnMut(Command) {
    for (index, begins) in [found(Settings::default()), open_session(MARKER_A)]
        .into_iter()
        .enumerate()
    {
        let begins = proposal(index as u64, 0, untagged(begins));
        member.state.apply(&begins).unwrap();
    }
    let mut index = 2;
    move |command| {
        let request = tagged(1, index - 1, index - 1, MARKER_A, command);
        member.state.apply(&proposal(index, 0, request)).unwrap();
        index += 1;
    }
}

#[test]
fn what_was_changed_deleted_or_made_since_is_shown_as_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let member = Member::open(directory.path());
    let mut apply = applied(&member);
    for key in KEYS {
        apply(Command::Keys(put(key, b"then")));
    }
    let then = member
        .state
        .with_view(|view| (view.revision(), keys_at(view, None)));
    let (revision, expected) = then.unwrap();
    assert_eq!(expected.len(), KEYS.len());
    for later in [
        put(b"\0\0", b"now"),
        delete(b"a"),
        delete(b"a\0\xff"),
        put(b"a\0\xff", b"again"),
        put(b"aa", b"new"),
        delete(b"b"),
    ] {
        apply(Command::Keys(later));
        let shown = member.state.with_view(|view| keys_at(view, Some(revision)));
        assert_eq!(shown.unwrap(), expected);
    }
}

/// What each event of a revision replaced, by its value.
fn replaced(member: &Member, after: u64) -> Vec<Option<Bytes>> {
    let replaced = member.state.with_view(|view| {
        let events = view.events_after(Revision(after), 100, 1 << 20, |_| true);
        let events = events.found.into_iter();
        let replaced = events.map(|(id, event)| view.previous(event.key(), id));
        replaced
            .map(|found| found.map(|pair| pair.value))
            .collect::<Vec<_>>()
    });
    replaced.unwrap()
}

#[test]
fn an_event_replaced_what_was_there_before_its_revision() {
    let directory = tempfile::tempdir().unwrap();
    let member = Member::open(directory.path());
    let mut apply = applied(&member);
    let txn = |op| {
        KeyOp::Txn(Txn {
            compare: Vec::new(),
            success: vec![op],
            failure: Vec::new(),
        })
    };
    apply(Command::Keys(put(b"a", b"one")));
    apply(Command::Keys(put(b"a", b"two")));
    // Two events of one revision; a transaction may write a key again in another one within it.
    let both = KeyOp::Txn(Txn {
        compare: Vec::new(),
        success: vec![txn(put(b"a", b"three")), txn(delete(b"a"))],
        failure: Vec::new(),
    });
    apply(Command::Keys(both));
    let value = |value: &'static [u8]| Some(Bytes::from_static(value));
    let latest = member.state.with_view(|view| view.revision()).unwrap();
    let expected = [None, value(b"one"), value(b"two"), value(b"two")];
    assert_eq!(replaced(&member, latest.0 - 3), expected);

    // Nobody can read what was there before the revision to which is compacted, whether it is removed yet or not.
    let second = Revision(latest.0 - 1);
    apply(Command::Compact(Compact { revision: second }));
    let expected = [None, value(b"two"), value(b"two")];
    assert_eq!(replaced(&member, second.0 - 1), expected);
}

/// Of many versions of a key the one that is wanted is looked up; nothing else is lost on the way.
#[test]
fn a_key_that_was_changed_often_is_shown_as_it_was_each_time() {
    let directory = tempfile::tempdir().unwrap();
    let member = Member::open(directory.path());
    let mut apply = applied(&member);
    let now = || {
        let shown = member.state.with_view(|view| {
            let one = KeyRange::One(Bytes::from_static(b"a"));
            let count = view.count_keys(&one, None);
            (view.revision(), keys_at(view, None), count)
        });
        shown.unwrap()
    };
    let mut expected = Vec::new();
    for number in 0..150_u32 {
        let value = Bytes::from(number.to_string());
        // The one in the middle often, those beside it now and then.
        let key: &[u8] = match number % 50 {
            20 => b"a\0",
            21 => b"\0",
            _ => b"a",
        };
        apply(Command::Keys(match number % 40 {
            39 => delete(b"a"),
            _ => KeyOp::Put(Put {
                key: Bytes::from_static(key),
                value: Some(value),
                lease: LeaseOf::Given(None),
                want_previous: false,
            }),
        }));
        expected.push(now());
    }
    for (revision, keys, count) in expected {
        let shown = member.state.with_view(|view| {
            let one = KeyRange::One(Bytes::from_static(b"a"));
            let mut found = Vec::new();
            view.scan_keys(&one, Some(revision), &mut |key| {
                found.push(key);
                ControlFlow::Continue(())
            });
            let counted = view.count_keys(&one, Some(revision));
            (keys_at(view, Some(revision)), found, counted)
        });
        let (shown, found, counted) = shown.unwrap();
        assert_eq!(shown, keys, "at {revision:?}");
        assert_eq!((found.len() as u64, counted), (count, count));
        assert!(found.iter().all(|one| keys.contains(one)), "{found:?}");
    }
}

/// However little of it is wanted, no more than a part of the history is read at a time.
#[test]
fn what_nobody_wants_of_the_history_is_passed_by_in_parts() {
    let directory = tempfile::tempdir().unwrap();
    let member = Member::open(directory.path());
    let mut apply = applied(&member);
    for _ in 0..20 {
        apply(Command::Keys(KeyOp::Put(Put {
            key: Bytes::from_static(b"a"),
            value: Some(vec![0; 1 << 20].into()),
            lease: LeaseOf::Given(None),
            want_previous: false,
        })));
    }
    let mut after = Revision::EMPTY;
    let mut parts = 0;
    loop {
        let (events, all) = member
            .state
            .with_view(|view| {
                let events = view.events_after(after, 1_000, 1 << 20, |_| false);
                (events, view.revision())
            })
            .unwrap();
        assert!(events.found.is_empty() && events.through > after);
        (after, parts) = (events.through, parts + 1);
        if after == all {
            break;
        }
    }
    assert!((4..=20).contains(&parts), "{parts} parts");
}

/// Entries that are applied together look back over each other's rows, before these are written.
#[test]
fn looking_back_over_many_versions_is_the_same_within_a_batch() {
    let directories = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [alone, together] = [0, 1].map(|number| Member::open(directories[number].path()));
    let mut entries: Vec<_> = [found(Settings::default()), open_session(MARKER_A)]
        .into_iter()
        .zip(0..)
        .map(|(begins, index)| proposal(index, 0, untagged(begins)))
        .collect();
    let mut push = |command| {
        let index = entries.len() as u64;
        let request = tagged(1, index - 1, index - 1, MARKER_A, command);
        entries.push(proposal(index, 0, request));
    };
    for number in 0..120 {
        let key: &[u8] = if number % 60 == 30 { b"b" } else { b"a" };
        push(Command::Keys(put(key, b"value")));
    }
    for at in [2, 30, 31, 32, 33, 34, 60, 90, 120] {
        let past = |keys| {
            KeyOp::Range(Range {
                at: Some(Revision(at)),
                ..Range::of(keys)
            })
        };
        let all = KeyRange::From(Bytes::from_static(b"\0"));
        push(Command::Keys(KeyOp::Txn(Txn {
            compare: Vec::new(),
            success: vec![
                put(b"c", b"value"),
                past(all),
                past(KeyRange::One(Bytes::from_static(b"a"))),
            ],
            failure: Vec::new(),
        })));
    }
    let one_by_one: Vec<_> = entries
        .iter()
        .map(|entry| alone.state.apply(entry).unwrap())
        .collect();
    let at_once = together.state.apply_all(entries).unwrap();
    assert_eq!(one_by_one, at_once);
    assert_eq!(alone.state.state_hash(), together.state.state_hash());
    // As of revision 2 there was one key, in its first version.
    let Some(Some(Answer {
        outcome:
            Outcome::Applied {
                effect: Effect::Keys(KeyAnswer::Txn { answers, .. }),
                ..
            },
        ..
    })) = at_once.get(122)
    else {
        panic!("{:?}", at_once.get(122));
    };
    let [_, KeyAnswer::Range(first), KeyAnswer::Range(one)] = &answers[..] else {
        panic!("{answers:?}");
    };
    assert_eq!((first.count, first.found[0].version), (1, 1));
    assert_eq!(first.found, one.found);
}
