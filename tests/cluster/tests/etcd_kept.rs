//! A cluster that is to keep so many revisions compacts by itself, also when leadership has moved.

use std::time::Duration;

use anyhow::{Result, ensure};
use tally_proto::etcd::kv_client::KvClient;
use tally_proto::etcd::{PutRequest, RangeRequest};
use tally_testkit::{Cluster, channel, until};
use tonic::Code;

const KEPT: i64 = 100;
const WRITES: u32 = 300;
const SETTLED_WITHIN: Duration = Duration::from_secs(30);

/// Writes, and gives the last revision.
async fn write(cluster: &Cluster) -> Result<i64> {
    let mut kv = KvClient::new(channel(&cluster.address("n1")?).await?);
    let mut revision = 0;
    for _ in 0..WRITES {
        let put = PutRequest {
            key: "k".into(),
            ..Default::default()
        };
        let header = kv.put(put).await?.into_inner().header;
        revision = header.map_or(0, |header| header.revision);
    }
    Ok(revision)
}

/// Whether every member has the key as of this revision, or has given it up.
async fn all_have(cluster: &Cluster, revision: i64, expected: bool) -> Result<()> {
    for name in cluster.names() {
        let mut kv = KvClient::new(channel(&cluster.address(&name)?).await?);
        let ask = RangeRequest {
            key: "k".into(),
            revision,
            ..Default::default()
        };
        match kv.range(ask).await {
            Ok(found) => {
                let kvs = found.into_inner().kvs;
                ensure!(expected, "{name} still has revision {revision}");
                ensure!(kvs[0].mod_revision == revision, "{name}: {kvs:?}");
            }
            Err(status) => {
                ensure!(!expected, "{name} at {revision}: {status}");
                ensure!(status.code() == Code::OutOfRange, "{status}");
                ensure!(status.message().contains("compacted"), "{status}");
            }
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_older_than_what_is_kept_is_given_up_by_one_leader_and_the_next() -> Result<()> {
    let cluster = Cluster::start_with(3, &["--keep-revisions", &KEPT.to_string()]).await?;
    for transfer in [true, false] {
        let last = write(&cluster).await?;
        // A tenth more may be there.
        let old = last - KEPT - KEPT / 10 - 1;
        until("a compaction", SETTLED_WITHIN, async || {
            all_have(&cluster, old, false).await
        })
        .await?;
        for kept in [last - KEPT, last - KEPT / 2, last] {
            all_have(&cluster, kept, true).await?;
        }
        if transfer {
            let next = cluster.followers().await?.remove(0);
            cluster.transfer_leader(&next).await?;
        }
    }
    cluster.state_hashes_agree().await?;
    cluster.stop().await
}
