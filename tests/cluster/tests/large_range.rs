//! Ranges that are far larger than what a member may hold: it sends them while it reads them. Those that have to be
//! held are refused, and callers that take nothing are given up.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use tally_proto::etcd::kv_client::KvClient;
use tally_proto::etcd::range_request::{SortOrder, SortTarget};
use tally_proto::etcd::{PutRequest, RangeRequest, RangeResponse};
use tally_testkit::{Cluster, channel, until};
use tokio::time::timeout;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Code, Request, Status, Streaming};
use tonic_prost::ProstCodec;

const KEYS: usize = 80;
const VALUE_BYTES: usize = 1 << 20;
/// What a member may take more for one answer of eighty megabytes, with what its caches take for it.
const MORE_BYTES_MAX: u64 = 32 << 20;
/// Large answers that are sent at a time.
const SENT_AT_A_TIME: usize = 32;
const CALLERS: usize = SENT_AT_A_TIME + 8;
const WITHIN: Duration = Duration::from_secs(60);

fn key(number: usize) -> Bytes {
    format!("large/{number:03}").into()
}

fn value(number: usize) -> Bytes {
    vec![u8::try_from(number).unwrap_or(u8::MAX); VALUE_BYTES].into()
}

fn all() -> RangeRequest {
    RangeRequest {
        key: "large/".into(),
        range_end: "large0".into(),
        ..Default::default()
    }
}

async fn range(kv: &KvClient<Channel>, ask: RangeRequest) -> Result<RangeResponse, Status> {
    let mut ask = Request::new(ask);
    ask.set_timeout(WITHIN);
    Ok(kv.clone().range(ask).await?.into_inner())
}

/// The keys of these numbers, and that there are so many in all.
fn has(answer: &RangeResponse, numbers: impl Iterator<Item = usize>) -> Result<()> {
    let numbers = Vec::from_iter(numbers);
    let (came, expected) = (answer.kvs.len(), numbers.len());
    ensure!(came == expected, "{came} keys, expected {expected}");
    let (count, more) = (answer.count, answer.more);
    ensure!(count == KEYS as i64, "a count of {count}");
    ensure!(more == (expected < KEYS), "more: {more}");
    for (number, found) in numbers.into_iter().zip(&answer.kvs) {
        ensure!(
            found.key == key(number),
            "{:?} in the place of {number}",
            found.key
        );
        ensure!(
            found.value == value(number),
            "key {number} has another value"
        );
    }
    Ok(())
}

