//! Whatever is asked, in whatever order: the disk gives what memory gives, and a snapshot with the
//! rest of the log gives what the whole log gives.

use proptest::prelude::*;
use tally_model::lease::PassLeaseTime;
use tally_model::memory::MemoryState;
use tally_model::{Command, Marker, Request, Revision, Settings, Stamp, StorageState, View, keys};
use tally_proto::convert::decode_request;
use tally_proto::storage::LogEntry;
use tally_storage::SnapshotPiece;

use crate::drawn;
use crate::member::Member;
use crate::restart::{events, everything, keys as all_keys, leases};
use crate::script::{
    activate, blank, found, membership, open_session, proposal, register, set_state, tagged,
    untagged,
};

/// Something to put into the log.
#[derive(Clone, Debug)]
enum Step {
    Request(Box<Request>, u64),
    /// What one of the first sessions asks for under its next tag, while its latest few answers are not acknowledged.
    Next {
        session: u64,
        unacknowledged: u64,
        command: Box<Command>,
        later: u64,
    },
    Membership,
    Blank,
}

/// Sessions that are opened before the steps, each under the marker of its number.
const SESSIONS: u64 = 3;
/// Entries before theirs.
const BEFORE_SESSIONS: u64 = 2;

fn marker_of(session: u64) -> Marker {
    Marker {
        bits: session.into(),
        created_unix_ms: 1,
    }
}

fn marker() -> impl Strategy<Value = Marker> {
    (1..=SESSIONS).prop_map(marker_of)
}

fn command() -> impl Strategy<Value = Command> {
    let names = prop::sample::select(vec!["ls1", "ls2", "ls3"]);
    prop_oneof![
        4 => (names, marker()).prop_map(|(name, marker)| register(name, marker)),
        4 => (1..4_u32, marker(), 1..3_u64)
            .prop_map(|(node, marker, incarnation)| activate(node, marker, incarnation)),
        4 => (1..4_u32, prop::sample::select(StorageState::ALL.to_vec()), 1..12_u64)
            .prop_map(|(node, to, expected)| set_state(node, to, expected)),
        1 => Just(Command::CloseSession),
        1 => Just(Command::SettleRequest),
        20 => drawn::asked(),
    ]
}

fn pass_time() -> impl Strategy<Value = Command> {
    let from = prop::sample::select(vec![0, 1_000, 2_000, 3_000, 4_000]);
    (1..3_u64, from).prop_map(|(term, from_ms)| {
        Command::PassLeaseTime(PassLeaseTime {
            term,
            from_ms,
            passed_ms: 1_000,
        })
    })
}

fn step() -> impl Strategy<Value = Step> {
    let request = prop_oneof![
        2 => marker().prop_map(|marker| untagged(open_session(marker))),
        1 => Just(untagged(Command::ReclaimVersions)),
        1 => prop::sample::select(drawn::LEASES.to_vec())
            .prop_map(|lease| untagged(Command::RenewLease(lease))),
        3 => pass_time().prop_map(untagged),
        4 => (2..8_u64, 1..8_u64, 1..4_u64, marker(), command()).prop_map(
            |(session, sequence, acknowledged, marker, command)| {
                tagged(session, sequence, acknowledged, marker, command)
            }
        ),
    ];
    let next = (1..=SESSIONS, 0..3_u64, command(), 0..3_000_u64);
    prop_oneof![
        12 => next.prop_map(|(session, unacknowledged, command, later)| Step::Next {
            session,
            unacknowledged,
            command: Box::new(command),
            later,
        }),
        12 => (request, 0..3_000_u64).prop_map(|(request, unix_ms)| Step::Request(Box::new(request), unix_ms)),
        1 => Just(Step::Membership),
        1 => Just(Step::Blank),
    ]
}

/// A founded cluster with bounds so small that they are reached, a few sessions, then the steps.
fn log(steps: &[Step]) -> Vec<LogEntry> {
    let settings = Settings {
        session_idle_ms: 2_000,
        sessions_max: 4,
        outcomes_per_session_max: 3,
        ..Settings::default()
    };
    let first = [
        Step::Membership,
        Step::Request(Box::new(untagged(found(settings))), 0),
    ];
    let sessions = (1..=SESSIONS).map(|session| {
        let open = untagged(open_session(marker_of(session)));
        Step::Request(Box::new(open), 0)
    });
    let mut sequences = [0_u64; SESSIONS as usize + 1];
    let mut now = 1_000;
    let entry = |(index, step): (u64, Step)| match step {
        Step::Request(request, later) => {
            now += later / 10;
            proposal(index, now, *request)
        }
        Step::Next {
            session,
            unacknowledged,
            command,
            later,
        } => {
            now += later / 10;
            let sequence = &mut sequences[usize::try_from(session).unwrap()];
            *sequence += 1;
            let acknowledged = sequence.saturating_sub(unacknowledged).max(1);
            let (id, marker) = (BEFORE_SESSIONS - 1 + session, marker_of(session));
            let request = tagged(id, *sequence, acknowledged, marker, *command);
            proposal(index, now, request)
        }
        Step::Membership => membership(index, &[7, index + 10]),
        Step::Blank => blank(index),
    };
    (0..)
        .zip(
            first
                .into_iter()
                .chain(sessions)
                .chain(steps.iter().cloned()),
        )
        .map(entry)
        .collect()
}

