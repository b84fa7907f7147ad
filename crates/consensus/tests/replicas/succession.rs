//! Leaders whose process is gone, and leaders that are merely out of reach. Elections by timeout are
//! set so far off that none can happen here.

use std::time::Duration;

use tally_consensus::{ReplicaOptions, Role};
use tally_model::Outcome;

use crate::cluster::{Cluster, register, tagged, until};
use crate::soon;

/// Longer than any test: whoever is elected was not elected by a timeout.
fn no_timeouts(options: &mut ReplicaOptions) {
    options.election_ms = 60_000..=120_000;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_process_is_gone_is_succeeded_before_any_timeout() {
    let cluster = Cluster::founded_with(3, no_timeouts).await;
    let session = cluster.session(0).await;
    let old = cluster.leader().await;
    let before = cluster.replica(old).status().term;
    let others = [(old + 1) % 3, (old + 2) % 3];
    cluster.wire.kill(cluster.id(old));

    let leads = |index: usize| cluster.replica(index).status().role == Role::Leader;
    until("a successor", || others.iter().any(|&index| leads(index))).await;
    let answer = cluster
        .replica(others[0])
        .propose(tagged(session, 1, register("ls1")), soon())
        .await
        .unwrap();
    assert!(
        matches!(answer.outcome, Outcome::Applied { .. }),
        "{answer:?}"
    );
    let after = cluster.replica(others[0]).status().term;
    assert_eq!(
        after,
        before + 1,
        "one election, or they stood in each other's way"
    );
}

/// Whoever waited for its turn would find that it has come, long before the other one's vote is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_whose_questions_cross_elect_the_first_of_them() {
    let cluster = Cluster::founded_with(3, no_timeouts).await;
    cluster.states_agree().await;
    let old = cluster.leader().await;
    let before = cluster.replica(old).status().term;
    let others = [(old + 1) % 3, (old + 2) % 3];
    let first = others.into_iter().min_by_key(|&index| cluster.id(index));
    cluster.wire.slow_votes(Duration::from_millis(200));
    cluster.wire.kill(cluster.id(old));

    let leads = |index: usize| cluster.replica(index).status().role == Role::Leader;
    until("a successor", || others.iter().any(|&index| leads(index))).await;
    assert!(first.is_some_and(leads), "the other one leads");
    for index in others {
        assert_eq!(cluster.replica(index).status().term, before + 1);
    }
}

/// It would come first, and the majority that is left is no larger than it must be.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_five_that_is_silent_is_not_waited_for_until_an_election_times_out() {
    let cluster = Cluster::founded_with(5, no_timeouts).await;
    cluster.states_agree().await;
    let old = cluster.leader().await;
    let before = cluster.replica(old).status().term;
    let others = Vec::from_iter((0..5).filter(|&index| index != old));
    let first = others.iter().min_by_key(|&&index| cluster.id(index));
    cluster.wire.silence(cluster.id(*first.unwrap()));
    cluster.wire.kill(cluster.id(old));

    let leads = |index: usize| cluster.replica(index).status().role == Role::Leader;
    until("a successor", || others.iter().any(|&index| leads(index))).await;
    let leader = others.iter().find(|&&index| leads(index)).unwrap();
    assert_eq!(cluster.replica(*leader).status().term, before + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_out_of_reach_but_not_gone_stays_leader() {
    let cluster = Cluster::founded_with(3, no_timeouts).await;
    let session = cluster.session(0).await;
    let leader = cluster.leader().await;
    let before = cluster.replica(leader).status().term;
    let others = [(leader + 1) % 3, (leader + 2) % 3];
    cluster.wire.cut_from(cluster.id(leader));
    until("both followers have looked for it", || {
        let spared = |index: usize| cluster.replica(index).counters().leaders_spared;
        others.iter().all(|&index| spared(index) > 0)
    })
    .await;

    cluster.wire.heal();
    let follower = cluster.replica(others[0]);
    let request = tagged(session, 1, register("ls1"));
    follower.propose(request, soon()).await.unwrap();
    assert_eq!(cluster.leader().await, leader);
    assert_eq!(follower.status().term, before);
    assert_eq!(follower.counters().leaders_gone, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_member_that_cannot_reach_the_leader_does_not_depose_it() {
    let cluster = Cluster::founded_with(3, no_timeouts).await;
    let session = cluster.session(0).await;
    let leader = cluster.leader().await;
    let before = cluster.replica(leader).status().term;
    let blind = (leader + 1) % 3;
    // It alone is told that nobody listens at the leader's address, as by a firewall that rejects.
    cluster.wire.reject(cluster.id(blind), cluster.id(leader));
    until("it takes the leader for gone", || {
        cluster.replica(blind).counters().leaders_gone > 0
    })
    .await;

    let third = cluster.replica((leader + 2) % 3);
    let request = tagged(session, 1, register("ls1"));
    third.propose(request, soon()).await.unwrap();
    cluster.wire.heal();
    cluster.states_agree().await;
    assert_eq!(cluster.leader().await, leader);
    assert_eq!(third.status().term, before);
}
