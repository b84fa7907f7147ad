//! What was deleted and compacted leaves the disk while the members serve; nobody calls Defragment.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use tally_proto::etcd::kv_client::KvClient;
use tally_proto::etcd::maintenance_client::MaintenanceClient;
use tally_proto::etcd::{CompactionRequest, DeleteRangeRequest, PutRequest, StatusRequest};
use tally_testkit::{Cluster, channel, until};
use tonic::transport::Channel;

const KEYS: usize = 1_000;
const BYTES: usize = 16 << 10;
const AT_A_TIME: usize = 16;
const RECLAIMED_WITHIN: Duration = Duration::from_secs(60);

/// Puts every key once, with what nothing makes smaller.
async fn put_all(to: &Channel) -> Result<()> {
    let puts = stream::iter(0..KEYS).map(async |number| {
        let mut value = vec![0; BYTES];
        rand::fill(&mut value[..]);
        let put = PutRequest {
            key: format!("room/{number}").into(),
            value: value.into(),
            ..Default::default()
        };
        KvClient::new(to.clone()).put(put).await.map(drop)
    });
    Ok(puts.buffer_unordered(AT_A_TIME).try_collect().await?)
}

async fn disk_bytes(address: &str) -> Result<i64> {
    let mut client = MaintenanceClient::new(channel(address).await?);
    let status = client.status(StatusRequest::default()).await?;
    Ok(status.into_inner().db_size)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_compacted_leaves_the_disk_of_every_member() -> Result<()> {
    let cluster = Cluster::start(3).await?;
    let to = channel(&cluster.address(&cluster.leader().await?)?).await?;
    for _ in 0..3 {
        put_all(&to).await?;
    }
    let addresses = cluster
        .names()
        .into_iter()
        .map(|name| cluster.address(&name));
    let addresses: Vec<String> = addresses.collect::<Result<_>>()?;
    let held = (KEYS * BYTES * 3) as i64;
    for address in &addresses {
        until("all of it is on the disk", RECLAIMED_WITHIN, async || {
            let bytes = disk_bytes(address).await?;
            ensure!(bytes > held, "{bytes} of {held} bytes");
            Ok(())
        })
        .await?;
    }
    // Through a follower, which waits for what the leader does.
    let asked = cluster.followers().await?.remove(0);
    let mut kv = KvClient::new(channel(&cluster.address(&asked)?).await?);
    let delete = DeleteRangeRequest {
        key: "room/".into(),
        range_end: "room0".into(),
        ..Default::default()
    };
    let gone = kv.delete_range(delete).await?.into_inner();
    let revision = gone.header.context("no header")?.revision;
    let compaction = CompactionRequest {
        revision,
        physical: true,
    };
    kv.compact(compaction).await?;
    let metrics = cluster.member(&asked)?.http("/metrics").await?;
    let compacted = metrics.metric("tally_compacted_revision")?;
    ensure!(
        i64::try_from(compacted)? == revision && metrics.metric("tally_reclaiming")? == 0,
        "answered before all was removed, compacted at {compacted}"
    );
    for address in &addresses {
        until("its room is free", RECLAIMED_WITHIN, async || {
            let bytes = disk_bytes(address).await?;
            ensure!(
                bytes < held / 4,
                "{address} still has {bytes} of {held} bytes"
            );
            Ok(())
        })
        .await?;
    }
    cluster.stop().await
}
