//! Leases while leadership moves: a key stays as long as someone shows signs of life, whoever was paused
//! meanwhile, and no time is won or lost by a new leader or a restart.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tally_proto::etcd::kv_client::KvClient;
use tally_proto::etcd::lease_client::LeaseClient;
use tally_proto::etcd::{
    LeaseGrantRequest, LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseLeasesRequest,
    LeaseRevokeRequest, LeaseTimeToLiveRequest, PutRequest, RangeRequest,
};
use tally_testkit::{Cluster, channel, until, while_observing};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;

const KEY: &str = "leased";
const ANSWERED_WITHIN: Duration = Duration::from_secs(30);

/// Grants a lease and puts a key under it.
async fn granted(to: &Channel, ttl: i64) -> Result<i64> {
    let ask = LeaseGrantRequest { ttl, id: 0 };
    let granted = LeaseClient::new(to.clone()).lease_grant(ask).await?;
    let lease = granted.into_inner().id;
    let put = PutRequest {
        key: KEY.into(),
        lease,
        ..Default::default()
    };
    KvClient::new(to.clone()).put(put).await?;
    Ok(lease)
}

/// Seconds that are left; -1 when there is no such lease.
async fn left(to: &Channel, id: i64) -> Result<i64> {
    let ask = LeaseTimeToLiveRequest { id, keys: true };
    let found = LeaseClient::new(to.clone()).lease_time_to_live(ask).await?;
    Ok(found.into_inner().ttl)
}

/// Shows one sign of life.
async fn renewed(to: &Channel, id: i64) -> Result<()> {
    let ask = tokio_stream::iter([LeaseKeepAliveRequest { id }]);
    let answers = LeaseClient::new(to.clone()).lease_keep_alive(ask).await?;
    let answer = answers.into_inner().message().await?;
    let answer = answer.context("no answer")?;
    ensure!(answer.ttl > 0, "the lease has ended: {answer:?}");
    Ok(())
}

async fn there(to: &Channel) -> Result<bool> {
    let ask = RangeRequest {
        key: KEY.into(),
        ..Default::default()
    };
    let found = KvClient::new(to.clone()).range(ask).await?;
    Ok(found.into_inner().count == 1)
}

async fn gone(to: &Channel) -> Result<()> {
    until("the key ends with its lease", ANSWERED_WITHIN, async || {
        ensure!(!there(to).await?, "it is there");
        Ok(())
    })
    .await
}

/// The leader is paused for longer than the lease lives, and resumed; the lease is renewed elsewhere.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_was_paused_ends_no_lease_that_was_renewed() -> Result<()> {
    const TTL: Duration = Duration::from_secs(2);
    let cluster = Cluster::start(3).await?;
    let leader = cluster.leader().await?;
    let follower = cluster.followers().await?.remove(0);
    let to = channel(&cluster.address(&follower)?).await?;
    let lease = granted(&to, 2).await?;
    cluster.pause(&leader)?;
    until(
        "a renewal without the paused leader",
        ANSWERED_WITHIN,
        async || renewed(&to, lease).await,
    )
    .await?;
    let lives = || async {
        renewed(&to, lease).await?;
        ensure!(there(&to).await?, "the key is gone");
        Ok(())
    };
    while_observing("a renewed lease while a leader is paused", 3 * TTL, lives).await?;
    cluster.resume(&leader)?;
    while_observing("a renewed lease after it is resumed", 2 * TTL, lives).await?;
    gone(&to).await?;
    cluster.state_hashes_agree().await?;
    cluster.stop().await
}

