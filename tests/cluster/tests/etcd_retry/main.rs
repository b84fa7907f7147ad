//! A write through the etcd API whose answer is lost and whose leader is killed is applied once: sent
//! again under its tag by the client, or, without one, passed on again by the members themselves.

mod counting;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use counting::{By, Writers, count_up, timely};
use tally_proto::etcd::kv_client::KvClient;
use tally_proto::etcd::{RangeRequest, TxnResponse};
use tally_proto::mvcc::KeyValue;
use tally_proto::v1;
use tally_testkit::keys::{outcome, tag_request};
use tally_testkit::leader_loss::{Fault, cluster_for};
use tally_testkit::{Cluster, Mode, Proxy, Requester, channel, lazy_channel, rounds, until};
use tonic::transport::Channel;
use tonic::{Response, Status};

const SEEN_WITHIN: Duration = Duration::from_secs(20);
const KEY: &str = "counter";

/// Sessions of a member's own, which take turns.
const LANES: usize = 16;

/// Rounds at most until an answer was lost between two members.
const ROUNDS_MAX: usize = 400;

/// Writers without tags on each member that has any.
const WRITERS: usize = 16;

async fn send(
    to: Channel,
    version: i64,
    tag: Option<&v1::Tag>,
) -> Result<Response<TxnResponse>, Status> {
    let mut request = timely(count_up(KEY, version));
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
        let (leader, mut followers) = cluster.leader_and_followers().await?;
        let witness = followers.remove(round % 2);
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

/// How often members had a write applied already when they passed it on again.
async fn recognised(cluster: &Cluster, names: &[String]) -> Result<u64> {
    let mut sum = 0;
    for name in names {
        let metrics = cluster.member(name)?.http("/metrics").await?;
        sum += metrics.metric("tally_proposals_recognised_total")?;
    }
    Ok(sum)
}

/// Writers without tags, while one leader after the other is killed. Whoever is not killed answers, and no
/// write is applied twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_untagged_write_is_passed_on_again_and_applied_once() -> Result<()> {
    let mut cluster = Cluster::start(3).await?;
    let (mut again, mut round) = (0, 0);
    // As long as no answer was lost, nothing was shown.
    while round < rounds(4, 200) || (again == 0 && round < ROUNDS_MAX) {
        let (leader, followers) = cluster.leader_and_followers().await?;
        let addresses = followers.iter().map(|name| cluster.address(name));
        let addresses: Vec<String> = addresses.collect::<Result<_>>()?;
        let before = recognised(&cluster, &followers).await?;

        let prefix = format!("{round}/");
        let does = [By::Put, By::Txn];
        let mut writers = Writers::start(&addresses, WRITERS, &does, &prefix).await?;
        writers.go_on().await?;
        cluster.kill(&leader)?;
        let what = || format!("round {round}: after {leader} was killed");
        writers.go_on().await.with_context(what)?;
        let written = writers.stop().await.with_context(what)?;
        again += recognised(&cluster, &followers).await? - before;

        cluster.restart(&leader).await?;
        all_as_written(&cluster.address(&leader)?, round, &written).await?;
        round += 1;
    }
    println!("{again} writes that members passed on again had been applied");
    ensure!(again > 0, "no answer was lost in {round} rounds");
    cluster.state_hashes_agree().await?;
    cluster.stop().await
}

/// The answer to a write that a member passed on is lost on the way from the leader, which has applied it and is
/// then killed: the client sees its write answered, and it was applied once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_is_lost_between_members_is_given_by_the_next_leader() -> Result<()> {
    let Some(mut cluster) = Cluster::start_on_hosts(3, &[]).await? else {
        return Ok(());
    };
    let mut version = 0;
    for round in 0..rounds(4, 200) {
        let (leader, followers) = cluster.leader_and_followers().await?;
        let [passes_on, witness] = <[String; 2]>::try_from(followers)
            .map_err(|found| anyhow::anyhow!("not two followers: {found:?}"))?;
        let port = cluster.member(&leader)?.peer_address();
        let (_, port) = port.rsplit_once(':').context("no port")?;

        // So that the connection is there, and every session of that member: what is lost is the answer to this
        // one request, not to what comes before it.
        let address = cluster.address(&passes_on)?;
        let to = channel(&address).await?;
        for _ in 0..LANES {
            let done = send(to.clone(), version, None).await?.into_inner();
            ensure!(done.succeeded, "round {round}: {done:?}");
            version += 1;
        }
        let before = recognised(&cluster, std::slice::from_ref(&passes_on)).await?;
        let hosts = cluster.hosts()?;
        hosts.swallow_answers(&leader, port.parse()?, &passes_on)?;
        let asked = tokio::spawn(async move { send(to, version, None).await });
        applied(&cluster.address(&witness)?, version + 1).await?;
        ensure!(
            !asked.is_finished(),
            "round {round}: the answer was not lost"
        );
        cluster.kill(&leader)?;

        let answer = asked.await?.with_context(|| format!("round {round}"))?;
        let answer = answer.into_inner();
        ensure!(answer.succeeded, "round {round}: {answer:?}");
        version += 1;
        let now = stored(&address, false).await?.context("no such key")?;
        ensure!(now.version == version, "round {round}: {now:?}");
        let after = recognised(&cluster, std::slice::from_ref(&passes_on)).await?;
        ensure!(after == before + 1, "round {round}: {before}, then {after}");
        cluster.hosts()?.heal()?;
        cluster.restart(&leader).await?;
    }
    cluster.state_hashes_agree().await?;
    cluster.stop().await
}

