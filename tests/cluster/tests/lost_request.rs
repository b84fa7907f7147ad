//! The request is lost before it reaches anybody: the retry is the first to take effect.

use std::time::Duration;

use anyhow::{Result, ensure};
use tally_proto::v1::StorageState;
use tally_testkit::{
    AnswerExt, Cluster, Mode, Proxy, Reader, Requester, activations, channel, send,
    send_until_answered,
};

const LOST_WITHIN: Duration = Duration::from_secs(2);
const ANSWERED_WITHIN: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_never_arrived_is_applied_once_by_its_retry() -> Result<()> {
    let cluster = Cluster::start(3).await?;
    let leader = cluster.leader().await?;
    let leader_address = cluster.address(&leader)?;
    let mut requester = Requester::open(&leader_address).await?;
    let (node, incarnation) = requester.register(&leader_address, "ls1").await?;
    let before = cluster.status(&leader).await?.revision;

    let proxy = Proxy::before(&leader_address).await?;
    let lossy = channel(&proxy.address()).await?;
    Reader::stale(&proxy.address()).await?.nodes().await?;
    proxy.set(Mode::DropRequests);
    let dropped = proxy.request_bytes();
    let call = requester.activate_call(node, incarnation);
    let lost = send(&lossy, &call, LOST_WITHIN).await;
    ensure!(lost.is_err(), "it was answered: {lost:?}");
    proxy.request_bytes_above(dropped, LOST_WITHIN).await?;

    let reader = Reader::linearizable(&leader_address).await?;
    assert_eq!(
        reader.known("ls1").await?.state(),
        StorageState::Provisioning
    );
    assert_eq!(cluster.status(&leader).await?.revision, before);

    let follower = cluster.followers().await?.remove(0);
    let address = cluster.address(&follower)?;
    let answer = send_until_answered(&address, &call, ANSWERED_WITHIN).await?;
    assert_eq!(answer.applied(), Some(before + 1), "{answer:?}");
    assert!(!answer.repeat, "{answer:?}");
    let again = send_until_answered(&leader_address, &call, ANSWERED_WITHIN).await?;
    assert_eq!(again.replayed(), Some(before + 1), "{again:?}");

    let history = reader.history(node).await?;
    assert_eq!(activations(&history), [before + 1]);
    cluster.state_hashes_agree().await?;
    cluster.stop().await
}