/// A stream of signs of life through a follower goes on while leadership is handed over, and when the leader is killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_of_renewals_outlives_leaders() -> Result<()> {
    const AT_ONCE: i64 = 200;
    let mut cluster = Cluster::start(3).await?;
    let [through, heir] = <[String; 2]>::try_from(cluster.followers().await?)
        .map_err(|found| anyhow::anyhow!("not two followers: {found:?}"))?;
    let to = channel(&cluster.address(&through)?).await?;
    let leases = [granted(&to, 600).await?, granted(&to, 1_200).await?];
    let (send, asks) = mpsc::channel(16);
    let mut client = LeaseClient::new(to.clone());
    let stream = client.lease_keep_alive(ReceiverStream::new(asks)).await?;
    let mut stream = stream.into_inner();
    renews(&send, &mut stream, leases, AT_ONCE).await?;
    cluster.transfer_leader(&heir).await?;
    renews(&send, &mut stream, leases, AT_ONCE).await?;
    cluster.kill(&heir)?;
    // Without waiting for the next leader.
    renews(&send, &mut stream, leases, AT_ONCE).await?;
    cluster.restart(&heir).await?;
    // They are listed in the order in which they end.
    for id in [1, i64::MAX] {
        let ask = LeaseGrantRequest { ttl: 900, id };
        client.lease_grant(ask).await?;
        let listed = client.lease_leases(LeaseLeasesRequest {}).await?;
        let listed = listed.into_inner().leases.into_iter();
        let listed: Vec<i64> = listed.map(|lease| lease.id).collect();
        ensure!(listed == [leases[0], id, leases[1]], "{listed:?}");
        client.lease_revoke(LeaseRevokeRequest { id }).await?;
    }
    cluster.state_hashes_agree().await?;
    cluster.stop().await
}

/// Asks for so many renewals of two leases in turn, as fast as the stream takes them; each is answered, in the order in
/// which it was asked for.
async fn renews(
    send: &mpsc::Sender<LeaseKeepAliveRequest>,
    stream: &mut Streaming<LeaseKeepAliveResponse>,
    leases: [i64; 2],
    at_once: i64,
) -> Result<()> {
    let turns = || leases.into_iter().cycle().zip(0..at_once);
    let asks = async {
        for (id, _) in turns() {
            send.send(LeaseKeepAliveRequest { id }).await?;
        }
        anyhow::Ok(())
    };
    let answers = async {
        for (id, number) in turns() {
            let answer = timeout(ANSWERED_WITHIN, stream.message()).await;
            let answer = answer.with_context(|| format!("renewal {number}"))??;
            let answer = answer.context("the stream ended")?;
            ensure!(answer.id == id && answer.ttl >= 600, "{number}: {answer:?}");
        }
        Ok(())
    };
    tokio::try_join!(asks, answers)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_time_left_survives_leaders_and_a_full_restart() -> Result<()> {
    const TTL: i64 = 60;
    const SHORT: u64 = 5;
    let mut cluster = Cluster::start(3).await?;
    let names = cluster.names();
    let to = channel(&cluster.address(&names[0])?).await?;
    let begun = Instant::now();
    let lease = granted(&to, TTL).await?;
    // No more has passed for the lease than for everybody, and what is left is told in whole seconds.
    let at_least = || anyhow::Ok(TTL - i64::try_from(begun.elapsed().as_secs())? - 1);
    let mut least = until("some of its time has passed", ANSWERED_WITHIN, async || {
        let left = left(&to, lease).await?;
        ensure!(left <= TTL - 3, "{left} s are left");
        Ok(left)
    })
    .await?;
    for round in 0..3 {
        let heir = cluster.followers().await?.remove(round % 2);
        cluster.transfer_leader(&heir).await?;
        let now = left(&to, lease).await?;
        ensure!(
            at_least()? <= now && now <= least,
            "{now} s after {least} s, led by {heir}"
        );
        least = now;
    }
    cluster.kill_all()?;
    cluster.restart_all().await?;
    let to = channel(&cluster.address(&names[0])?).await?;
    let now = left(&to, lease).await?;
    ensure!(
        at_least()? <= now && now <= least,
        "{now} s after {least} s, and a restart"
    );
    ensure!(there(&to).await?, "the key is gone before its time");
    let revoke = LeaseRevokeRequest { id: lease };
    LeaseClient::new(to.clone()).lease_revoke(revoke).await?;
    ensure!(!there(&to).await?, "the key is there without its lease");

    // What the new leader counts ends a lease, and not before its time.
    let begun = Instant::now();
    let lease = granted(&to, SHORT.try_into()?).await?;
    gone(&to).await?;
    let lived = begun.elapsed();
    ensure!(
        lived >= Duration::from_secs(SHORT),
        "it ended after {lived:?}"
    );
    ensure!(left(&to, lease).await? == -1, "the lease is still there");
    cluster.state_hashes_agree().await?;
    cluster.stop().await
}
