//! Serializable reads of the etcd API: of what the asked member has, also where nobody leads.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tally_proto::etcd::cluster_client::ClusterClient;
use tally_proto::etcd::kv_client::KvClient;
use tally_proto::etcd::maintenance_client::MaintenanceClient;
use tally_proto::etcd::request_op::Request as Op;
use tally_proto::etcd::{
    MemberListRequest, PutRequest, RangeRequest, RangeResponse, RequestOp, StatusRequest,
    TxnRequest,
};
use tally_testkit::{Cluster, channel, until};
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

const WRITES: u32 = 300;
const SETTLED_WITHIN: Duration = Duration::from_secs(30);
const REFUSED_WITHIN: Duration = Duration::from_secs(5);

fn put(value: String) -> PutRequest {
    PutRequest {
        key: "k".into(),
        value: value.into(),
        ..Default::default()
    }
}

fn timely<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(REFUSED_WITHIN);
    request
}

fn range(serializable: bool) -> RangeRequest {
    RangeRequest {
        key: "k".into(),
        serializable,
        ..Default::default()
    }
}

fn ask(serializable: bool) -> Request<RangeRequest> {
    timely(range(serializable))
}

fn txn(serializable: bool) -> Request<TxnRequest> {
    timely(TxnRequest {
        success: vec![RequestOp {
            request: Some(Op::RequestRange(range(serializable))),
        }],
        ..Default::default()
    })
}

fn nested() -> Request<TxnRequest> {
    timely(TxnRequest {
        success: vec![RequestOp {
            request: Some(Op::RequestTxn(txn(true).into_inner())),
        }],
        ..Default::default()
    })
}

fn list(linearizable: bool) -> Request<MemberListRequest> {
    timely(MemberListRequest { linearizable })
}

/// The member says so shortly before the deadline. On a busy machine the client's own clock may come first, and is asked
/// again: what is looked at is what the member says.
async fn no_leader<T>(ask: impl AsyncFn() -> Result<T, Status>) -> Result<()> {
    let said = until("what the member says", SETTLED_WITHIN, async || {
        let answer = ask().await;
        let own_clock = |status: &Status| status.message() == "Timeout expired";
        ensure!(!answer.as_ref().is_err_and(own_clock), "the client's clock");
        Ok(answer)
    });
    let status = said.await?.err();
    let status = status.context("a member alone answered for all")?;
    let found = (status.code(), status.message());
    let expected = (Code::Unavailable, "etcdserver: no leader");
    ensure!(found == expected, "{found:?}, expected {expected:?}");
    Ok(())
}

fn value(answer: &RangeResponse) -> Result<&[u8]> {
    Ok(&answer.kvs.first().context("the key is not there")?.value)
}

async fn client(cluster: &Cluster, name: &str) -> Result<KvClient<Channel>> {
    Ok(KvClient::new(channel(&cluster.address(name)?).await?))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_is_seen_by_a_serializable_read_through_the_member_that_answered_it() -> Result<()>
{
    let cluster = Cluster::start(3).await?;
    for name in cluster.names() {
        let mut kv = client(&cluster, &name).await?;
        for number in 0..WRITES {
            let written = format!("{name} {number}");
            kv.put(put(written.clone())).await?;
            let answer = kv.range(ask(true)).await?.into_inner();
            let read = value(&answer)?;
            ensure!(
                read == written.as_bytes(),
                "{:?} was read through {name} after {written:?} was answered",
                String::from_utf8_lossy(read)
            );
        }
    }
    cluster.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_alone_answers_serializable_reads_and_no_others() -> Result<()> {
    let mut cluster = Cluster::start(3).await?;
    let leader = cluster.leader().await?;
    let followers = cluster.followers().await?;
    let [alone, other] = &followers[..] else {
        anyhow::bail!("{followers:?}, expected two");
    };
    let mut kv = client(&cluster, alone).await?;
    kv.put(put("before".to_owned())).await?;
    cluster.kill(&leader)?;
    cluster.kill(other)?;

    let answer = kv.range(ask(true)).await?.into_inner();
    ensure!(value(&answer)? == b"before", "{answer:?}");
    no_leader(async || kv.clone().range(ask(false)).await).await?;
    // So it is of a transaction that only reads, and of the members.
    let answer = kv.txn(txn(true)).await?.into_inner();
    ensure!(
        answer.succeeded && answer.responses.len() == 1,
        "{answer:?}"
    );
    no_leader(async || kv.clone().txn(txn(false)).await).await?;
    // One within another asks for the latest, as in etcd, whatever is read in it.
    no_leader(async || kv.clone().txn(nested()).await).await?;
    // And one that only compares, which says nowhere that less will do.
    no_leader(async || kv.clone().txn(TxnRequest::default()).await).await?;
    let mut members = ClusterClient::new(channel(&cluster.address(alone)?).await?);
    let listed = members.member_list(list(false)).await?.into_inner();
    ensure!(listed.members.len() == 3, "{listed:?}");
    no_leader(async || members.clone().member_list(list(true)).await).await?;
    let answer = kv.range(ask(true)).await?.into_inner();
    ensure!(value(&answer)? == b"before", "{answer:?}");
    // What stands in its way is told to who asks for its status.
    let mut maintenance = MaintenanceClient::new(channel(&cluster.address(alone)?).await?);
    let status = maintenance.status(StatusRequest {}).await?.into_inner();
    ensure!(status.leader == 0, "{status:?}");
    let [why] = &status.errors[..] else {
        anyhow::bail!("one reason expected: {status:?}");
    };
    ensure!(why.contains("T-00"), "{why}");

    cluster.restart_all().await?;
    until("a linearizable read again", SETTLED_WITHIN, async || {
        let answer = kv.range(ask(false)).await?.into_inner();
        ensure!(value(&answer)? == b"before", "{answer:?}");
        Ok(())
    })
    .await?;
    cluster.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_only_reads_is_not_written_to_the_log() -> Result<()> {
    let cluster = Cluster::start(3).await?;
    let leader = cluster.leader().await?;
    let mut kv = client(&cluster, &leader).await?;
    kv.put(put("once".to_owned())).await?;
    let before = cluster.state_hashes_agree().await?;
    for name in cluster.names() {
        let mut kv = client(&cluster, &name).await?;
        for serializable in [true, false] {
            let answer = kv.txn(txn(serializable)).await?.into_inner();
            ensure!(
                answer.succeeded && answer.responses.len() == 1,
                "{answer:?}"
            );
        }
    }
    let after = cluster.status(&leader).await?;
    ensure!(
        (after.last_log_index, after.applied_index) == (before, before),
        "entry {before} was the last one: {after:?}"
    );
    cluster.stop().await
}
