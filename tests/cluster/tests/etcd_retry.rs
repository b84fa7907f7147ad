//! A write through the etcd API whose answer is lost and whose leader is killed is applied once: sent
//! again under its tag by the client, or, without one, passed on again by the members themselves.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tally_proto::etcd::compare::{CompareResult, CompareTarget, TargetUnion};
use tally_proto::etcd::kv_client::KvClient;
use tally_proto::etcd::request_op::Request as Op;
use tally_proto::etcd::{Compare, PutRequest, RangeRequest, RequestOp, TxnRequest, TxnResponse};
use tally_proto::mvcc::KeyValue;
use tally_proto::v1;
use tally_testkit::keys::tag_request;
use tally_testkit::{Cluster, Mode, Proxy, Requester, channel, lazy_channel, rounds, until};
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

const ATTEMPT: Duration = Duration::from_secs(20);
const SEEN_WITHIN: Duration = Duration::from_secs(20);
const KEY: &str = "counter";

/// `if version == n then put`, as a client does that counts on its own writes.
fn count_up(version: i64) -> TxnRequest {
    let put = PutRequest {
        key: KEY.into(),
        value: (version + 1).to_string().into(),
        ..Default::default()
    };
    TxnRequest {
        compare: vec![Compare {
            result: CompareResult::Equal.into(),
            target: CompareTarget::Version.into(),
            key: KEY.into(),
            target_union: Some(TargetUnion::Version(version)),
            ..Default::default()
        }],
        success: vec![RequestOp {
            request: Some(Op::RequestPut(put)),
        }],
        failure: Vec::new(),
    }
}

async fn send(
    to: Channel,
    version: i64,
    tag: Option<&v1::Tag>,
) -> Result<Response<TxnResponse>, Status> {
    let mut request = Request::new(count_up(version));
    request.set_timeout(ATTEMPT);
    if let Some(tag) = tag {
        tag_request(&mut request, tag).map_err(|error| Status::internal(error.to_string()))?;
    }
    KvClient::new(to).txn(request).await
}

async fn stored(address: &str, serializable: bool) -> Result<Option<KeyValue>> {
    let mut client = KvClient::new(channel(address).await?);
    let ask = RangeRequest {
        key: KEY.into(),
        serializable,
        ..Default::default()
    };
    let found = client.range(ask).await?.into_inner();
    Ok(found.kvs.into_iter().next())
}

/// Waits until a member has applied the write.
async fn applied(address: &str, version: i64) -> Result<KeyValue> {
    let what = format!("{address} has version {version}");
    until(&what, SEEN_WITHIN, async || {
        let found = stored(address, true).await?.context("no such key")?;
        ensure!(found.version == version, "its version is {}", found.version);
        Ok(found)
    })
    .await
}

fn outcome<T>(answer: &Response<T>) -> Option<&str> {
    let value = answer.metadata().get("tally-outcome")?;
    value.to_str().ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tagged_transaction_is_recognised_by_the_next_leader() -> Result<()> {
    let mut cluster = Cluster::start(3).await?;
    for round in 0..rounds(4, 200) {
        let version = i64::try_from(round)?;
        let leader = cluster.leader().await?;
        let witness = cluster.followers().await?.remove(round % 2);
        let address = cluster.address(&leader)?;
        let mut requester = Requester::open(&address).await?;
        let tag = requester.next_tag();

        let proxy = Proxy::before(&address).await?;
        let to = channel(&proxy.address()).await?;
        proxy.set(Mode::SwallowAnswers);
        let lost = tokio::spawn({
            let tag = tag.clone();
            async move { send(to, version, Some(&tag)).await }
        });
        let first = applied(&cluster.address(&witness)?, version + 1).await?;
        cluster.kill(&leader)?;
        ensure!(
            !lost.is_finished(),
            "round {round}: the lost answer arrived"
        );
        lost.abort();

        let again = lazy_channel(&cluster.address(&witness)?)?;
        let answer = send(again.clone(), version, Some(&tag)).await?;
        ensure!(
            outcome(&answer) == Some("replayed"),
            "round {round}: {answer:?}"
        );
        let answer = answer.into_inner();
        ensure!(answer.succeeded, "round {round}: {answer:?}");
        let revision = answer.header.context("no header")?.revision;
        ensure!(
            revision == first.mod_revision,
            "round {round}: at {revision}"
        );
        let now = stored(&cluster.address(&witness)?, false).await?;
        ensure!(
            now.as_ref() == Some(&first),
            "round {round}: {now:?} was {first:?}"
        );

        // The same again without the tag is another request, which finds what the first one did.
        let stranger = send(again, version, None).await?.into_inner();
        ensure!(!stranger.succeeded, "round {round}: {stranger:?}");
        cluster.restart(&leader).await?;
    }
    cluster.state_hashes_agree().await?;
    cluster.stop().await
}

/// Writers without tags write each key once, while one leader after the other is killed. Whoever is
/// not killed answers, and no key has two versions.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_untagged_write_is_passed_on_again_and_applied_once() -> Result<()> {
    let mut cluster = Cluster::start(3).await?;
    for round in 0..rounds(4, 200) {
        let leader = cluster.leader().await?;
        let mut writers = tokio::task::JoinSet::new();
        for follower in cluster.followers().await? {
            let to = channel(&cluster.address(&follower)?).await?;
            for number in 0..16 {
                let (to, key) = (to.clone(), format!("{round}/{follower}/{number}"));
                writers.spawn(async move {
                    for step in 0..8 {
                        let put = PutRequest {
                            key: format!("{key}/{step}").into(),
                            value: "once".into(),
                            prev_kv: true,
                            ..Default::default()
                        };
                        let mut request = Request::new(put);
                        request.set_timeout(ATTEMPT);
                        let answer = KvClient::new(to.clone()).put(request).await?;
                        let before = answer.into_inner().prev_kv;
                        ensure!(before.is_none(), "{key}/{step} was put before: {before:?}");
                    }
                    Ok(())
                });
            }
        }
        let all = RangeRequest {
            key: format!("{round}/").into(),
            range_end: format!("{round}0").into(),
            ..Default::default()
        };
        let follower = channel(&cluster.address(&cluster.followers().await?[0])?).await?;
        let begun = RangeRequest {
            serializable: true,
            count_only: true,
            ..all.clone()
        };
        until("some are written", SEEN_WITHIN, async || {
            let counted = KvClient::new(follower.clone()).range(begun.clone()).await?;
            ensure!(counted.into_inner().count > 0, "none is");
            Ok(())
        })
        .await?;
        cluster.kill(&leader)?;
        ensure!(!writers.is_empty(), "every writer had ended before");
        while let Some(done) = writers.join_next().await {
            done?.with_context(|| format!("round {round}: after {leader} was killed"))?;
        }
        cluster.restart(&leader).await?;
        let address = cluster.address(&leader)?;
        let mut client = KvClient::new(channel(&address).await?);
        let written = client.range(all).await?.into_inner().kvs;
        ensure!(
            written.len() == 2 * 16 * 8,
            "round {round}: {} keys",
            written.len()
        );
        let twice = written.iter().find(|pair| pair.version != 1);
        ensure!(twice.is_none(), "round {round}: written twice: {twice:?}");
    }
    cluster.state_hashes_agree().await?;
    cluster.stop().await
}
