//! More at once than members send each other in one message: it comes in several.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use tally_proto::etcd::kv_client::KvClient;
use tally_proto::etcd::{PutRequest, PutResponse};
use tally_testkit::{Cluster, channel};
use tonic::Request;
use tonic::transport::Channel;

const ANSWERED_WITHIN: Duration = Duration::from_secs(60);

async fn put(to: &Channel, number: usize, bytes: usize) -> Result<PutResponse> {
    let put = PutRequest {
        key: format!("large/{number}").into(),
        value: vec![b'v'; bytes].into(),
        prev_kv: true,
        ..Default::default()
    };
    let mut request = Request::new(put);
    request.set_timeout(ANSWERED_WITHIN);
    let mut kv = KvClient::new(to.clone()).max_decoding_message_size(usize::MAX);
    let answer = kv.put(request).await;
    Ok(answer
        .with_context(|| format!("put {number}"))?
        .into_inner())
}

/// The log has all that it missed: no snapshot is taken meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_missed_many_large_writes_catches_up_from_the_log() -> Result<()> {
    const PUTS: usize = 300;
    const BYTES: usize = 200 << 10;
    let mut cluster = Cluster::start(3).await?;
    let leader = cluster.leader().await?;
    let away = cluster.followers().await?.remove(0);
    cluster.kill(&away)?;
    let to = channel(&cluster.address(&leader)?).await?;
    for number in 0..PUTS {
        put(&to, number, BYTES).await?;
    }
    cluster.restart(&away).await?;
    cluster.state_hashes_agree().await?;
    let status = cluster.status(&away).await?;
    ensure!(status.snapshot_index == 0, "by snapshot: {status:?}");
    cluster.stop().await
}

/// They come faster than one message after the other could take them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_answers_to_writes_that_a_member_passed_on_all_arrive() -> Result<()> {
    const PUTS: usize = 60;
    const BYTES: usize = 1 << 20;
    let cluster = Cluster::start(3).await?;
    let leader = channel(&cluster.address(&cluster.leader().await?)?).await?;
    for number in 0..PUTS {
        put(&leader, number, BYTES).await?;
    }
    let follower = cluster.followers().await?.remove(0);
    let to = channel(&cluster.address(&follower)?).await?;
    // Small ones, whose answers have what was there before.
    let again = (0..PUTS).map(|number| put(&to, number, 1));
    for (number, answer) in try_join_all(again).await?.into_iter().enumerate() {
        let before = answer.prev_kv.with_context(|| format!("put {number}"))?;
        let found = (before.version, before.value.len());
        ensure!(found == (1, BYTES), "put {number}: {found:?}");
    }
    cluster.state_hashes_agree().await?;
    cluster.stop().await
}
