//! A member was away for longer than the log reaches back: it catches up by snapshot, and recognises
//! what happened before it.

use std::time::Duration;

use anyhow::{Result, ensure};
use tally_testkit::{AnswerExt, Clocks, Cluster, Requester, seed, send_until_answered, until};

const ANSWERED_WITHIN: Duration = Duration::from_secs(60);
const WRITES: usize = 200;

const OFTEN: [&str; 4] = ["--snapshot-entries", "50", "--keep-entries", "10"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_is_recognised_by_a_leader_that_caught_up_by_snapshot() -> Result<()> {
    let mut cluster = Cluster::start_with(3, &OFTEN).await?;
    catches_up_by_snapshot(&mut cluster).await?;
    cluster.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_brings_a_member_up_to_date_while_clocks_step() -> Result<()> {
    let mut cluster = Cluster::prepare(3, &OFTEN)?;
    let Some(clocks) = Clocks::apart(&mut cluster)? else {
        return Ok(());
    };
    cluster.restart_all().await?;
    let names = cluster.names();
    let held = catches_up_by_snapshot(&mut cluster);
    clocks.step_during(&names, seed()?, held).await?;
    clocks.are_followed(&cluster).await?;
    cluster.stop().await
}

async fn catches_up_by_snapshot(cluster: &mut Cluster) -> Result<()> {
    let leader = cluster.leader().await?;
    let address = cluster.address(&leader)?;
    let away = cluster.followers().await?.remove(0);
    cluster.kill(&away)?;

    let mut owner = Requester::open(&address).await?;
    let (node, incarnation) = owner.register(&address, "ls1").await?;
    let call = owner.activate_call(node, incarnation);
    let first = send_until_answered(&address, &call, ANSWERED_WITHIN).await?;
    let revision = first.applied();
    ensure!(revision.is_some(), "{first:?}");
    let mut other = Requester::open(&address).await?;
    for write in 0..WRITES {
        other.register(&address, &format!("more-{write}")).await?;
        other.acknowledge_all();
    }
    let missed = until("the leader has purged", ANSWERED_WITHIN, async || {
        let status = cluster.status(&leader).await?;
        ensure!(
            status.purged_index > 100,
            "purged to {}",
            status.purged_index
        );
        Ok(status.purged_index)
    })
    .await?;

    cluster.restart(&away).await?;
    cluster.state_hashes_agree().await?;
    let status = cluster.status(&away).await?;
    ensure!(
        status.snapshot_index >= missed,
        "snapshot at {}, the log began after {missed}",
        status.snapshot_index
    );

    cluster.transfer_leader(&away).await?;
    let address = cluster.address(&away)?;
    let again = send_until_answered(&address, &call, ANSWERED_WITHIN).await?;
    assert_eq!(again.replayed(), revision, "{again:?}");
    assert!(again.repeat);

    cluster.kill_all()?;
    cluster.restart_all().await?;
    let again = send_until_answered(&address, &call, ANSWERED_WITHIN).await?;
    assert_eq!(again.replayed(), revision, "{again:?}");
    cluster.state_hashes_agree().await?;
    Ok(())
}
