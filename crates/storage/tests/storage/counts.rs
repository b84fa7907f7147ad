//! Counts of keys, which are kept in parts, are those of the keys themselves.

use bytes::Bytes;
use tally_model::command::Compact;
use tally_model::keys::{DeleteRange, LeaseOf, Put, Txn};
use tally_model::memory::MemoryState;
use tally_model::{Command, KeyOp, KeyRange, Revision, Settings, Stamp, View, apply};
use tally_proto::convert::decode_request;
use tally_proto::storage::LogEntry;
use tally_proto::storage::log_entry::Payload;

use crate::member::Member;
use crate::properties::transfer;
use crate::script::{MARKER_A, found, open_session, proposal, tagged, untagged};

/// Prime, and several parts.
const KEYS: u64 = 3_271;
/// More events than are looked at to count as of an earlier revision.
const TXNS: u64 = 90;
const OPS: u64 = 128;
/// Entries that are applied together.
const TOGETHER: usize = 16;

/// Every text of these bytes up to a length, so that many are the beginning of others, in an order that jumps
/// about. Some are very long.
fn key(number: u64) -> Bytes {
    let number = number * 1_009 % KEYS;
    let mut name = Vec::new();
    let mut rest = number + 1;
    while rest > 0 {
        name.push([0, b'a', 0xff][(rest as usize - 1) % 3]);
        rest = (rest - 1) / 3;
    }
    if number.is_multiple_of(400) {
        name.extend([b'a'; 700]);
    }
    name.into()
}

