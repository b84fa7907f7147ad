//! A restart at any moment changes nothing.

use std::ops::ControlFlow;

use bytes::Bytes;
use tally_model::{
    AtMost, Claim, EventId, Globals, HistoryEntry, KeyChanged, KeyRange, KeyValue, Lease, Node,
    Revision, View,
};
use tally_proto::storage::AppliedState;
use tally_storage::{LogBounds, StateStore};

use crate::member::{Member, copy_directory};
use crate::script;

/// Everything that can be asked of a state.
#[derive(Debug, PartialEq)]
pub(crate) struct Everything {
    applied: AppliedState,
    hash: (u64, u128),
    globals: Globals,
    nodes: Vec<Node>,
    claims: Vec<Claim>,
    history: Vec<HistoryEntry>,
    /// Keys as of every revision that can be read.
    keys: Vec<Vec<KeyValue>>,
    events: Vec<KeyChanged>,
    leases: Vec<(Lease, Vec<Bytes>)>,
}

/// Leases in the order in which they end, with their keys.
pub(crate) fn leases(view: &impl View) -> Vec<(Lease, Vec<Bytes>)> {
    let ids = view.leases_over(u64::MAX, usize::MAX).into_iter();
    ids.map(|id| (view.lease(id).unwrap(), view.lease_keys(id)))
        .collect()
}

/// Every key as of a revision, in order; counted as well.
pub(crate) fn keys_at(view: &impl View, at: Option<Revision>) -> Vec<KeyValue> {
    let all = KeyRange::From(Bytes::from_static(b"\0"));
    let mut found = Vec::new();
    view.scan_keys(&all, at, &mut |one| {
        found.push(one);
        ControlFlow::Continue(())
    });
    assert_eq!(view.count_keys(&all, at), found.len() as u64);
    for one in &found {
        let mut alone = Vec::new();
        view.scan_keys(&KeyRange::One(one.key.clone()), at, &mut |one| {
            alone.push(one);
            ControlFlow::Continue(())
        });
        assert_eq!(alone, std::slice::from_ref(one));
    }
    found
}

/// [`keys_at`] every revision that can be read, and then now.
pub(crate) fn keys(view: &impl View) -> Vec<Vec<KeyValue>> {
    let globals = view.globals();
    let readable = globals.compacted.0.max(1)..=globals.revision.0;
    let past = readable.map(|revision| keys_at(view, Some(Revision(revision))));
    past.chain([keys_at(view, None)]).collect()
}

pub(crate) fn events(view: &impl View) -> Vec<KeyChanged> {
    let last = EventId::last_of(view.globals().revision);
    view.keys_changed(EventId::NONE, last, AtMost::ALL)
}

pub(crate) fn everything(state: &StateStore) -> Everything {
    let (_, kept) = state.state_hash();
    assert_eq!(
        kept,
        state.computed_hash().unwrap(),
        "the kept hash is that of the rows"
    );
    state
        .with_view(|view| Everything {
            applied: view.applied(),
            hash: state.state_hash(),
            globals: view.globals(),
            nodes: view.nodes(),
            claims: view.claims_all(usize::MAX),
            history: view.history_after(Revision(0), None, usize::MAX),
            keys: keys(view),
            events: events(view),
            leases: leases(view),
        })
        .unwrap()
}

#[test]
fn a_clean_restart_at_every_step_gives_the_same_state() {
    let undisturbed = tempfile::tempdir().unwrap();
    let restarted = tempfile::tempdir().unwrap();
    let reference = Member::open(undisturbed.path());
    for entry in script::history() {
        reference.append(std::slice::from_ref(&entry));
        let expected = reference.replay();

        let member = Member::open(restarted.path());
        member.append(std::slice::from_ref(&entry));
        assert_eq!(member.replay(), expected);
        drop(member);

        let member = Member::open(restarted.path());
        assert_eq!(member.log.bounds(), reference.log.bounds());
        assert_eq!(everything(&member.state), everything(&reference.state));
    }
    assert_eq!(*reference.failures.lock().unwrap(), Vec::<String>::new());
}

#[test]
fn a_crash_at_every_step_is_made_good_by_the_log() {
    let directory = tempfile::tempdir().unwrap();
    let crashes = tempfile::tempdir().unwrap();
    let member = Member::open(directory.path());
    for (step, entry) in script::history().into_iter().enumerate() {
        member.append(std::slice::from_ref(&entry));
        member.replay();
        if step == 9 {
            member.state.flush().unwrap();
        }
        let crashed = crashes.path().join(step.to_string());
        copy_directory(directory.path(), &crashed);

        let recovered = Member::open(&crashed);
        assert_eq!(recovered.log.bounds(), member.log.bounds());
        let lost = recovered
            .state
            .applied()
            .last_applied
            .map_or(0, |id| id.index + 1);
        assert!(lost <= step as u64 + 1, "the state is not ahead of the log");
        recovered.replay();
        assert_eq!(everything(&recovered.state), everything(&member.state));
    }
}

#[test]
fn a_restart_of_the_log_alone_at_every_step_keeps_every_entry_and_the_vote() {
    let directory = tempfile::tempdir().unwrap();
    let history = script::history();
    for step in 0..history.len() {
        let member = Member::open(directory.path());
        assert_eq!(
            member.log.read(0..u64::MAX, usize::MAX).unwrap(),
            history[..step]
        );
        let vote = tally_proto::storage::Vote {
            term: step as u64 + 1,
            candidate: 7,
            committed: step % 2 == 0,
        };
        let (done, voted) = crate::member::outcome();
        member.log.save_vote(vote, done);
        member.append(&history[step..=step]);
        crate::member::wait(&voted).unwrap();
        member.log.save_committed(Some(script::id(step as u64)));
        drop(member);
        let member = Member::open(directory.path());
        assert_eq!(member.log.vote(), Some(vote));
        assert_eq!(member.log.committed(), Some(script::id(step as u64)));
        let expected = LogBounds {
            purged: None,
            last: Some(script::id(step as u64)),
        };
        assert_eq!(member.log.bounds(), expected);
    }
}

#[test]
fn a_restart_after_a_snapshot_and_a_purge_gives_the_same_state() {
    let directory = tempfile::tempdir().unwrap();
    let member = Member::open(directory.path());
    member.append(&script::history());
    member.replay();
    let snapshot = member.state.build_snapshot().unwrap();
    let through = snapshot
        .meta()
        .applied
        .as_ref()
        .unwrap()
        .last_applied
        .unwrap();
    let (done, purged) = crate::member::outcome();
    member.log.purge(through, done);
    crate::member::wait(&purged).unwrap();
    let before = everything(&member.state);
    drop((snapshot, member));

    let member = Member::open(directory.path());
    assert_eq!(everything(&member.state), before);
    assert_eq!(member.log.bounds().last, Some(through));
    let kept = member.state.current_snapshot().unwrap();
    assert_eq!(kept.meta().applied, Some(member.state.applied()));
}
