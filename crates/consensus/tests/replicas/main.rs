//! Replicas in one process, over real stores and a network that can be cut.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cluster;
mod replacing;
mod succession;
mod wire;

use std::time::{Duration, Instant};

use cluster::{Cluster, register, set_state, tagged, until};
use tally_consensus::{Consistency, NotAccepted, ProposeError, ReadError, Role};
use tally_model::{Effect, Outcome, StorageState, View};

/// Far longer than anything here takes.
fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_is_answered_by_every_member_and_applied_once() {
    let cluster = Cluster::founded(3).await;
    let session = cluster.session(0).await;
    let request = tagged(session, 1, register("ls1"));
    let mut answers = Vec::new();
    for replica in cluster.replicas() {
        answers.push(replica.propose(request.clone(), soon()).await.unwrap());
    }
    assert!(
        matches!(answers[0].outcome, Outcome::Applied { .. }),
        "{:?}",
        answers[0]
    );
    for answer in &answers[1..] {
        assert!(
            matches!(answer.outcome, Outcome::Replayed { .. }),
            "{answer:?}"
        );
        assert!(answer.repeat);
    }
    cluster.states_agree().await;
    assert_eq!(cluster.history(0).len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_is_under_way_survives_the_loss_of_its_leader() {
    let cluster = Cluster::founded(3).await;
    let session = cluster.session(0).await;
    for round in 1..=5 {
        let leader = cluster.leader().await;
        let follower = (leader + 1) % 3;
        let replica = cluster.replica(follower);
        // The leader appends it and cannot tell anyone.
        cluster.wire.cut_from(cluster.id(leader));
        let request = tagged(session, round, register(&format!("ls{round}")));
        let answer = replica.propose(request, soon()).await.unwrap();
        assert!(
            matches!(
                answer.outcome,
                Outcome::Applied {
                    effect: Effect::NodeRegistered { .. },
                    ..
                } | Outcome::Replayed {
                    effect: Effect::NodeRegistered { .. },
                    ..
                }
            ),
            "{answer:?}"
        );
        cluster.wire.heal();
        cluster.states_agree().await;
        assert_eq!(cluster.history(follower).len() as u64, round);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_on_a_follower_sees_what_was_answered_before() {
    let cluster = Cluster::founded(3).await;
    let session = cluster.session(0).await;
    for round in 1..=20 {
        let name = format!("ls{round}");
        let writer = cluster.replica(round as usize % 3);
        writer
            .propose(tagged(session, round, register(&name)), soon())
            .await
            .unwrap();
        let reader = cluster.replica((round as usize + 1) % 3);
        let read = reader
            .read(Consistency::Linearizable, soon())
            .await
            .unwrap();
        let nodes = read.with_view(|view| view.nodes().len()).unwrap();
        assert_eq!(nodes as u64, round);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_reads_share_rounds() {
    let cluster = Cluster::founded(3).await;
    let follower = (cluster.leader().await + 1) % 3;
    let replica = cluster.replica(follower);
    let before = replica.counters();
    let reads = (0..500).map(|_| replica.read(Consistency::Linearizable, soon()));
    for read in futures::future::join_all(reads).await {
        read.unwrap();
    }
    let after = replica.counters();
    assert_eq!(after.reads - before.reads, 500);
    let rounds = after.read_rounds - before.read_rounds;
    assert!((1..=10).contains(&rounds), "{rounds} rounds for 500 reads");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_is_cut_off_refuses_what_it_cannot_promise() {
    let cluster = Cluster::founded(3).await;
    let session = cluster.session(0).await;
    let leader = cluster.leader().await;
    cluster.wire.cut_from(cluster.id(leader));
    let replica = cluster.replica(leader);
    until("the old leader gives up", || {
        replica.status().role != Role::Leader
    })
    .await;
    let little = || Instant::now() + Duration::from_millis(300);
    let read = replica.read(Consistency::Linearizable, little()).await;
    assert_eq!(read.err(), Some(ReadError::NoLeader));
    replica.read(Consistency::Stale, little()).await.unwrap();
    let refused = replica
        .propose(tagged(session, 1, register("ls1")), little())
        .await;
    assert_eq!(refused, Err(NotAccepted::NoLeader.into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_may_have_been_appended_is_not_called_refused() {
    let cluster = Cluster::founded(3).await;
    let session = cluster.session(0).await;
    let leader = cluster.leader().await;
    let replica = cluster.replica(leader);
    cluster.wire.cut_from(cluster.id(leader));
    // It still believes that it leads, appends, and hears nothing.
    let request = tagged(session, 1, register("ls1"));
    let deadline = Instant::now() + Duration::from_millis(150);
    let outcome = replica.propose(request.clone(), deadline).await;
    assert_eq!(outcome, Err(ProposeError::Unknown));
    cluster.wire.heal();
    let answer = replica.propose(request, soon()).await.unwrap();
    assert!(!matches!(answer.outcome, Outcome::Refused(_)), "{answer:?}");
    cluster.states_agree().await;
    assert_eq!(cluster.history(leader).len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_many_commands_are_turned_away_and_never_applied() {
    let cluster = Cluster::founded_with(3, |options| options.inflight_max = 4).await;
    let session = cluster.session(0).await;
    let leader = cluster.leader().await;
    let replica = cluster.replica(leader);
    let sent = (1..=64).map(|sequence| {
        let request = tagged(session, sequence, register(&format!("ls{sequence}")));
        replica.propose(request, soon())
    });
    let results = futures::future::join_all(sent).await;
    let (mut done, mut refused) = (0, 0);
    for result in results {
        match result {
            Ok(_) => done += 1,
            Err(error) => {
                assert_eq!(error, NotAccepted::Overloaded.into());
                refused += 1;
            }
        }
    }
    assert!(done >= 4 && refused >= 1, "{done} done, {refused} refused");
    assert_eq!(replica.counters().overloaded, refused);
    cluster.states_agree().await;
    assert_eq!(cluster.history(leader).len(), done);
}

/// All that two members have room for turns to the next leader at a time, which has no more room than each of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_leader_without_room_is_asked_again() {
    const ROOM: u64 = 4;
    let cluster = Cluster::founded_with(3, |options| options.inflight_max = ROOM as usize).await;
    let session = cluster.session(0).await;
    let mut sequence = 0;
    for _ in 0..5 {
        let leader = cluster.leader().await;
        cluster.wire.cut_from(cluster.id(leader));
        let mut sent = Vec::new();
        for other in [(leader + 1) % 3, (leader + 2) % 3] {
            for _ in 0..ROOM {
                sequence += 1;
                let request = tagged(session, sequence, register(&format!("ls{sequence}")));
                let replica = cluster.replica(other);
                sent.push(async move { replica.propose(request, soon()).await });
            }
        }
        for answer in futures::future::join_all(sent).await {
            let outcome = answer.expect("the deadline has room").outcome;
            assert!(!matches!(outcome, Outcome::Refused(_)), "{outcome:?}");
        }
        cluster.wire.heal();
        cluster.states_agree().await;
    }
    assert_eq!(cluster.history(0).len() as u64, sequence);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_missed_more_than_the_log_holds_catches_up_by_snapshot() {
    let cluster = Cluster::founded_with(3, |options| {
        options.snapshot_entries = 20;
        options.keep_entries = 0;
    })
    .await;
    let session = cluster.session(0).await;
    let leader = cluster.leader().await;
    let late = (leader + 1) % 3;
    cluster.wire.cut_from(cluster.id(late));
    let missed = cluster.replica(late).status().last_log_index;
    for sequence in 1..=100 {
        let request = tagged(session, sequence, register(&format!("ls{sequence}")));
        cluster
            .replica(leader)
            .propose(request, soon())
            .await
            .unwrap();
    }
    let replica = cluster.replica(leader);
    until("the log is purged", || {
        replica.status().purged_index > missed
    })
    .await;
    cluster.wire.heal();
    cluster.states_agree().await;
    assert_eq!(cluster.history(late).len(), 100);
    // The state has moved before openraft tells of it.
    until("the snapshot is told of", || {
        cluster.replica(late).status().snapshot_index > missed
    })
    .await;
}

/// The others had made its last entries durable, and it had not yet when it ended. Its log begins after its state then, and
/// whoever lags behind needs a snapshot of that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_whose_state_was_ahead_of_its_log_brings_others_forward() {
    let mut cluster = Cluster::founded(3).await;
    let session = cluster.session(0).await;
    let leader = cluster.leader().await;
    let (ahead, behind) = ((leader + 1) % 3, (leader + 2) % 3);
    // Where there is none, openraft builds one by itself.
    let earlier = cluster.replica(ahead).stores().state.build_snapshot();
    drop(earlier.unwrap());
    cluster.wire.cut_from(cluster.id(behind));
    for round in 1..=10 {
        let register = tagged(session, round, register(&format!("ls{round}")));
        let proposed = cluster.replica(leader).propose(register, soon()).await;
        proposed.unwrap();
    }
    let applied = |cluster: &Cluster, index| {
        let stores = cluster.replica(index).stores().clone();
        stores.state.state_hash().0
    };
    let last = applied(&cluster, leader);
    until("the follower has applied all", || {
        applied(&cluster, ahead) == last
    })
    .await;
    cluster.replica(ahead).stores().state.flush().unwrap();
    cluster
        .restart_after(ahead, |stores| {
            assert_eq!(stores.state.state_hash().0, last);
            let (done, lost) = std::sync::mpsc::channel();
            let result = move |result| done.send(result).unwrap();
            stores.log.truncate_after(Some(last - 5), result);
            lost.recv().unwrap().unwrap();
        })
        .await;
    // Two of three are there, and whichever leads may lose an election to the other while it hands over.
    let (heir, deadline) = (cluster.name(ahead), soon());
    loop {
        let leader = cluster.leader().await;
        if leader == ahead {
            break;
        }
        let moved = cluster.replica(leader);
        let moved = moved.transfer_leader(Some(&heir), deadline).await;
        assert!(Instant::now() < deadline, "{moved:?}");
    }
    cluster.wire.heal();
    cluster.states_agree().await;
    assert_eq!(cluster.history(behind).len(), 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_moves_to_the_voter_that_is_named() {
    let cluster = Cluster::founded(3).await;
    for _ in 0..4 {
        let leader = cluster.leader().await;
        let next = (leader + 1) % 3;
        let name = cluster.name(next);
        let moved = cluster
            .replica(leader)
            .transfer_leader(Some(&name), soon())
            .await;
        assert_eq!(moved.unwrap().id, cluster.id(next));
        assert_eq!(cluster.leader().await, next);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_comes_back_disturbs_no_leader() {
    let cluster = Cluster::founded(3).await;
    let leader = cluster.leader().await;
    let term = cluster.replica(leader).status().term;
    let away = (leader + 1) % 3;
    cluster.wire.cut_from(cluster.id(away));
    let replica = cluster.replica(away);
    until("it knows no leader", || replica.status().leader.is_none()).await;
    // Several elections could have been lost by now; with pre-vote there was none.
    tokio::time::sleep(Duration::from_secs(2)).await;
    cluster.wire.heal();
    until("it follows again", || {
        replica.status().leader == Some(cluster.id(leader))
    })
    .await;
    assert_eq!(cluster.replica(leader).status().term, term);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_whose_state_differs_is_found_out() {
    let cluster = Cluster::founded(3).await;
    cluster.wire.lie_about_hashes_of(cluster.id(2));
    let honest = cluster.replica(0);
    until("the mismatch is noticed", || {
        !honest.hash_mismatches().is_empty()
    })
    .await;
    let found = honest.hash_mismatches();
    assert!(
        found
            .iter()
            .all(|mismatch| mismatch.member == cluster.id(2)),
        "{found:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_replica_goes_on_where_it_was() {
    let mut cluster = Cluster::founded(3).await;
    let session = cluster.session(0).await;
    let register = tagged(session, 1, register("ls1"));
    let first = cluster
        .replica(0)
        .propose(register.clone(), soon())
        .await
        .unwrap();
    for index in 0..3 {
        cluster.restart(index).await;
    }
    cluster.leader().await;
    let again = cluster.replica(1).propose(register, soon()).await.unwrap();
    let (Outcome::Applied { revision, .. }, Outcome::Replayed { since, .. }) =
        (&first.outcome, &again.outcome)
    else {
        panic!("{first:?}, {again:?}");
    };
    assert_eq!(revision, since);
    // A disabled node stays one: the transition is in the log, not in memory.
    let disable = tagged(session, 2, set_state(1, StorageState::Disabled, *revision));
    let leader = cluster.leader().await;
    let follower = (leader + 1) % 3;
    cluster
        .replica(follower)
        .propose(disable, soon())
        .await
        .unwrap();
    cluster.restart(leader).await;
    let read = cluster
        .replica(leader)
        .read(Consistency::Linearizable, soon())
        .await
        .unwrap();
    let node = read
        .with_view(|view| view.node(tally_model::NodeId(1)))
        .unwrap()
        .unwrap();
    assert_eq!(node.storage_state, StorageState::Disabled);
}

/// A leader sends entries before they are on its own disk. One that is killed may have lost some that
/// the others have; going on in its old term it would give their indices to other entries.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_leader_does_not_go_on_in_its_old_term() {
    let mut cluster = Cluster::founded(3).await;
    for _ in 0..3 {
        let leader = cluster.leader().await;
        let term = cluster.replica(leader).status().term;
        cluster.restart(leader).await;
        let next = cluster.leader().await;
        let now = cluster.replica(next).status().term;
        assert!(now > term, "term {now} after {term}");
    }
}

/// A paused leader finds answers in its sockets that were given before another one was elected. They are no sign
/// that it leads now, although it has sent other requests since, which end at the same entry.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_from_before_an_election_confirm_no_read_after_it() {
    let cluster = Cluster::founded(3).await;
    let session = cluster.session(0).await;
    let old = cluster.leader().await;
    let others = [(old + 1) % 3, (old + 2) % 3];
    cluster.states_agree().await;
    // Of the entry after this one the old leader has no answer yet: it is committed when that comes.
    let before = cluster.replica(others[0]).status().last_log_index;
    cluster.wire.hold_answers(cluster.id(old));
    let unanswered = tokio::spawn({
        let replica = cluster.replica(old).clone();
        async move {
            replica
                .propose(tagged(session, 1, register("ls1")), soon())
                .await
        }
    });
    until("both have the entry", || {
        let last = |index: usize| cluster.replica(index).status().last_log_index;
        others.iter().all(|&index| last(index) > before)
    })
    .await;
    cluster.wire.hold(cluster.id(old));
    let leads = |index: usize| cluster.replica(index).status().role == Role::Leader;
    until("another leader", || {
        others.iter().any(|&index| leads(index))
    })
    .await;
    let new = others.into_iter().find(|&index| leads(index)).unwrap();
    let change = tagged(session, 2, register("ls2"));
    cluster.replica(new).propose(change, soon()).await.unwrap();

    // It has not heard of any of this, and answers the read when it hears what was said before.
    let reading = tokio::spawn({
        let replica = cluster.replica(old).clone();
        let deadline = Instant::now() + Duration::from_secs(3);
        async move { replica.read(Consistency::Linearizable, deadline).await }
    });
    until("the read waits", || {
        cluster.replica(old).counters().reads > 0
    })
    .await;
    cluster.wire.deliver_answers();
    if let Ok(reader) = reading.await.unwrap() {
        let nodes = reader.with_view(|view| view.nodes().len()).unwrap();
        assert_eq!(
            nodes, 2,
            "the read does not see what was answered before it began"
        );
    }
    cluster.wire.let_pass();
    let _ = unanswered.await.unwrap();
    cluster.states_agree().await;
}
