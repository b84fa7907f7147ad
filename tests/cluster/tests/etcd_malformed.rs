//! Malformed requests through the etcd API: each gets the code and the words of etcd, and changes nothing.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use futures::StreamExt;
use prost::Message;
use tally_proto::etcd::compare::{CompareTarget, TargetUnion};
use tally_proto::etcd::kv_client::KvClient;
use tally_proto::etcd::lease_client::LeaseClient;
use tally_proto::etcd::request_op::Request as Op;
use tally_proto::etcd::watch_client::WatchClient;
use tally_proto::etcd::watch_request::RequestUnion;
use tally_proto::etcd::{
    CompactionRequest, Compare, DeleteRangeRequest, LeaseGrantRequest, LeaseKeepAliveRequest,
    LeaseRevokeRequest, LeaseTimeToLiveRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
    WatchCreateRequest, WatchRequest, WatchResponse,
};
use tally_testkit::keys::tag_request;
use tally_testkit::{Cluster, Requester, channel, until};
use tokio::time::timeout;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

const EMPTY_KEY: &str = "etcdserver: key is not provided";
const TOO_MANY_OPS: &str = "etcdserver: too many operations in txn request";
const DUPLICATE: &str = "etcdserver: duplicate key given in txn request";
const FUTURE: &str = "etcdserver: mvcc: required revision is a future revision";
const COMPACTED: &str = "etcdserver: mvcc: required revision has been compacted";
const NO_LEASE: &str = "etcdserver: requested lease not found";
const EMPTY_RANGE: &str = "mvcc: watcher range is empty";
const DUPLICATE_WATCH: &str = "mvcc: duplicate watch ID provided on the WatchStream";

/// What a member reads of one message, without settings of its own.
const MESSAGE_BYTES_MAX: usize = (3 << 19) + (512 << 10);

/// Shortest time to live of a lease, seconds.
const TTL_MIN: i64 = 2;

const ANSWERED_WITHIN: Duration = Duration::from_secs(30);

fn range(key: &str) -> RangeRequest {
    RangeRequest {
        key: key.to_owned().into(),
        ..Default::default()
    }
}

fn put(key: &str) -> PutRequest {
    PutRequest {
        key: key.to_owned().into(),
        ..Default::default()
    }
}

fn put_value(key: &str, value: impl Into<Bytes>) -> PutRequest {
    PutRequest {
        value: value.into(),
        ..put(key)
    }
}

fn delete(key: &str, end: &str) -> DeleteRangeRequest {
    DeleteRangeRequest {
        key: key.to_owned().into(),
        range_end: end.to_owned().into(),
        ..Default::default()
    }
}

fn op(request: Op) -> RequestOp {
    RequestOp {
        request: Some(request),
    }
}

fn txn(success: Vec<RequestOp>) -> TxnRequest {
    TxnRequest {
        success,
        ..Default::default()
    }
}

/// So many transactions within one another, around one put.
fn nested(depth: usize) -> TxnRequest {
    let innermost = txn(vec![op(Op::RequestPut(put("deep")))]);
    (1..depth).fold(innermost, |inner, _| txn(vec![op(Op::RequestTxn(inner))]))
}

fn is<T>(answer: Result<T, Status>, code: Code, message: &str) -> Result<()> {
    let Err(status) = answer else {
        anyhow::bail!("it was accepted; expected {code:?}: {message}");
    };
    let found = (status.code(), status.message());
    ensure!(
        found == (code, message),
        "{found:?}, expected {code:?}: {message}"
    );
    Ok(())
}

fn too_long(message: &impl Message) -> String {
    let bytes = message.encoded_len();
    format!("grpc: received message larger than max ({bytes} vs. {MESSAGE_BYTES_MAX})")
}

/// How far the store has come, of which a member has applied everything.
async fn revision(kv: &mut KvClient<Channel>) -> Result<i64> {
    let header = kv.range(range("k")).await?.into_inner().header;
    Ok(header.context("no header")?.revision)
}

async fn reads(kv: &mut KvClient<Channel>) -> Result<()> {
    is(kv.range(range("")).await, Code::InvalidArgument, EMPTY_KEY)?;
    for (sort_order, sort_target) in [(9, 0), (-1, 0), (0, 9)] {
        let unknown = RangeRequest {
            sort_order,
            sort_target,
            ..range("k")
        };
        let message = "etcdserver: invalid sort option";
        is(kv.range(unknown).await, Code::InvalidArgument, message)?;
    }
    let both = RangeRequest {
        sort_order: 9,
        ..range("")
    };
    is(kv.range(both).await, Code::InvalidArgument, EMPTY_KEY)?;
    let future = RangeRequest {
        revision: 1_000_000,
        ..range("k")
    };
    is(kv.range(future).await, Code::OutOfRange, FUTURE)?;
    Ok(())
}

