//! Malformed requests through the etcd API: each gets the code and the words of etcd, and changes nothing.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tally_proto::etcd::compare::{CompareTarget, TargetUnion};
use tally_proto::etcd::kv_client::KvClient;
use tally_proto::etcd::lease_client::LeaseClient;
use tally_proto::etcd::request_op::Request as Op;
use tally_proto::etcd::{
    CompactionRequest, Compare, DeleteRangeRequest, LeaseGrantRequest, LeaseRevokeRequest,
    PutRequest, RangeRequest, RequestOp, TxnRequest,
};
use tally_testkit::keys::tag_request;
use tally_testkit::{Cluster, Requester, channel, until};
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

const EMPTY_KEY: &str = "etcdserver: key is not provided";
const TOO_MANY_OPS: &str = "etcdserver: too many operations in txn request";
const DUPLICATE: &str = "etcdserver: duplicate key given in txn request";
const FUTURE: &str = "etcdserver: mvcc: required revision is a future revision";
const COMPACTED: &str = "etcdserver: mvcc: required revision has been compacted";
const NO_LEASE: &str = "etcdserver: requested lease not found";

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

async fn reads(kv: &mut KvClient<Channel>) -> Result<()> {
    is(kv.range(range("")).await, Code::InvalidArgument, EMPTY_KEY)?;
    let unknown = RangeRequest {
        sort_order: 9,
        ..range("k")
    };
    let message = "etcdserver: invalid sort option";
    is(kv.range(unknown).await, Code::InvalidArgument, message)?;
    let future = RangeRequest {
        revision: 1_000_000,
        ..range("k")
    };
    is(kv.range(future).await, Code::OutOfRange, FUTURE)?;
    // Numbers below zero ask for nothing, and an end before the beginning has nothing before it.
    for harmless in [
        RangeRequest {
            limit: -1,
            ..range("k")
        },
        RangeRequest {
            revision: -1,
            ..range("k")
        },
        RangeRequest {
            range_end: "a".into(),
            ..range("k")
        },
    ] {
        kv.range(harmless).await?;
    }
    Ok(())
}

async fn writes(kv: &mut KvClient<Channel>) -> Result<()> {
    is(kv.put(put("")).await, Code::InvalidArgument, EMPTY_KEY)?;
    is(
        kv.delete_range(delete("", "")).await,
        Code::InvalidArgument,
        EMPTY_KEY,
    )?;
    let both = PutRequest {
        ignore_value: true,
        value: "v".into(),
        ..put("k")
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
    let large = PutRequest {
        value: vec![0; 3 << 19].into(),
        ..put("k")
    };
    let message = "etcdserver: request is too large";
    is(kv.put(large).await, Code::InvalidArgument, message)?;
    let larger = PutRequest {
        value: vec![0; 3 << 20].into(),
        ..put("k")
    };
    let refused = kv.put(larger).await.expect_err("3 MiB");
    ensure!(refused.code() == Code::ResourceExhausted, "{refused:?}");
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
    is(kv.txn(nested(33)).await, invalid, TOO_MANY_OPS)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_malformed_is_refused_as_etcd_does_and_changes_nothing() -> Result<()> {
    let mut cluster = Cluster::start(3).await?;
    for name in cluster.names() {
        let to = channel(&cluster.address(&name)?).await?;
        let mut kv = KvClient::new(to.clone());
        let revision = cluster.status(&name).await?.revision;
        reads(&mut kv).await?;
        writes(&mut kv).await?;
        transactions(&mut kv).await?;
        let future = CompactionRequest {
            revision: 1_000_000,
            physical: false,
        };
        is(kv.compact(future).await, Code::OutOfRange, FUTURE)?;
        let mut leases = LeaseClient::new(to);
        let long = LeaseGrantRequest {
            ttl: 9_000_000_001,
            id: 0,
        };
        let message = "etcdserver: too large lease TTL";
        is(leases.lease_grant(long).await, Code::OutOfRange, message)?;
        let unknown = LeaseRevokeRequest { id: 77 };
        is(leases.lease_revoke(unknown).await, Code::NotFound, NO_LEASE)?;
        let after = cluster.status(&name).await?.revision;
        ensure!(after == revision, "r{revision} became r{after} at {name}");
    }
    let leader = cluster.leader().await?;
    let mut kv = KvClient::new(channel(&cluster.address(&leader)?).await?);
    let absent = kv.range(range("half")).await?.into_inner();
    ensure!(
        absent.count == 0,
        "half of a transaction was done: {absent:?}"
    );

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