fn put(key: Bytes) -> KeyOp {
    KeyOp::Put(Put {
        key,
        value: Some(Bytes::from_static(b"value")),
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

fn txn(success: Vec<KeyOp>) -> KeyOp {
    KeyOp::Txn(Txn {
        compare: Vec::new(),
        success,
        failure: Vec::new(),
    })
}

/// Keys are made, written again and deleted, one by one, by ranges and together.
fn operations() -> Vec<KeyOp> {
    let made = (0..KEYS).map(|number| put(key(number)));
    let deleted = (0..KEYS)
        .step_by(3)
        .map(|number| delete(KeyRange::One(key(number))));
    let between = delete(KeyRange::Between(
        Bytes::from_static(b"a\0"),
        Bytes::from_static(b"a\xff"),
    ));
    let made_again = (0..600).map(|number| put(key(number)));
    let all = made.chain(deleted).chain([between]).chain(made_again);
    let often = (0..TXNS).map(|_| txn((0..OPS).map(|number| put(key(number))).collect()));
    let emptied = [
        delete(KeyRange::From(Bytes::from_static(b"a"))),
        // Twice in one revision.
        txn(vec![
            txn(vec![put(Bytes::from_static(b"b"))]),
            txn(vec![delete(KeyRange::One(Bytes::from_static(b"c")))]),
        ]),
        delete(KeyRange::From(Bytes::from_static(b"\0"))),
        put(key(1)),
    ];
    all.chain(often).chain(emptied).collect()
}

/// A member whose entries are applied together, one to which they come one by one, and what should come of them.
struct Compared {
    _directory: tempfile::TempDir,
    together: Member,
    alone: Member,
    memory: MemoryState,
    applied: u64,
}

impl Compared {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut compared = Self {
            together: Member::open(&directory.path().join("together")),
            alone: Member::open(&directory.path().join("alone")),
            _directory: directory,
            memory: MemoryState::default(),
            applied: 0,
        };
        let begin = [found(Settings::default()), open_session(MARKER_A)];
        for command in begin {
            let entry = proposal(compared.applied, 0, untagged(command));
            compared.apply(&[entry]);
        }
        compared
    }

    fn apply(&mut self, entries: &[LogEntry]) {
        self.together.state.apply_all(entries.to_vec()).unwrap();
        for entry in entries {
            self.alone.state.apply(entry).unwrap();
            let Some(Payload::Proposal(proposal)) = &entry.payload else {
                panic!("all of them are proposals");
            };
            let stamp = Stamp {
                index: self.applied,
                unix_ms: proposal.unix_ms,
            };
            let request = decode_request(proposal.request.clone()).unwrap();
            let (_, changes) = apply(&self.memory, stamp, &request);
            for change in &changes {
                change.write_to(&mut self.memory);
            }
            self.applied += 1;
        }
    }

    /// Gives the entries of these commands.
    fn run(&mut self, commands: Vec<Command>) -> Vec<LogEntry> {
        let first = self.applied;
        let entries = (first..).zip(commands).map(|(index, command)| {
            let sequence = index - 1;
            proposal(index, 0, tagged(1, sequence, sequence, MARKER_A, command))
        });
        let entries = entries.collect::<Vec<_>>();
        self.apply(&entries);
        entries
    }

    fn revision(&self) -> Revision {
        self.memory.globals().revision
    }

    fn counts_agree(&self, at: Option<Revision>) {
        for keys in ranges() {
            let counted = self
                .together
                .state
                .with_view(|view| view.count_keys(&keys, at));
            let expected = self.memory.count_keys(&keys, at);
            assert_eq!(counted.unwrap(), expected, "{keys:?} as of {at:?}");
        }
    }
}

fn ranges() -> Vec<KeyRange> {
    let names: [&[u8]; 5] = [
        b"\0",
        b"\0a\xff",
        b"a\0",
        b"aa\xff",
        b"\xff\xff\xff\xff\xff\xff\xff\xff",
    ];
    let names = names.map(Bytes::from_static);
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
    let mut compared = Compared::new();
    let operations: Vec<_> = operations().into_iter().map(Command::Keys).collect();
    let mut earlier = Vec::new();
    for (number, commands) in operations.chunks(TOGETHER).enumerate() {
        compared.run(commands.to_vec());
        if number.is_multiple_of(50) {
            compared.counts_agree(None);
            if let Some(&at) = earlier.last() {
                compared.counts_agree(Some(at));
            }
            earlier.push(compared.revision());
        }
    }
    compared.counts_agree(None);
    assert!(earlier.len() > 5 && earlier.is_sorted_by(|one, next| one < next));
    for &at in &earlier {
        compared.counts_agree(Some(at));
    }

    // Of what was given up nothing is left; the first revision that can be read is counted as before.
    let first = earlier[earlier.len() / 2];
    compared.run(vec![Command::Compact(Compact { revision: first })]);
    while compared.memory.globals().is_reclaiming() {
        let reclaim = untagged(Command::ReclaimVersions);
        let entry = proposal(compared.applied, 0, reclaim);
        compared.apply(&[entry]);
    }
    for &at in earlier.iter().filter(|at| **at >= first) {
        compared.counts_agree(Some(at));
    }

    let hash = compared.together.state.state_hash();
    assert_eq!(hash, compared.alone.state.state_hash());
    let computed = compared.together.state.computed_hash();
    assert_eq!(computed.unwrap(), hash.1, "the keys were counted again");
}

#[test]
fn what_is_known_of_parts_goes_with_the_state_that_a_snapshot_replaces() {
    let directory = tempfile::tempdir().unwrap();
    let behind = Member::open(directory.path());
    let mut compared = Compared::new();
    let made = |from, to| (from..to).map(|number| Command::Keys(put(key(number))));
    let everything = delete(KeyRange::From(Bytes::from_static(b"\0")));
    // Not seen by the one that is behind; then what it applies as the others do.
    let steps = [
        (made(0, 1_200).collect(), made(1_200, 1_300)),
        (
            [Command::Keys(everything)]
                .into_iter()
                .chain(made(0, 1_800))
                .collect(),
            made(1_800, 2_900),
        ),
    ];
    for (unseen, seen) in steps {
        compared.run(unseen);
        transfer(&compared.alone, &behind, 4_096);
        let entries = compared.run(seen.collect());
        behind.state.apply_all(entries).unwrap();
        let (hash, expected) = (behind.state.state_hash(), compared.alone.state.state_hash());
        assert_eq!(hash, expected);
        let computed = behind.state.computed_hash().unwrap();
        assert_eq!(computed, hash.1, "the keys were counted again");
    }
    compared.counts_agree(None);
    assert!(compared.memory.count_keys(&ranges()[1], None) > 0);
}
