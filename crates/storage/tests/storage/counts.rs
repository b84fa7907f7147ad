//! Counts of keys, which are kept in parts, are those of the keys themselves.

use std::collections::BTreeSet;

use bytes::Bytes;
use tally_model::keys::{DeleteRange, LeaseOf, Put};
use tally_model::memory::MemoryState;
use tally_model::{Command, KeyOp, KeyRange, Revision, Settings, View, apply};
use tally_proto::convert::decode_request;
use tally_proto::storage::LogEntry;
use tally_proto::storage::log_entry::Payload;

use crate::member::Member;
use crate::script::{MARKER_A, found, open_session, proposal, tagged, untagged};

/// Prime, and several parts.
const KEYS: u64 = 3_001;

/// Two bytes and a beginning that is the same, in an order that jumps about.
fn key(number: u64) -> Bytes {
    let number = number * 1_009 % KEYS;
    format!("keys/{:04}", number).into()
}

/// Steps of one revision each: keys are made, written again and deleted, one by one and by ranges.
fn operations() -> Vec<KeyOp> {
    let put = |key| {
        KeyOp::Put(Put {
            key,
            value: Some(Bytes::from_static(b"value")),
            lease: LeaseOf::Given(None),
            want_previous: false,
        })
    };
    let delete = |keys| {
        KeyOp::Delete(DeleteRange {
            keys,
            want_previous: false,
        })
    };
    let made = (0..KEYS).map(|number| put(key(number)));
    let again = (0..KEYS).step_by(7).map(|number| put(key(number)));
    let deleted = (0..KEYS)
        .step_by(3)
        .map(|number| delete(KeyRange::One(key(number))));
    let between = delete(KeyRange::Between("keys/1000".into(), "keys/1700".into()));
    let made_again = (0..500).map(|number| put(key(number)));
    let last = [
        delete(KeyRange::From(Bytes::from_static(b"\0"))),
        put(key(1)),
    ];
    let all = made.chain(again).chain(deleted).chain([between]);
    all.chain(made_again).chain(last).collect()
}

fn log() -> Vec<LogEntry> {
    let begin = [
        proposal(0, 0, untagged(found(Settings::default()))),
        proposal(1, 0, untagged(open_session(MARKER_A))),
    ];
    let operations = (2..).zip(operations()).map(|(index, operation)| {
        let sequence = index - 1;
        proposal(
            index,
            0,
            tagged(2, sequence, sequence, MARKER_A, Command::Keys(operation)),
        )
    });
    begin.into_iter().chain(operations).collect()
}

fn ranges() -> Vec<KeyRange> {
    let names = [
        "\0",
        "keys/",
        "keys/0300",
        "keys/03005",
        "keys/1234",
        "keys/2999",
        "keyt",
    ];
    let names = names.map(|name| Bytes::from_static(name.as_bytes()));
    let between = |from: &Bytes| {
        let from = from.clone();
        let until = names.clone().into_iter();
        until.map(move |until| KeyRange::Between(from.clone(), until))
    };
    let bounded = names.iter().flat_map(between);
    let open = names.iter().cloned().map(KeyRange::From);
    let one = names.iter().cloned().map(KeyRange::One);
    bounded.chain(open).chain(one).collect()
}

#[test]
fn counts_are_those_of_the_keys_now_and_then() {
    let directory = tempfile::tempdir().unwrap();
    let member = Member::open(&directory.path().join("together"));
    let alone = Member::open(&directory.path().join("alone"));
    let mut memory = MemoryState::default();
    let log = log();
    // Where a step of the log has ended, and somewhere within each.
    let looked_at: BTreeSet<usize> = (0..log.len()).step_by(701).chain([log.len() - 2]).collect();
    let mut earlier = Vec::new();
    for (at, entries) in log.chunks(16).enumerate() {
        member.state.apply_all(entries.to_vec()).unwrap();
        for entry in entries {
            alone.state.apply(entry).unwrap();
            let Some(Payload::Proposal(proposal)) = &entry.payload else {
                continue;
            };
            let stamp = tally_model::Stamp {
                index: entry.id.unwrap().index,
                unix_ms: proposal.unix_ms,
            };
            let request = decode_request(proposal.request.clone()).unwrap();
            let (_, changes) = apply(&memory, stamp, &request);
            for change in &changes {
                change.write_to(&mut memory);
            }
        }
        let lines = at * 16..at * 16 + entries.len();
        if looked_at.range(lines).next().is_some() {
            let revision = memory.globals().revision;
            earlier.push(revision);
            counts_agree(&member, &memory, None);
        }
    }
    counts_agree(&member, &memory, None);
    assert_eq!(member.state.state_hash(), alone.state.state_hash());
    assert!(earlier.len() > 5, "{earlier:?}");
    for at in earlier {
        counts_agree(&member, &memory, Some(at));
    }
}

fn counts_agree(member: &Member, memory: &MemoryState, at: Option<Revision>) {
    let counted = |keys: &KeyRange| {
        let counted = member.state.with_view(|view| view.count_keys(keys, at));
        counted.unwrap()
    };
    for keys in ranges() {
        assert_eq!(
            counted(&keys),
            memory.count_keys(&keys, at),
            "{keys:?} as of {at:?}"
        );
    }
}
