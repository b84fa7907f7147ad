//! A write through the etcd API whose answer is lost and whose leader is killed is applied once: sent
//! again under its tag by the client, or, without one, passed on again by the members themselves.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tally_proto::etcd::compare::{CompareResult, CompareTarget, TargetUnion};
use tally_proto::etcd::kv_client::KvClient;
use tally_proto::etcd::request_op::Request as Op;
use tally_proto::etcd::{Compare, PutRequest, RangeRequest, RequestOp, TxnRequest, TxnResponse};
use tally_proto::mvcc::KeyValue;
use tally_proto::v1;
use tally_testkit::keys::{outcome, tag_request};
use tally_testkit::{Cluster, Mode, Proxy, Requester, channel, lazy_channel, rounds, until};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

const ATTEMPT: Duration = Duration::from_secs(20);
const SEEN_WITHIN: Duration = Duration::from_secs(20);
const KEY: &str = "counter";

/// Writers without tags on each follower; one half of them uses transactions.
const WRITERS: usize = 16;

/// The next value, and what was there before.
fn next(key: &str, version: i64) -> PutRequest {
    PutRequest {
        key: key.to_owned().into(),
        value: (version + 1).to_string().into(),
        prev_kv: true,
        ..Default::default()
    }
}

/// `if version == n then put`, as a client does that counts on its own writes.
fn count_up(key: &str, version: i64) -> TxnRequest {
    TxnRequest {
        compare: vec![Compare {
            result: CompareResult::Equal.into(),
            target: CompareTarget::Version.into(),
            key: key.to_owned().into(),
            target_union: Some(TargetUnion::Version(version)),
            ..Default::default()
        }],
        success: vec![RequestOp {
            request: Some(Op::RequestPut(next(key, version))),
        }],
        failure: Vec::new(),
    }
}

async fn send(
    to: Channel,
    version: i64,
    tag: Option<&v1::Tag>,
) -> Result<Response<TxnResponse>, Status> {
    let mut request = Request::new(count_up(KEY, version));
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
            outcome(answer.metadata()) == Some("replayed"),
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

/// How a writer counts its key up.
#[derive(Clone, Copy, Debug)]
enum By {
    /// What was there before tells whether a put was applied twice.
    Put,
    /// A transaction that is applied twice finds its own write.
    Txn,
}

async fn count_once(to: Channel, key: &str, by: By, version: i64) -> Result<()> {
    let mut kv = KvClient::new(to);
    match by {
        By::Put => {
            let mut request = Request::new(next(key, version));
            request.set_timeout(ATTEMPT);
            let before = kv.put(request).await?.into_inner().prev_kv;
            let found = before.as_ref().map_or(0, |pair| pair.version);
            ensure!(found == version, "{key} was {before:?}, not at {version}");
        }
        By::Txn => {
            let mut request = Request::new(count_up(key, version));
            request.set_timeout(ATTEMPT);
            let answer = kv.txn(request).await?.into_inner();
            ensure!(answer.succeeded, "{key} was not at {version}: {answer:?}");
        }
    }
    Ok(())
}

/// Writers that each count a key of their own up, without tags, until they are told to stop.
struct Writers {
    running: JoinSet<Result<(String, i64)>>,
    answered: watch::Receiver<usize>,
    stop: watch::Sender<bool>,
}

impl Writers {
    async fn start(addresses: &[String], prefix: &str) -> Result<Self> {
        let (stop, stopping) = watch::channel(false);
        let (count, answered) = watch::channel(0);
        let mut running = JoinSet::new();
        for (number, address) in addresses.iter().enumerate() {
            let to = channel(address).await?;
            for writer in 0..WRITERS {
                let by = [By::Put, By::Txn][writer % 2];
                let key = format!("{prefix}{number}/{writer}");
                let (to, stopping, count) = (to.clone(), stopping.clone(), count.clone());
                running.spawn(async move {
                    let mut version = 0;
                    while !*stopping.borrow() {
                        count_once(to.clone(), &key, by, version).await?;
                        version += 1;
                        count.send_modify(|count| *count += 1);
                    }
                    Ok((key, version))
                });
            }
        }
        Ok(Self {
            running,
            answered,
            stop,
        })
    }

    /// Waits for more answers than there are writers: one of them is to a write that began only now.
    async fn go_on(&mut self) -> Result<()> {
        let enough = *self.answered.borrow() + self.running.len() + 1;
        let answers = self.answered.wait_for(|count| *count >= enough);
        tokio::select! {
            waited = timeout(SEEN_WITHIN, answers) => {
                waited.context("the writers do not go on")??;
                Ok(())
            }
            Some(ended) = self.running.join_next() => bail!("a writer has ended: {:?}", ended?),
        }
    }

    /// Ends them, and tells how often each key was written.
    async fn stop(mut self) -> Result<BTreeMap<String, i64>> {
        self.stop.send_replace(true);
        let mut written = BTreeMap::new();
        while let Some(ended) = self.running.join_next().await {
            written.extend([ended??]);
        }
        Ok(written)
    }
}

/// How often these members tried again to have a write applied.
async fn tried_again(cluster: &Cluster, names: &[String]) -> Result<u64> {
    let mut sum = 0;
    for name in names {
        let metrics = cluster.member(name)?.http("/metrics").await?;
        sum += metrics.metric("tally_proposals_retried_total")?;
    }
    Ok(sum)
}

/// Writers without tags count their keys up, while one leader after the other is killed. Whoever is
/// not killed answers, and no write is applied twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_untagged_write_is_passed_on_again_and_applied_once() -> Result<()> {
    let mut cluster = Cluster::start(3).await?;
    let mut again = 0;
    for round in 0..rounds(4, 200) {
        let leader = cluster.leader().await?;
        let followers = cluster.followers().await?;
        let addresses = followers.iter().map(|name| cluster.address(name));
        let addresses: Vec<String> = addresses.collect::<Result<_>>()?;
        let before = tried_again(&cluster, &followers).await?;

        let mut writers = Writers::start(&addresses, &format!("{round}/")).await?;
        writers.go_on().await?;
        cluster.kill(&leader)?;
        let what = || format!("round {round}: after {leader} was killed");
        writers.go_on().await.with_context(what)?;
        let written = writers.stop().await.with_context(what)?;
        again += tried_again(&cluster, &followers).await? - before;

        cluster.restart(&leader).await?;
        let stored = versions(&cluster.address(&leader)?, round).await?;
        ensure!(
            stored == written,
            "round {round}: stored {stored:?}, written {written:?}"
        );
    }
    ensure!(again > 0, "no leader was killed while it had a write");
    println!("members tried again {again} times");
    cluster.state_hashes_agree().await?;
    cluster.stop().await
}

/// The keys of a round, and how often each was put.
async fn versions(address: &str, round: usize) -> Result<BTreeMap<String, i64>> {
    let all = RangeRequest {
        key: format!("{round}/").into(),
        range_end: format!("{round}0").into(),
        ..Default::default()
    };
    let mut client = KvClient::new(channel(address).await?);
    let stored = client.range(all).await?.into_inner().kvs.into_iter();
    let stored = stored.map(|pair| Ok((String::from_utf8(pair.key.to_vec())?, pair.version)));
    stored.collect()
}