/// Numbers below zero ask for nothing, and an end before the beginning has nothing before it.
async fn reads_that_are_answered(kv: &mut KvClient<Channel>) -> Result<()> {
    let without_limit = RangeRequest {
        range_end: "m".into(),
        limit: -1,
        ..range("k")
    };
    let found = kv.range(without_limit).await?.into_inner();
    let keys: Vec<&[u8]> = found.kvs.iter().map(|pair| pair.key.as_ref()).collect();
    ensure!(keys == [b"k", b"l"], "{found:?}");
    ensure!(found.count == 2 && !found.more, "{found:?}");
    let latest = RangeRequest {
        revision: -1,
        ..range("k")
    };
    let found = kv.range(latest).await?.into_inner();
    let values: Vec<&[u8]> = found.kvs.iter().map(|pair| pair.value.as_ref()).collect();
    ensure!(values == [b"second"], "{found:?}");
    ensure!(found.count == 1 && !found.more, "{found:?}");
    let reversed = RangeRequest {
        range_end: "a".into(),
        ..range("k")
    };
    let found = kv.range(reversed).await?.into_inner();
    ensure!(found.kvs.is_empty(), "{found:?}");
    ensure!(found.count == 0 && !found.more, "{found:?}");
    Ok(())
}

async fn writes(kv: &mut KvClient<Channel>) -> Result<()> {
    is(kv.put(put("")).await, Code::InvalidArgument, EMPTY_KEY)?;
    is(
        kv.delete_range(delete("", "")).await,
        Code::InvalidArgument,
        EMPTY_KEY,
    )?;
    let none = kv.delete_range(delete("m", "b")).await?.into_inner();
    ensure!(none.deleted == 0, "{none:?}");
    let both = PutRequest {
        ignore_value: true,
        ..put_value("k", "v")
    };
    let message = "etcdserver: value is provided";
    is(kv.put(both).await, Code::InvalidArgument, message)?;
    let both = PutRequest {
        ignore_lease: true,
        lease: 1,
        ..put("k")
    };
    let message = "etcdserver: lease is provided";
    is(kv.put(both).await, Code::InvalidArgument, message)?;
    let kept = PutRequest {
        ignore_value: true,
        ..put("absent")
    };
    let message = "etcdserver: key not found";
    is(kv.put(kept).await, Code::InvalidArgument, message)?;
    let leased = PutRequest {
        lease: 77,
        ..put("k")
    };
    is(kv.put(leased).await, Code::NotFound, NO_LEASE)?;
    let large = put_value("k", vec![0; 3 << 19]);
    let message = "etcdserver: request is too large";
    is(kv.put(large).await, Code::InvalidArgument, message)?;
    // What else is wrong is told first.
    let large = put_value("", vec![0; 3 << 19]);
    is(kv.put(large).await, Code::InvalidArgument, EMPTY_KEY)?;
    let larger = put_value("k", vec![0; 3 << 20]);
    let message = too_long(&larger);
    is(kv.put(larger).await, Code::ResourceExhausted, &message)?;
    let reserved = kv.put(put("\0tally/nodes/1")).await.expect_err("reserved");
    ensure!(reserved.message().starts_with("T-505"), "{reserved:?}");
    Ok(())
}