/// A call whose answer the caller takes only when it looks, on a connection of its own.
async fn call(address: &str) -> Result<Streaming<RangeResponse>, Status> {
    let failed = |error: &dyn std::fmt::Display| Status::unknown(error.to_string());
    let to = channel(address).await.map_err(|error| failed(&error))?;
    let mut grpc = Grpc::new(to).max_decoding_message_size(usize::MAX);
    grpc.ready().await.map_err(|error| failed(&error))?;
    let codec = ProstCodec::<RangeRequest, RangeResponse>::default();
    let path = PathAndQuery::from_static("/etcdserverpb.KV/Range");
    let mut ask = Request::new(all());
    ask.set_timeout(WITHIN);
    let answer = grpc.server_streaming(ask, path, codec).await?;
    Ok(answer.into_inner())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_range_larger_than_what_is_held_is_sent_while_it_is_read() -> Result<()> {
    let cluster = Cluster::start(1).await?;
    let name = cluster.leader().await?;
    let member = cluster.member(&name)?;
    let to = channel(&cluster.address(&name)?).await?;
    let kv = KvClient::new(to).max_decoding_message_size(usize::MAX);
    let puts = stream::iter(0..KEYS).map(async |number| {
        let mut put = Request::new(PutRequest {
            key: key(number),
            value: value(number),
            ..Default::default()
        });
        put.set_timeout(WITHIN);
        anyhow::Ok(kv.clone().put(put).await?)
    });
    puts.buffered(1).try_collect::<Vec<_>>().await?;
    let count = RangeRequest {
        count_only: true,
        ..all()
    };
    let header = range(&kv, count).await?.header.context("no header")?;
    let put = PutRequest {
        key: "large/later".into(),
        ..Default::default()
    };
    kv.clone().put(put).await?;
    let then = RangeRequest {
        revision: header.revision,
        ..all()
    };

    let before = member.resident_bytes()?;
    member.forget_most_resident()?;
    let whole = range(&kv, then.clone()).await?;
    has(&whole, 0..KEYS)?;
    let answered = whole.header.context("no header")?;
    ensure!(
        answered.revision == header.revision + 1 && answered.member_id == header.member_id,
        "{answered:?} after {header:?}"
    );
    let limited = RangeRequest {
        limit: 70,
        ..then.clone()
    };
    has(&range(&kv, limited).await?, 0..70)?;
    let changed = RangeRequest {
        min_mod_revision: header.revision - 49,
        ..then.clone()
    };
    let changed = range(&kv, changed).await?;
    ensure!(
        changed.kvs.len() == 50 && !changed.more,
        "{} keys",
        changed.kvs.len()
    );
    ensure!(changed.kvs[0].key == key(30), "{:?}", changed.kvs[0].key);
    let names = RangeRequest {
        keys_only: true,
        ..all()
    };
    ensure!(range(&kv, names).await?.kvs.len() == KEYS + 1, "keys only");
    let latest = RangeRequest {
        sort_target: SortTarget::Mod.into(),
        sort_order: SortOrder::Descend.into(),
        limit: 2,
        ..then.clone()
    };
    has(&range(&kv, latest).await?, [79, 78].into_iter())?;
    let latest = RangeRequest {
        sort_target: SortTarget::Mod.into(),
        sort_order: SortOrder::Descend.into(),
        limit: 20,
        ..then.clone()
    };
    has(&range(&kv, latest).await?, (60..80).rev())?;
    let by_value = RangeRequest {
        sort_target: SortTarget::Value.into(),
        sort_order: SortOrder::Descend.into(),
        limit: 3,
        ..then.clone()
    };
    has(
        &range(&kv, by_value.clone()).await?,
        [79, 78, 77].into_iter(),
    )?;
    let by_value = RangeRequest {
        limit: 0,
        ..by_value
    };
    let refused = range(&kv, by_value)
        .await
        .err()
        .context("all values were held")?;
    ensure!(
        refused.code() == Code::ResourceExhausted && refused.message().contains("T-509"),
        "{refused:?}"
    );
    let most = member.most_resident_bytes()?;
    // What was refused was held up to its bound, which is not of interest here.
    let held_for_refused = 64 << 20;
    ensure!(
        most < before + MORE_BYTES_MAX + held_for_refused,
        "{most} bytes, {before} before"
    );
    member.forget_most_resident()?;
    let before = member.resident_bytes()?;
    has(&range(&kv, then).await?, 0..KEYS)?;
    let most = member.most_resident_bytes()?;
    ensure!(
        most < before + MORE_BYTES_MAX,
        "{most} bytes, {before} before"
    );
    cluster.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_that_take_nothing_are_given_up() -> Result<()> {
    let cluster = Cluster::start(1).await?;
    let name = cluster.leader().await?;
    let address = cluster.address(&name)?;
    let kv = KvClient::new(channel(&address).await?).max_decoding_message_size(usize::MAX);
    for number in 0..8 {
        let put = PutRequest {
            key: key(number),
            value: value(number),
            ..Default::default()
        };
        kv.clone().put(put).await?;
    }
    let member = cluster.member(&name)?;
    let before = member.resident_bytes()?;
    member.forget_most_resident()?;
    let callers = stream::iter(0..CALLERS).map(async |_| call(&address).await);
    let calls = callers.buffer_unordered(CALLERS).collect::<Vec<_>>();
    let (sent, refused): (Vec<_>, Vec<_>) = timeout(WITHIN, calls)
        .await?
        .into_iter()
        .partition(Result::is_ok);
    ensure!(
        sent.len() == SENT_AT_A_TIME,
        "{} are sent at a time",
        sent.len()
    );
    for status in refused.into_iter().filter_map(Result::err) {
        ensure!(status.code() == Code::ResourceExhausted, "{status:?}");
    }
    let most = member.most_resident_bytes()?;
    ensure!(
        most < before + SENT_AT_A_TIME as u64 * 6 * VALUE_BYTES as u64,
        "{most} bytes for {CALLERS} callers, {before} before"
    );
    // Meanwhile everybody else is answered.
    let count = RangeRequest {
        count_only: true,
        ..all()
    };
    let counted = range(&kv, count).await?.count;
    ensure!(counted == 8, "{counted} keys");
    until("all of them are given up", WITHIN, async || {
        let metrics = member.http("/metrics").await?.body;
        let of_ranges = |line: &&str| {
            line.starts_with("tally_requests_total")
                && line.contains(r#"method="KV.Range""#)
                && line.contains(r#"code="DeadlineExceeded""#)
        };
        let counted = metrics.lines().find(of_ranges).unwrap_or("none");
        ensure!(
            counted.ends_with(&format!(" {SENT_AT_A_TIME}")),
            "{counted}"
        );
        Ok(())
    })
    .await?;
    let answered = range(&kv, all()).await?;
    ensure!(answered.kvs.len() == 8, "{} keys", answered.kvs.len());
    for mut call in sent.into_iter().filter_map(Result::ok) {
        let ended = timeout(WITHIN, call.message()).await?;
        let status = ended.err().context("it was sent all of it")?;
        ensure!(status.code() == Code::DeadlineExceeded, "{status:?}");
        ensure!(status.message().contains("ask with a limit"), "{status:?}");
    }
    cluster.stop().await
}
