//! Many keys of 1 KiB: reads, a watch of everything that happened, compaction, a new follower that gets a
//! snapshot, and restarts. Nobody loses a key, and nobody's memory grows with their number.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use tally_proto::etcd::kv_client::KvClient;
use tally_proto::etcd::watch_client::WatchClient;
use tally_proto::etcd::watch_request::RequestUnion;
use tally_proto::etcd::{
    CompactionRequest, PutRequest, RangeRequest, RangeResponse, WatchCreateRequest, WatchRequest,
};
use tally_testkit::{Cluster, channel, rounds, until};
use tonic::transport::Channel;
use tonic::{Code, Request};

const VALUE_BYTES: usize = 1 << 10;
const PUTS_AT_A_TIME: usize = 32;
const RANGE: usize = 1_000;
const STEP_WITHIN: Duration = Duration::from_secs(300);
/// The bound of the caches and buffers, the program, and what allocators keep; a hundred thousand keys have more
/// than twice as much, twice.
const RESIDENT_BYTES_MAX: u64 = 160_000_000;

const OFTEN: [&str; 4] = ["--snapshot-entries", "1000", "--keep-entries", "100"];

fn key(number: usize) -> Bytes {
    format!("keys/{number:08}").into()
}

/// Tells which put of a key it is of.
fn value(number: usize, round: u8) -> Bytes {
    let mut value = vec![round; VALUE_BYTES];
    value[..8].copy_from_slice(&(number as u64).to_be_bytes());
    value.into()
}

fn slow<T>(ask: T) -> Request<T> {
    let mut request = Request::new(ask);
    request.set_timeout(STEP_WITHIN);
    request
}

async fn kv(cluster: &Cluster, name: &str) -> Result<KvClient<Channel>> {
    let to = channel(&cluster.address(name)?).await?;
    Ok(KvClient::new(to).max_decoding_message_size(64 << 20))
}

/// Gives the first and the last revision.
async fn put_all(
    kv: &KvClient<Channel>,
    keys: usize,
    step: usize,
    round: u8,
) -> Result<(i64, i64)> {
    let mut puts = stream::iter((0..keys).step_by(step))
        .map(async |number| {
            let put = PutRequest {
                key: key(number),
                value: value(number, round),
                ..Default::default()
            };
            let answer = kv.clone().put(slow(put)).await?.into_inner();
            anyhow::Ok(answer.header.context("no header")?.revision)
        })
        .buffer_unordered(PUTS_AT_A_TIME);
    let (mut first, mut last) = (i64::MAX, 0);
    while let Some(revision) = puts.try_next().await? {
        (first, last) = (first.min(revision), last.max(revision));
    }
    Ok((first, last))
}

async fn range(kv: &KvClient<Channel>, ask: RangeRequest) -> Result<RangeResponse, tonic::Status> {
    Ok(kv.clone().range(slow(ask)).await?.into_inner())
}

fn all() -> RangeRequest {
    RangeRequest {
        key: key(0),
        range_end: Bytes::from_static(b"keys0"),
        ..Default::default()
    }
}

/// Reads every key, a thousand at a time, from what this member has applied. Each tenth was put twice.
async fn every_key_is_there(cluster: &Cluster, name: &str, keys: usize) -> Result<()> {
    let kv = kv(cluster, name).await?;
    let counted = range(
        &kv,
        RangeRequest {
            count_only: true,
            serializable: true,
            ..all()
        },
    );
    let counted = counted.await?.count;
    ensure!(
        counted == keys as i64,
        "{name} counts {counted} keys, not {keys}"
    );
    let mut next = 0;
    while next < keys {
        let end = keys.min(next + RANGE);
        let page = RangeRequest {
            key: key(next),
            range_end: key(end),
            serializable: true,
            ..Default::default()
        };
        let page = range(&kv, page).await?;
        let came = page.kvs.len();
        ensure!(
            came == end - next && page.count == came as i64,
            "{name}: {came} keys of {next} to {end}, and a count of {}",
            page.count
        );
        for found in page.kvs {
            let round = 1 + u8::from(next.is_multiple_of(10));
            ensure!(
                found.key == key(next),
                "{:?}, expected key {next}",
                found.key
            );
            ensure!(
                found.value == value(next, round),
                "key {next} has another value"
            );
            next += 1;
        }
    }
    Ok(())
}