async fn transactions(kv: &mut KvClient<Channel>) -> Result<()> {
    let invalid = Code::InvalidArgument;
    let many = (0..129).map(|number| op(Op::RequestPut(put(&format!("k{number}")))));
    is(kv.txn(txn(many.collect())).await, invalid, TOO_MANY_OPS)?;
    let twice = vec![op(Op::RequestPut(put("k"))), op(Op::RequestPut(put("k")))];
    is(kv.txn(txn(twice)).await, invalid, DUPLICATE)?;
    let both = vec![
        op(Op::RequestPut(put("k"))),
        op(Op::RequestDeleteRange(delete("j", "l"))),
    ];
    is(kv.txn(txn(both)).await, invalid, DUPLICATE)?;
    let inner = vec![
        op(Op::RequestPut(put("k"))),
        op(Op::RequestTxn(txn(vec![op(Op::RequestPut(put("k")))]))),
    ];
    is(kv.txn(txn(inner)).await, invalid, DUPLICATE)?;
    let nothing = txn(vec![RequestOp { request: None }]);
    is(kv.txn(nothing).await, invalid, "etcdserver: key not found")?;
    let compare = |key: &str, target: i32| TxnRequest {
        compare: vec![Compare {
            key: key.to_owned().into(),
            target,
            target_union: Some(TargetUnion::Version(0)),
            ..Default::default()
        }],
        ..Default::default()
    };
    let version = CompareTarget::Version.into();
    is(kv.txn(compare("", version)).await, invalid, EMPTY_KEY)?;
    let message = "etcdserver: unknown comparison in txn request";
    is(kv.txn(compare("k", 9)).await, invalid, message)?;
    let mut unknown = compare("k", version);
    unknown.compare[0].result = 9;
    is(kv.txn(unknown).await, invalid, message)?;
    // However deep, and in whichever branch.
    for empty in [
        Op::RequestPut(put("")),
        Op::RequestRange(range("")),
        Op::RequestDeleteRange(delete("", "z")),
    ] {
        let inner = TxnRequest {
            failure: vec![op(empty)],
            ..Default::default()
        };
        let outer = txn(vec![op(Op::RequestTxn(inner))]);
        is(kv.txn(outer).await, invalid, EMPTY_KEY)?;
    }
    // One that fails undoes all.
    let half = vec![
        op(Op::RequestPut(put("half"))),
        op(Op::RequestPut(PutRequest {
            ignore_value: true,
            ..put("absent")
        })),
    ];
    is(
        kv.txn(txn(half)).await,
        invalid,
        "etcdserver: key not found",
    )?;
    // More than 50 are no messages that could be read.
    for depth in [33, 50, 51, 60, 129, 500] {
        is(kv.txn(nested(depth)).await, invalid, TOO_MANY_OPS)?;
    }
    Ok(())
}

async fn leases(to: &Channel) -> Result<()> {
    let mut leases = LeaseClient::new(to.clone());
    let long = LeaseGrantRequest {
        ttl: 9_000_000_001,
        id: 0,
    };
    let message = "etcdserver: too large lease TTL";
    is(leases.lease_grant(long).await, Code::OutOfRange, message)?;
    // As every other one that is too short, it becomes the shortest.
    let negative = LeaseGrantRequest { ttl: -1, id: 0 };
    let granted = leases.lease_grant(negative).await?.into_inner();
    ensure!(granted.ttl == TTL_MIN && granted.id > 0, "{granted:?}");
    ensure!(granted.error.is_empty(), "{granted:?}");

    let usual = LeaseGrantRequest { ttl: 600, id: 0 };
    let id = leases.lease_grant(usual).await?.into_inner().id;
    let again = LeaseGrantRequest { ttl: 600, id };
    let message = "etcdserver: lease already exists";
    let again = leases.lease_grant(again).await;
    is(again, Code::FailedPrecondition, message)?;
    leases.lease_revoke(LeaseRevokeRequest { id }).await?;
    for unknown in [id, 77] {
        let unknown = LeaseRevokeRequest { id: unknown };
        is(leases.lease_revoke(unknown).await, Code::NotFound, NO_LEASE)?;
    }
    // Of one that is not there the time left is told, and that is no error.
    for unknown in [id, 0, -7] {
        let ask = LeaseTimeToLiveRequest {
            id: unknown,
            keys: true,
        };
        let told = leases.lease_time_to_live(ask).await?.into_inner();
        ensure!(told.id == unknown && told.ttl == -1, "{told:?}");
        let ask = tokio_stream::iter([LeaseKeepAliveRequest { id: unknown }]);
        let mut told = leases.lease_keep_alive(ask).await?.into_inner();
        let told = told.message().await?.context("no answer")?;
        ensure!(told.id == unknown && told.ttl == 0, "{told:?}");
    }
    Ok(())
}

fn watch(watch_id: i64, key: &str, end: &str) -> WatchRequest {
    let ask = WatchCreateRequest {
        watch_id,
        key: key.into(),
        range_end: end.into(),
        ..Default::default()
    };
    WatchRequest {
        request_union: Some(RequestUnion::CreateRequest(ask)),
    }
}

