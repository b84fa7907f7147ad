//! The leader's process ends, by itself or by force, and is succeeded without an election timeout;
//! one that is merely paused is not. Timeouts are so long here that no election comes from one.

use std::time::Duration;

use anyhow::{Result, ensure};
use tally_proto::v1::Role;
use tally_testkit::{AnswerExt, Cluster, Requester, send_until_answered, until};

/// Half of what an election by timeout would take at the least.
const SUCCEEDED_WITHIN: Duration = Duration::from_secs(20);
const ANSWERED_WITHIN: Duration = Duration::from_secs(20);
const TIMEOUTS: [&str; 4] = ["--election-ms-min", "40000", "--election-ms-max", "80000"];

/// Waits for a leader among those that run, other than `old`, and returns its name and term.
async fn successor(cluster: &Cluster, old: &str) -> Result<(String, u64)> {
    until("a successor", SUCCEEDED_WITHIN, async || {
        for name in cluster.started() {
            let status = cluster.status(&name).await?;
            if name != old && status.role() == Role::Leader {
                return Ok((name, status.term));
            }
        }
        anyhow::bail!("nobody leads yet")
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_leader_is_succeeded_before_any_timeout_and_the_retry_is_recognised() -> Result<()>
{
    let mut cluster = Cluster::start_with(3, &TIMEOUTS).await?;
    let old = cluster.leader().await?;
    let term = cluster.status(&old).await?.term;
    let mut requester = Requester::open(&cluster.address(&old)?).await?;
    let (node, incarnation) = requester.register(&cluster.address(&old)?, "ls1").await?;
    let call = requester.activate_call(node, incarnation);
    let first = send_until_answered(&cluster.address(&old)?, &call, ANSWERED_WITHIN).await?;

    cluster.kill(&old)?;
    let (new, new_term) = successor(&cluster, &old).await?;
    ensure!(new_term == term + 1, "from term {term} to {new_term}");
    let again = send_until_answered(&cluster.address(&new)?, &call, ANSWERED_WITHIN).await?;
    assert_eq!(again.replayed(), first.applied(), "{again:?}");

    cluster.restart(&old).await?;
    cluster.state_hashes_agree().await?;
    cluster.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_told_to_end_hands_over_first() -> Result<()> {
    let mut cluster = Cluster::start_with(3, &TIMEOUTS).await?;
    let old = cluster.leader().await?;
    let term = cluster.status(&old).await?.term;
    cluster.stop_member(&old).await?;
    let (_, new_term) = successor(&cluster, &old).await?;
    ensure!(new_term == term + 1, "from term {term} to {new_term}");
    cluster.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_leader_is_not_taken_for_gone() -> Result<()> {
    let cluster = Cluster::start_with(3, &TIMEOUTS).await?;
    let leader = cluster.leader().await?;
    let term = cluster.status(&leader).await?.term;
    let followers = cluster.followers().await?;
    cluster.pause(&leader)?;
    // Its connections are given up after two seconds of silence; then it is looked for.
    for follower in &followers {
        until("the leader is looked for", SUCCEEDED_WITHIN, async || {
            let metrics = cluster.member(follower)?.http("/metrics").await?;
            let spared = metrics.metric("tally_raft_leaders_spared_total")?;
            ensure!(spared > 0, "not yet");
            Ok(())
        })
        .await?;
    }
    cluster.resume(&leader)?;

    assert_eq!(cluster.leader().await?, leader);
    assert_eq!(cluster.status(&leader).await?.term, term);
    let mut requester = Requester::open(&cluster.address(&followers[0])?).await?;
    requester
        .register(&cluster.address(&followers[0])?, "ls1")
        .await?;
    cluster.state_hashes_agree().await?;
    cluster.stop().await
}
