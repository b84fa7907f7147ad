//! What must hold of every log, whatever is in it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use proptest::prelude::*;
use tally_model::command::{
    ActivateNode, Force, Found, OpenSession, RegisterNode, SetStorageState,
};
use tally_model::memory::MemoryState;
use tally_model::{
    Actor, ClusterId, Command, Event, Incarnation, Location, Marker, NodeId, NodeName, Outcome,
    Request, Revision, SessionId, Settings, Stamp, StorageState, Tag, Tagged, View,
};

const SESSIONS: u64 = 4;

fn marker(which: u8) -> Marker {
    Marker {
        bits: u128::from(which),
        created_unix_ms: 7,
    }
}

fn command() -> impl Strategy<Value = Command> {
    let name = (0..3u8).prop_map(|n| NodeName::new(format!("ls{n}")).unwrap());
    let node = (1..4u32).prop_map(NodeId);
    let state = (0..StorageState::ALL.len()).prop_map(|n| StorageState::ALL[n]);
    let actor = prop_oneof![
        (0..3u8, 1..4u64).prop_map(|(m, i)| Actor::Node {
            marker: marker(m),
            incarnation: Incarnation(i)
        }),
        (proptest::option::of(1..40u64), proptest::option::of(0..3u8)).prop_map(
            |(revision, force)| {
                Actor::Operator {
                    expected_revision: revision.map(Revision),
                    force: force.map(|n| Force {
                        confirm_name: format!("ls{n}"),
                    }),
                }
            }
        ),
    ];
    prop_oneof![
        4 => (name, proptest::option::of(0..3u8)).prop_map(|(name, m)| {
            Command::RegisterNode(RegisterNode {
                name,
                marker: m.map(marker),
                address: String::new(),
                location: Location::default(),
            })
        }),
        6 => (node.clone(), 0..3u8, 1..4u64).prop_map(|(node, m, i)| {
            Command::ActivateNode(ActivateNode { node, marker: marker(m), incarnation: Incarnation(i), attempt: 1 })
        }),
        4 => (node, state, actor).prop_map(|(node, to, actor)| {
            Command::SetStorageState(SetStorageState { node, to, actor, reason: "because".to_owned() })
        }),
        1 => Just(Command::SettleRequest),
        1 => Just(Command::CloseSession),
    ]
}

/// A founded cluster with open sessions, then tagged requests. Every sequence is used once.
fn log() -> impl Strategy<Value = Vec<Request>> {
    proptest::collection::vec((0..SESSIONS, command(), 0..4u64), 1..60).prop_map(|asked| {
        let settings = Settings {
            outcomes_per_session_max: 8,
            ..Settings::default()
        };
        let mut log = vec![Request {
            tagged: None,
            command: Command::Found(Found {
                cluster: ClusterId(1),
                settings,
            }),
        }];
        for session in 0..SESSIONS {
            let marker = marker(100 + u8::try_from(session).unwrap());
            log.push(Request {
                tagged: None,
                command: Command::OpenSession(OpenSession { marker }),
            });
        }
        let mut next = [1; SESSIONS as usize];
        for (session, command, lag) in asked {
            let sequence = &mut next[usize::try_from(session).unwrap()];
            log.push(Request {
                tagged: Some(Tagged {
                    tag: Tag {
                        session: SessionId(session + 2),
                        sequence: *sequence,
                    },
                    marker: Some(marker(100 + u8::try_from(session).unwrap())),
                    acknowledged: sequence.saturating_sub(lag).max(1),
                    digest: u128::from(*sequence) << 64 | u128::from(session),
                }),
                command,
            });
            *sequence += 1;
        }
        log
    })
}

fn run(log: &[Request]) -> MemoryState {
    let mut state = MemoryState::default();
    for (index, request) in (1..).zip(log) {
        state.apply(
            Stamp {
                index,
                unix_ms: 1_000 + index,
            },
            request,
        );
    }
    state
}

proptest! {
    #[test]
    fn the_same_log_gives_the_same_state(log in log()) {
        prop_assert_eq!(run(&log), run(&log));
    }

    /// A request that arrives again, at any later time, changes nothing and is told what it was
    /// told the first time, or that this is forgotten.
    #[test]
    fn a_repeat_changes_nothing(log in log(), picks in proptest::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 1..20)) {
        let mut once = MemoryState::default();
        let mut twice = MemoryState::default();
        let mut answers = Vec::new();
        let mut repeats: Vec<(usize, usize)> = picks
            .iter()
            .map(|(which, when)| {
                let which = which.index(log.len());
                (which + when.index(log.len() - which), which)
            })
            .filter(|(_, which)| log[*which].tagged.is_some())
            .collect();
        repeats.sort_unstable();
        for (at, (index, request)) in (1..).zip(&log).enumerate() {
            let stamp = Stamp { index, unix_ms: 1_000 };
            answers.push(once.apply(stamp, request).outcome);
            twice.apply(stamp, request);
            for (_, which) in repeats.iter().filter(|(when, _)| *when == at) {
                let before = twice.clone();
                let again = twice.apply(Stamp { index: 10_000 + index, unix_ms: 1_000 }, &log[*which]);
                let unanswered = matches!(&answers[*which], Outcome::Refused(r) if r.code() == "T-204");
                if unanswered {
                    // It was told to come again under the same tag, so it may take effect now; keep
                    // the two runs in step.
                    once = twice.clone();
                    continue;
                }
                prop_assert_eq!(&before, &twice, "a repeat changed the state");
                match (&answers[*which], &again.outcome) {
                    (Outcome::Applied { revision, effect }, Outcome::Replayed { since, effect: again }) => {
                        prop_assert_eq!((revision, effect), (since, again));
                    }
                    (_, Outcome::Refused(refusal)) if ["T-201", "T-203"].contains(&refusal.code()) => {}
                    (first, again) => prop_assert_eq!(first, again),
                }
            }
        }
        prop_assert_eq!(once, twice);
    }

    #[test]
    fn the_history_is_chained_and_each_revision_stands_in_it_at_most_once(log in log()) {
        let state = run(&log);
        let mut previous = [0; 32];
        let mut last = Revision::EMPTY;
        for entry in state.history() {
            prop_assert_eq!(entry.hash, entry.hash_after(&previous));
            prop_assert!(entry.revision > last, "{} after {}", entry.revision, last);
            previous = entry.hash;
            last = entry.revision;
        }
        prop_assert!(last <= state.globals().revision);
    }

    /// Each node is activated at most once, and the marker that did it stays.
    #[test]
    fn a_node_is_activated_once_and_its_marker_never_changes(log in log()) {
        let mut state = MemoryState::default();
        let mut bound = std::collections::BTreeMap::new();
        for (index, request) in (1..).zip(&log) {
            state.apply(Stamp { index, unix_ms: 1_000 }, request);
            for node in state.nodes() {
                if let Some(binding) = node.binding {
                    let first = *bound.entry(node.id).or_insert(binding);
                    prop_assert_eq!(first, binding);
                }
            }
        }
        for node in state.nodes() {
            let activations = state.history().iter().filter(|entry| {
                entry.node == node.id
                    && matches!(entry.event, Event::Transitioned { from: StorageState::Provisioning, to: StorageState::ReadWrite, forced: false, .. })
            });
            let back = state.history().iter().any(|entry| {
                entry.node == node.id
                    && matches!(entry.event, Event::Transitioned { to: StorageState::Provisioning, .. })
            });
            prop_assert!(back || activations.count() <= 1);
        }
    }
}