/// The first answers on a stream that begins with these requests, one for each of them.
async fn answers(to: &Channel, asks: Vec<WatchRequest>) -> Result<Vec<WatchResponse>, Status> {
    let count = asks.len();
    let asks = tokio_stream::iter(asks).chain(tokio_stream::pending());
    let mut stream = WatchClient::new(to.clone()).watch(asks).await?.into_inner();
    let mut answers = Vec::new();
    while answers.len() < count {
        let answer = timeout(ANSWERED_WITHIN, stream.message()).await;
        let answer = answer.map_err(|_| Status::deadline_exceeded("told nothing"))??;
        answers.push(answer.ok_or_else(|| Status::ok("the stream ended"))?);
    }
    Ok(answers)
}

async fn watches(to: &Channel) -> Result<()> {
    // Of each request the id that is answered, and why there is no such watcher.
    let asked = [
        (watch(7, "w", ""), 7, ""),
        (watch(7, "x", ""), -1, DUPLICATE_WATCH),
        (watch(-2, "w", ""), -2, ""),
        // It stands for no watcher, or for all of them.
        (watch(-1, "w", ""), -1, DUPLICATE_WATCH),
        (watch(8, "w", "v"), -1, EMPTY_RANGE),
        (watch(8, "w", "w"), -1, EMPTY_RANGE),
        (watch(8, "w", "x"), 8, ""),
    ];
    let asks = asked.iter().map(|(ask, ..)| ask.clone()).collect();
    let answers = answers(to, asks).await?;
    let mut negative = watch(9, "w", "x");
    if let Some(RequestUnion::CreateRequest(ask)) = &mut negative.request_union {
        ask.start_revision = -1;
    }
    let refused = self::answers(to, vec![negative]).await?.remove(0);
    ensure!(
        refused.created && refused.canceled && refused.cancel_reason == COMPACTED,
        "{refused:?}"
    );
    for (answer, (_, id, why)) in answers.iter().zip(&asked) {
        ensure!(answer.created && answer.watch_id == *id, "{answer:?}");
        ensure!(answer.canceled != why.is_empty(), "{answer:?}");
        ensure!(answer.cancel_reason == *why, "{answer:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_malformed_is_refused_as_etcd_does_and_changes_nothing() -> Result<()> {
    let mut cluster = Cluster::start(3).await?;
    let leader = cluster.leader().await?;
    let mut kv = KvClient::new(channel(&cluster.address(&leader)?).await?);
    for (key, value) in [("k", "first"), ("k", "second"), ("l", "")] {
        kv.put(put_value(key, value)).await?;
    }
    for name in cluster.names() {
        let to = channel(&cluster.address(&name)?).await?;
        let mut kv = KvClient::new(to.clone());
        let before = revision(&mut kv).await?;
        reads(&mut kv).await?;
        reads_that_are_answered(&mut kv).await?;
        writes(&mut kv).await?;
        transactions(&mut kv).await?;
        leases(&to).await?;
        watches(&to).await?;
        for (revision, message) in [(1_000_000, FUTURE), (-1, COMPACTED), (0, COMPACTED)] {
            let never = CompactionRequest {
                revision,
                physical: false,
            };
            is(kv.compact(never).await, Code::OutOfRange, message)?;
        }
        let after = revision(&mut kv).await?;
        ensure!(after == before, "r{before} became r{after} at {name}");
    }
    for key in ["half", "deep"] {
        let found = kv.range(range(key)).await?.into_inner();
        ensure!(
            found.count == 0,
            "a part of a transaction was done: {found:?}"
        );
    }

    // The deepest that is accepted is applied by everyone, and again after a restart.
    kv.txn(nested(32)).await?;
    let revision = kv
        .put(put("k"))
        .await?
        .into_inner()
        .header
        .context("no header")?
        .revision;
    let compact = CompactionRequest {
        revision,
        physical: true,
    };
    kv.compact(compact).await?;
    is(kv.compact(compact).await, Code::OutOfRange, COMPACTED)?;
    let old = RangeRequest {
        revision: revision - 1,
        ..range("k")
    };
    is(kv.range(old).await, Code::OutOfRange, COMPACTED)?;
    cluster.kill_all()?;
    cluster.restart_all().await?;
    until("all have applied it", Duration::from_secs(30), async || {
        cluster.state_hashes_agree().await
    })
    .await?;
    cluster.stop().await
}

/// So many puts of different keys.
fn puts(count: usize) -> TxnRequest {
    let put = |number| op(Op::RequestPut(put(&format!("many/{number}"))));
    txn((0..count).map(put).collect())
}

/// A put whose message has so many bytes.
fn sized(bytes: usize) -> Result<PutRequest> {
    let without = put_value("large", vec![0; bytes]).encoded_len() - bytes;
    let sized = put_value("large", vec![0; bytes - without]);
    ensure!(
        sized.encoded_len() == bytes,
        "{bytes} bytes are not to be had"
    );
    Ok(sized)
}

/// What is at a bound is taken, and what is one above it is not; with the usual bounds, lower and higher ones.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bounds_of_a_request_are_those_of_the_configuration() -> Result<()> {
    for (arguments, bytes, ops) in [
        (&[][..], 3 << 19, 128),
        (
            &["--request-bytes-max", "4096", "--txn-ops-max", "4"],
            4096,
            4,
        ),
        (
            &["--request-bytes-max", "4194304", "--txn-ops-max", "1000"],
            4 << 20,
            1000,
        ),
    ] {
        let cluster = Cluster::start_with(1, arguments).await?;
        let to = channel(&cluster.address(&cluster.leader().await?)?).await?;
        let mut kv = KvClient::new(to);
        kv.put(sized(bytes)?)
            .await
            .with_context(|| format!("{bytes} bytes"))?;
        let message = "etcdserver: request is too large";
        is(
            kv.put(sized(bytes + 1)?).await,
            Code::InvalidArgument,
            message,
        )?;
        kv.txn(puts(ops))
            .await
            .with_context(|| format!("{ops} operations"))?;
        is(
            kv.txn(puts(ops + 1)).await,
            Code::InvalidArgument,
            TOO_MANY_OPS,
        )?;
        cluster.stop().await?;
    }
    Ok(())
}

/// An end without an error would say that there is nothing to be told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_that_is_too_long_ends_its_stream_with_the_reason() -> Result<()> {
    let cluster = Cluster::start(1).await?;
    let to = channel(&cluster.address(&cluster.leader().await?)?).await?;
    let long = watch(0, &"w".repeat(3 << 20), "");
    let message = too_long(&long);
    let ended = answers(&to, vec![watch(7, "w", ""), long]).await;
    let ended = ended.err().context("it was accepted")?;
    ensure!(
        ended.code() == Code::ResourceExhausted && ended.message() == message,
        "{ended:?}"
    );
    // Others of the connection go on.
    watches(&to).await?;
    cluster.stop().await
}

