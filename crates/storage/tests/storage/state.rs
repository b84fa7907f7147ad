//! The state: views that do not move, refusals that change nothing, failures that stay.

use tally_model::{Answer, NodeId, Outcome, Revision, StorageState, View};
use tally_proto::storage::LogEntry;
use tally_storage::RECENT_HASHES_MAX;

use crate::member::Member;
use crate::script::{self, MARKER_A, blank, history, id};

fn applied_history(member: &Member) -> Vec<Answer> {
    history()
        .iter()
        .filter_map(|entry| member.state.apply(entry).unwrap())
        .collect()
}

#[test]
fn the_history_is_applied_as_the_model_says() {
    let directory = tempfile::tempdir().unwrap();
    let member = Member::open(directory.path());
    let answers = applied_history(&member);
    let [.., activated, repeated, stranger] = &answers[..7] else {
        panic!("the history has seven commands at its beginning");
    };
    assert!(
        matches!(activated.outcome, Outcome::Applied { .. }),
        "{activated:?}"
    );
    assert!(repeated.repeat, "{repeated:?}");
    assert!(
        matches!(stranger.outcome, Outcome::Refused(_)),
        "{stranger:?}"
    );
    let (node, claims) = member
        .state
        .with_view(|view| (view.node(NodeId(1)), view.claims(NodeId(1))))
        .unwrap();
    assert_eq!(node.unwrap().storage_state, StorageState::ReadOnly);
    assert_eq!(claims.len(), 1);
}

#[test]
fn of_a_batch_that_was_refused_nothing_stays_known() {
    let directory = tempfile::tempdir().unwrap();
    let refusing = Member::open(&directory.path().join("refusing"));
    let other = Member::open(&directory.path().join("other"));
    for entry in history() {
        let twice = [entry.clone(), entry.clone()];
        let refused = refusing.state.apply_all(twice).unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::InvalidInput);
        let answer = refusing.state.apply(&entry).unwrap();
        assert_eq!(answer, other.state.apply(&entry).unwrap());
    }
    assert_eq!(refusing.state.state_hash(), other.state.state_hash());
}

#[test]
fn a_view_does_not_move_while_entries_are_applied() {
    let directory = tempfile::tempdir().unwrap();
    let member = Member::open(directory.path());
    let history = history();
    let (before, after) = history.split_at(5);
    for entry in before {
        member.state.apply(entry).unwrap();
    }
    member
        .state
        .reader()
        .with_view(|view| {
            let revision = view.revision();
            for entry in after {
                member.state.apply(entry).unwrap();
            }
            assert_eq!(view.revision(), revision);
            assert_eq!(view.applied().last_applied, Some(id(4)));
            assert_eq!(view.nodes().len(), 1);
        })
        .unwrap();
    assert_eq!(
        member.state.with_view(|view| view.nodes().len()).unwrap(),
        2
    );
}

#[test]
fn pages_join_to_the_whole() {
    let directory = tempfile::tempdir().unwrap();
    let member = Member::open(directory.path());
    applied_history(&member);
    member
        .state
        .with_view(|view| {
            let whole = view.history_after(Revision(0), None, usize::MAX);
            let mut paged = Vec::new();
            while let [line, ..] = view
                .history_after(
                    paged
                        .last()
                        .map_or(Revision(0), |line: &tally_model::HistoryEntry| {
                            line.revision
                        }),
                    None,
                    1,
                )
                .as_slice()
            {
                paged.push(line.clone());
            }
            assert_eq!(paged, whole);
            for node in [1, 2] {
                let of_node: Vec<_> = whole
                    .iter()
                    .filter(|line| line.node == NodeId(node))
                    .cloned()
                    .collect();
                assert!(!of_node.is_empty());
                assert_eq!(
                    view.history_after(Revision(0), Some(NodeId(node)), usize::MAX),
                    of_node
                );
                assert_eq!(
                    view.history_after(of_node[0].revision, Some(NodeId(node)), 1),
                    of_node[1..2]
                );
            }
            assert_eq!(view.nodes_after(None, 1), view.nodes()[..1]);
            assert_eq!(view.nodes_after(Some(NodeId(1)), 9), view.nodes()[1..]);
            let claims = view.claims_all(9);
            assert_eq!(claims.len(), 1);
            assert_eq!(
                view.claims_after(Some((claims[0].node, claims[0].marker)), 9),
                []
            );
        })
        .unwrap();
}

#[test]
fn an_entry_is_applied_once() {
    let directory = tempfile::tempdir().unwrap();
    let member = Member::open(directory.path());
    member.state.apply(&blank(0)).unwrap();
    assert!(member.state.apply(&blank(0)).is_err());
    assert_eq!(
        member.state.failed(),
        None,
        "a refusal is not a failure of the disk"
    );
    member.state.apply(&blank(1)).unwrap();
}

#[test]
fn an_entry_that_cannot_be_decoded_stops_the_state() {
    let directory = tempfile::tempdir().unwrap();
    let member = Member::open(directory.path());
    applied_history(&member);
    let before = member.state.state_hash();
    let strange = LogEntry {
        id: Some(id(17)),
        payload: None,
    };
    assert!(member.state.apply(&strange).is_err());
    assert!(
        member.state.apply(&blank(17)).is_err(),
        "nothing is applied after it"
    );
    assert!(member.state.with_view(|view| view.nodes()).is_err());
    assert_eq!(member.state.state_hash(), before);
    assert_eq!(member.failures.lock().unwrap().len(), 1);
}

#[test]
fn recent_hashes_are_bounded_and_ascending() {
    let directory = tempfile::tempdir().unwrap();
    let member = Member::open(directory.path());
    let entries = RECENT_HASHES_MAX as u64 + 10;
    for index in 0..entries {
        member.state.apply(&blank(index)).unwrap();
    }
    let recent = member.state.recent_hashes();
    assert_eq!(recent.len(), RECENT_HASHES_MAX);
    assert_eq!(recent.first().unwrap().0, 10);
    assert_eq!(recent.last().unwrap().0, entries - 1);
}

#[test]
fn the_order_of_rows_does_not_matter_for_the_hash_and_their_content_does() {
    let directory = tempfile::tempdir().unwrap();
    let (one, other) = (directory.path().join("one"), directory.path().join("other"));
    let hash_of = |path: &std::path::Path, names: [&str; 2]| {
        let member = Member::open(path);
        for entry in &history()[..4] {
            member.state.apply(entry).unwrap();
        }
        for (index, name) in (4..).zip(names) {
            let request =
                script::tagged(2, index - 3, 1, MARKER_A, script::register(name, MARKER_A));
            member
                .state
                .apply(&script::proposal(index, 9_000, request))
                .unwrap();
        }
        member.state.state_hash().1
    };
    assert_ne!(
        hash_of(&one, ["a", "b"]),
        hash_of(&other, ["b", "a"]),
        "ids went to other names"
    );
}
