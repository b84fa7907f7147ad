//! A member that is being brought forward by a snapshot does not vote yet, and every one says so in etcd's terms.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tally_proto::etcd::cluster_client::ClusterClient;
use tally_proto::etcd::kv_client::KvClient;
use tally_proto::etcd::maintenance_client::MaintenanceClient;
use tally_proto::etcd::{MemberListRequest, RangeRequest, StatusRequest};
use tally_testkit::{Cluster, Mode, Proxy, channel, get, grow, until, while_observing};
use tonic::{Code, Request};

const WITHIN: Duration = Duration::from_secs(60);
const COMMANDS: usize = 1_000;
/// Of a snapshot that is larger; nothing more arrives until the proxy lets it.
const HELD_AFTER_BYTES: u64 = 400_000;
const STAYS_ONE_FOR: Duration = Duration::from_secs(2);
const NEW: &str = "n3";

/// What members say about the new one: the leader in its list, the new one of itself, and its probe.
async fn is_learner(cluster: &Cluster, expected: bool) -> Result<()> {
    let leader = cluster
        .leader_among(&["n1".to_owned(), "n2".to_owned()])
        .await?;
    let mut client = ClusterClient::new(channel(&cluster.address(&leader)?).await?);
    let list = client.member_list(MemberListRequest::default()).await?;
    let members = list.into_inner().members;
    let learners = members.iter().filter(|member| member.is_learner).count();
    ensure!(learners == usize::from(expected), "{members:?}");

    let address = cluster.address(NEW)?;
    let mut client = MaintenanceClient::new(channel(&address).await?);
    let status = client.status(StatusRequest {}).await?.into_inner();
    ensure!(status.is_learner == expected, "{status:?}");
    let probe = get(&address, "/readyz/non_learner").await?;
    let status = if expected { 503 } else { 200 };
    ensure!(probe.status == status, "{probe:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_learner_is_called_one_until_it_has_caught_up() -> Result<()> {
    let small = ["--snapshot-entries", "300", "--keep-entries", "10"];
    let mut cluster = Cluster::prepare(3, &small)?;
    let proxy = Proxy::before(&cluster.member(NEW)?.peer_address()).await?;
    cluster.announce(NEW, proxy.address())?;
    cluster.restart_all().await?;
    if cluster.leader().await? == NEW {
        cluster.transfer_leader("n1").await?;
    }
    is_learner(&cluster, false).await?;
    grow(&cluster.address("n1")?, COMMANDS).await?;

    cluster.kill(NEW)?;
    cluster.wipe(NEW)?;
    cluster.launch(NEW)?;
    cluster.says_it_was_emptied(NEW).await?;
    let held_at = proxy.request_bytes() + HELD_AFTER_BYTES;
    proxy.set(Mode::HoldRequestsAt(held_at));
    let replacing = cluster
        .operator()
        .start(&["member", "replace", NEW, "--timeout", "2m"])?;
    until("it is a learner", WITHIN, async || {
        is_learner(&cluster, true).await
    })
    .await?;
    // And so it stays, while it does not get what it lacks.
    proxy.request_bytes_above(held_at, WITHIN).await?;
    while_observing("a learner without a snapshot", STAYS_ONE_FOR, async || {
        is_learner(&cluster, true).await
    })
    .await?;
    // It has applied nothing, and nobody is told that nothing is there.
    let mut ask = Request::new(RangeRequest {
        key: vec![0].into(),
        range_end: vec![0].into(),
        ..Default::default()
    });
    ask.set_timeout(Duration::from_millis(500));
    let mut kv = KvClient::new(channel(&cluster.address(NEW)?).await?);
    let refused = kv.range(ask).await.err().context("it was answered")?;
    let codes = [Code::Unavailable, Code::DeadlineExceeded, Code::Cancelled];
    ensure!(codes.contains(&refused.code()), "{refused:?}");

    proxy.set(Mode::Pass);
    let replaced = tokio::time::timeout(WITHIN, replacing.wait_with_output()).await??;
    ensure!(replaced.status.success(), "not replaced: {replaced:?}");
    until("it votes", WITHIN, async || {
        is_learner(&cluster, false).await
    })
    .await?;
    cluster.state_hashes_agree().await?;
    cluster.stop().await
}