/// Requests that have time left are answered by every member, the old leader too, whatever becomes of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_change_of_leader_is_an_error_to_who_has_time() -> Result<()> {
    let alive = Fault::ALL.into_iter().filter(|fault| *fault != Fault::Kill);
    let (mut cluster, faults) = cluster_for(&alive.collect::<Vec<_>>(), &[]).await?;
    let addresses = cluster.names().into_iter();
    let addresses = addresses.map(|name| cluster.address(&name));
    let addresses: Vec<String> = addresses.collect::<Result<_>>()?;
    for round in 0..rounds(faults.len(), 50) {
        let fault = faults[round % faults.len()];
        let (leader, mut followers) = cluster.leader_and_followers().await?;
        let heir = followers.remove(round % 2);
        let what = || format!("round {round}: {leader} {fault}");

        let prefix = format!("{round}/");
        let mut writers = Writers::start(&addresses, WRITERS, &By::ALL, &prefix).await?;
        writers.go_on().await?;
        fault.strike(&mut cluster, &leader, &heir).await?;
        writers.go_on().await.with_context(what)?;
        if !fault.leaves_it_in() {
            fault.mend(&mut cluster, &leader)?;
        }
        writers.go_on().await.with_context(what)?;
        let written = writers.stop().await.with_context(what)?;
        cluster.all_ready().await?;
        all_as_written(&cluster.address(&leader)?, round, &written).await?;
    }
    cluster.state_hashes_agree().await?;
    cluster.stop().await
}

/// A member that is asked to end, the leader or another one, is no error to who asks the others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_orderly_end_is_no_error_to_who_asks_the_others() -> Result<()> {
    let mut cluster = Cluster::start(3).await?;
    for round in 0..rounds(4, 50) {
        let (leader, mut followers) = cluster.leader_and_followers().await?;
        let ends = match round % 2 {
            0 => leader,
            _ => followers.remove(0),
        };
        let others = cluster.names().into_iter().filter(|name| *name != ends);
        let addresses = others.map(|name| cluster.address(&name));
        let addresses: Vec<String> = addresses.collect::<Result<_>>()?;
        let what = || format!("round {round}: {ends} is asked to end");

        let prefix = format!("{round}/");
        let mut writers = Writers::start(&addresses, WRITERS, &By::ALL, &prefix).await?;
        writers.go_on().await?;
        cluster.stop_member(&ends).await.with_context(what)?;
        writers.go_on().await.with_context(what)?;
        cluster.restart(&ends).await.with_context(what)?;
        writers.go_on().await.with_context(what)?;
        let written = writers.stop().await.with_context(what)?;
        all_as_written(&cluster.address(&ends)?, round, &written).await?;
    }
    cluster.state_hashes_agree().await?;
    cluster.stop().await
}

/// The keys of a round have the versions that their writers say.
async fn all_as_written(
    address: &str,
    round: usize,
    written: &BTreeMap<String, i64>,
) -> Result<()> {
    let all = RangeRequest {
        key: format!("{round}/").into(),
        range_end: format!("{round}0").into(),
        ..Default::default()
    };
    let mut client = KvClient::new(channel(address).await?);
    let stored = client.range(all).await?.into_inner().kvs.into_iter();
    let stored = stored.map(|pair| Ok((String::from_utf8(pair.key.to_vec())?, pair.version)));
    let stored = stored.collect::<Result<BTreeMap<_, _>>>()?;
    ensure!(
        stored == *written,
        "round {round}: stored {stored:?}, written {written:?}"
    );
    Ok(())
}