pub(crate) fn transfer(from: &Member, to: &Member, chunk_bytes: usize) {
    let snapshot = from.state.build_snapshot().unwrap();
    let mut receiver = to.state.receive(snapshot.meta().clone()).unwrap();
    for piece in snapshot.frames(chunk_bytes) {
        match piece.unwrap() {
            SnapshotPiece::Chunk { file, offset, data } => {
                receiver.write(&file, offset, &data).unwrap()
            }
            SnapshotPiece::End { digest } => {
                let received = receiver.finish(&digest).unwrap();
                return to.state.install(&received).unwrap();
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn a_snapshot_plus_the_tail_equals_the_whole_log(
        steps in prop::collection::vec(step(), 1..60),
        cut in any::<prop::sample::Index>(),
        seen in any::<prop::sample::Index>(),
        chunk_bytes in 1..5_000_usize,
    ) {
        let directory = tempfile::tempdir().unwrap();
        let whole = Member::open(&directory.path().join("whole"));
        let behind = Member::open(&directory.path().join("behind"));
        let entries = log(&steps);
        let cut = cut.index(entries.len()) + 1;
        let (before, after) = entries.split_at(cut);
        for entry in before {
            whole.state.apply(entry).unwrap();
        }
        // What it knew of rows before goes with the state that is replaced.
        for entry in &before[..seen.index(cut)] {
            behind.state.apply(entry).unwrap();
        }
        transfer(&whole, &behind, chunk_bytes);
        let one_by_one = after.iter().map(|entry| whole.state.apply(entry).unwrap());
        let expected: Vec<_> = one_by_one.collect();
        prop_assert_eq!(behind.state.apply_all(after.to_vec()).unwrap(), expected);
        let latest = |state: &tally_storage::StateStore| {
            let hashes = state.recent_hashes().into_iter().rev();
            hashes.take(after.len()).collect::<Vec<_>>()
        };
        prop_assert_eq!(latest(&behind.state), latest(&whole.state));
        prop_assert_eq!(everything(&behind.state), everything(&whole.state));
        prop_assert_eq!(whole.state.computed_hash().unwrap(), whole.state.state_hash().1);
    }

    #[test]
    fn the_disk_gives_what_memory_gives(
        steps in prop::collection::vec(step(), 1..60),
        together in 1..20_usize,
        asked in prop::collection::vec(drawn::op(), 1..20),
    ) {
        let directory = tempfile::tempdir().unwrap();
        let member = Member::open(directory.path());
        let mut memory = MemoryState::default();
        let entries = log(&steps);
        let answers = entries
            .chunks(together)
            .flat_map(|entries| member.state.apply_all(entries.to_vec()).unwrap());
        for ((index, entry), answer) in (0..).zip(&entries).zip(answers) {
            if let Some(tally_proto::storage::log_entry::Payload::Proposal(proposal)) = &entry.payload {
                let request = decode_request(proposal.request.clone()).unwrap();
                let expected = memory.apply(Stamp { index, unix_ms: proposal.unix_ms }, &request);
                prop_assert_eq!(answer, Some(expected));
            }
        }
        member.state.with_view(|view| {
            assert_eq!(view.globals(), memory.globals());
            assert_eq!(view.nodes(), memory.nodes());
            assert_eq!(all_keys(view), all_keys(&memory));
            assert_eq!(events(view), events(&memory));
            assert_eq!(leases(view), leases(&memory));
            for op in &asked {
                assert_eq!(keys::read(view, op), keys::read(&memory, op), "{op:?}");
            }
            let listed = view.leases_after(None, usize::MAX);
            assert_eq!(listed.len() as u64, memory.globals().leases);
            for changed in events(view) {
                let (key, at) = (&changed.key, changed.id);
                assert_eq!(view.version_before(key, at), memory.version_before(key, at));
            }
            assert_eq!(view.history_after(Revision(0), None, usize::MAX), memory.history());
            for node in memory.nodes() {
                assert_eq!(view.claims(node.id), memory.claims(node.id));
                assert_eq!(view.node_by_name(&node.name), Some(node));
            }
            assert_eq!(view.least_recently_used_session(), memory.least_recently_used_session());
        }).unwrap();
    }
}
