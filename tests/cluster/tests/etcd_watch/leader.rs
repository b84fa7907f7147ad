//! Watchers of a member that loses its leader.

use anyhow::{Context, Result, ensure};
use tally_proto::etcd::kv_client::KvClient;
use tally_proto::etcd::lease_client::LeaseClient;
use tally_testkit::{Cluster, channel};
use tokio::time::timeout;
use tonic::{Code, Request, Status};

use crate::watching::{TOLD_WITHIN, Watching, prefix, put, told};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_needs_a_leader_ends_when_its_member_is_cut_off() -> Result<()> {
    let Some(cluster) = Cluster::start_on_hosts(3, &[]).await? else {
        return Ok(());
    };
    let follower = cluster.followers().await?.remove(0);
    let to = channel(&cluster.address(&follower)?).await?;
    let mut needing = Watching::open_with(&to, true).await?;
    let mut patient = Watching::open(&to).await?;
    for watching in [&mut needing, &mut patient] {
        watching.create(prefix("l/")).await?;
    }

    // Signs of life of leases are sent on such a stream too.
    let mut signs = Request::new(futures::stream::pending());
    signs.metadata_mut().insert("hasleader", "true".parse()?);
    let mut leases = LeaseClient::new(to.clone());
    let mut signs = leases.lease_keep_alive(signs).await?.into_inner();

    cluster.hosts()?.isolate(&follower)?;
    let ended = timeout(TOLD_WITHIN, needing.answers.message()).await?;
    let ended = ended.err().context("it was told something")?;
    let is_no_leader = |status: &Status| {
        status.code() == Code::Unavailable && status.message() == "etcdserver: no leader"
    };
    let signs = timeout(TOLD_WITHIN, signs.message()).await?.err();
    ensure!(signs.as_ref().is_some_and(is_no_leader), "{signs:?}");
    ensure!(is_no_leader(&ended), "{ended:?}");
    let refused = Watching::open_with(&to, true).await.err();
    ensure!(refused.as_ref().is_some_and(is_no_leader), "{refused:?}");

    // The other one waits, and misses nothing.
    let mut others = cluster.names();
    others.retain(|name| *name != follower);
    let leader = cluster.leader_among(&others).await?;
    let mut kv = KvClient::new(channel(&cluster.address(&leader)?).await?);
    let revision = put(&mut kv, "l/1", b"x".to_vec()).await?;
    cluster.hosts()?.heal()?;
    let events = patient.events(1).await?;
    ensure!(told(&events[0].1).3 == revision, "{events:?}");
    cluster.stop().await
}

/// To be opened again it would need a leader just when there is none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_needs_a_leader_outlives_leaders() -> Result<()> {
    const LEADERS: u32 = 6;
    let mut cluster = Cluster::start(3).await?;
    let names = cluster.names();
    let mut streams = Vec::new();
    for name in &names {
        let to = channel(&cluster.address(name)?).await?;
        let mut watching = Watching::open_with(&to, true).await?;
        watching.create(prefix("l/")).await?;
        streams.push((name.clone(), watching));
    }
    let killed = cluster.leader().await?;
    cluster.kill(&killed)?;
    streams.retain(|(name, _)| *name != killed);
    let mut others = names;
    others.retain(|name| *name != killed);
    for number in 0..LEADERS {
        let leader = cluster.leader_among(&others).await?;
        let mut kv = KvClient::new(channel(&cluster.address(&leader)?).await?);
        let key = format!("l/{number}");
        let revision = put(&mut kv, &key, Vec::new()).await?;
        for (name, watching) in &mut streams {
            let events = watching.events(1).await.context(name.clone())?;
            ensure!(told(&events[0].1).3 == revision, "{name}: {events:?}");
        }
        let next = others.iter().find(|name| **name != leader);
        let next = next.context("no other member")?;
        cluster.transfer_leader(next).await?;
    }
    cluster.stop().await
}