/// Watches from a revision on, until told of so many events; each key is told of once, in the order of revisions.
async fn is_told_of_all(cluster: &Cluster, name: &str, from: i64, keys: usize) -> Result<()> {
    let to = channel(&cluster.address(name)?).await?;
    let mut client = WatchClient::new(to).max_decoding_message_size(64 << 20);
    let create = WatchCreateRequest {
        key: key(0).into(),
        range_end: b"keys0".to_vec(),
        start_revision: from,
        ..Default::default()
    };
    let request_union = Some(RequestUnion::CreateRequest(create));
    let requests = stream::iter([WatchRequest { request_union }]).chain(stream::pending());
    let mut answers = client.watch(requests).await?.into_inner();
    let mut told = std::collections::BTreeSet::new();
    let mut revision = from - 1;
    while told.len() < keys {
        let answer = tokio::time::timeout(STEP_WITHIN, answers.message()).await??;
        let answer = answer.context("the watch has ended")?;
        ensure!(!answer.canceled, "cancelled: {answer:?}");
        for event in answer.events {
            let kv = event.kv.context("an event of nothing")?;
            ensure!(
                kv.mod_revision > revision,
                "r{} after r{revision}",
                kv.mod_revision
            );
            revision = kv.mod_revision;
            ensure!(told.insert(kv.key.clone()), "told twice of {:?}", kv.key);
        }
    }
    Ok(())
}

async fn ready(cluster: &Cluster, name: &str) -> Result<()> {
    until(&format!("{name} is ready"), STEP_WITHIN, async || {
        let answer = cluster.member(name)?.http("/readyz").await?;
        ensure!(answer.status == 200, "{answer:?}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_keys_are_read_watched_compacted_passed_on_and_there_after_restarts() -> Result<()> {
    let keys = rounds(3_000, 100_000);
    let mut cluster = Cluster::start_with(3, &OFTEN).await?;
    let leader = cluster.leader().await?;
    let [away, stays] = cluster.followers().await?.try_into().unwrap_or_default();
    let at_leader = kv(&cluster, &leader).await?;
    let (first, _) = put_all(&at_leader, keys, 1, 1).await?;
    is_told_of_all(&cluster, &stays, first, keys).await?;
    let (_, last) = put_all(&at_leader, keys, 10, 2).await?;
    cluster.state_hashes_agree().await?;
    every_key_is_there(&cluster, &stays, keys).await?;

    let before = range(
        &at_leader,
        RangeRequest {
            revision: first,
            ..all()
        },
    )
    .await?;
    ensure!(before.count == 1, "{} keys at r{first}", before.count);
    let compact = CompactionRequest {
        revision: last,
        physical: true,
    };
    at_leader.clone().compact(slow(compact)).await?;
    let gone = range(
        &at_leader,
        RangeRequest {
            revision: last - 1,
            ..all()
        },
    )
    .await;
    ensure!(
        gone.is_err_and(|status| status.code() == Code::OutOfRange),
        "r{last} is not compacted"
    );

    cluster.kill(&away)?;
    cluster.wipe(&away)?;
    cluster.launch(&away)?;
    until("it says that it was emptied", STEP_WITHIN, async || {
        let answer = cluster.member(&away)?.http("/readyz").await?;
        ensure!(answer.body.contains("T-011"), "{answer:?}");
        Ok(())
    })
    .await?;
    let replaced = cluster
        .operator()
        .run(&["member", "replace", &away])
        .await?;
    replaced.expect_code(0)?;
    ready(&cluster, &away).await?;
    let snapshot = cluster.status(&away).await?.snapshot_index;
    ensure!(snapshot > 0, "it has caught up without a snapshot");
    cluster.state_hashes_agree().await?;
    every_key_is_there(&cluster, &away, keys).await?;

    cluster.stop_member(&away).await?;
    cluster.restart(&away).await?;
    every_key_is_there(&cluster, &away, keys).await?;
    cluster.kill_all()?;
    cluster.restart_all().await?;
    cluster.state_hashes_agree().await?;
    for name in cluster.names() {
        every_key_is_there(&cluster, &name, keys).await?;
        let resident = cluster.member(&name)?.resident_bytes()?;
        ensure!(
            resident < RESIDENT_BYTES_MAX,
            "{name} has {resident} bytes in memory"
        );
    }
    cluster.stop().await
}