/// Parts of a tag that are missing, are no numbers, or contradict each other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_a_tag_is_refused_and_another_request_under_a_tag_too() -> Result<()> {
    let cluster = Cluster::start(3).await?;
    let address = cluster.address(&cluster.leader().await?)?;
    let to = channel(&address).await?;
    for tag in [
        vec![("tally-session", "5")],
        vec![("tally-sequence", "5")],
        vec![("tally-acknowledged", "1")],
        vec![("tally-session", "x"), ("tally-sequence", "1")],
        vec![("tally-session", "5"), ("tally-sequence", "0")],
        vec![
            ("tally-session", "5"),
            ("tally-sequence", "1"),
            ("tally-acknowledged", "2"),
        ],
    ] {
        let mut request = Request::new(put("k"));
        for (name, value) in &tag {
            request.metadata_mut().insert(*name, value.parse()?);
        }
        let refused = KvClient::new(to.clone()).put(request).await;
        let refused = refused.expect_err("half a tag");
        ensure!(
            refused.code() == Code::InvalidArgument,
            "{tag:?}: {refused:?}"
        );
        ensure!(
            refused.message().starts_with("T-004: tally-"),
            "{refused:?}"
        );
    }
    let mut requester = Requester::open(&address).await?;
    let tag = requester.next_tag();
    let tagged = |key: &str| -> Result<Request<PutRequest>> {
        let mut request = Request::new(put(key));
        tag_request(&mut request, &tag)?;
        Ok(request)
    };
    KvClient::new(to.clone()).put(tagged("one")?).await?;
    let other = KvClient::new(to.clone()).put(tagged("other")?).await;
    let other = other.expect_err("another request under the same tag");
    ensure!(other.code() == Code::FailedPrecondition, "{other:?}");
    ensure!(other.message().starts_with("T-202"), "{other:?}");
    cluster.stop().await
}
