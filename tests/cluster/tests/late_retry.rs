//! A retry comes late: others have moved on meanwhile, and it must not take that back.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tally_proto::v1::{Answer, Consistency, StorageState};
use tally_testkit::{
    AnswerExt, Call, Cluster, Mode, Proxy, Reader, Requester, activations, channel, registrations,
    send, send_until_answered, until,
};
use tokio::task::JoinHandle;
use tonic::Status;

const LOST_WITHIN: Duration = Duration::from_secs(2);
const ANSWERED_WITHIN: Duration = Duration::from_secs(30);

/// A cluster with one provisioned node, whose requester is at the leader, and a way there that can
/// lose things.
struct Scene {
    cluster: Cluster,
    address: String,
    proxy: Proxy,
    requester: Requester,
    operator: Requester,
    reader: Reader,
    node: u32,
    incarnation: u64,
}

impl Scene {
    async fn set() -> Result<Self> {
        let cluster = Cluster::start(3).await?;
        let address = cluster.address(&cluster.leader().await?)?;
        let mut requester = Requester::open(&address).await?;
        let (node, incarnation) = requester.register(&address, "ls1").await?;
        Ok(Self {
            proxy: Proxy::before(&address).await?,
            operator: Requester::open(&address).await?,
            reader: Reader::linearizable(&address).await?,
            cluster,
            address,
            requester,
            node,
            incarnation,
        })
    }

    /// Sends a call and loses its answer, or the call itself.
    async fn lose(&self, call: &Call, mode: Mode) -> Result<()> {
        let lossy = channel(&self.proxy.address()).await?;
        self.proxy.set(mode);
        let lost = send(&lossy, call, LOST_WITHIN).await;
        ensure!(lost.is_err(), "it was answered: {lost:?}");
        self.proxy.set(Mode::Pass);
        Ok(())
    }

    /// Sends a call that arrives when the proxy passes again.
    async fn delay(&self, call: &Call) -> Result<JoinHandle<Result<Answer, Status>>> {
        let slow = channel(&self.proxy.address()).await?;
        // A first call, so that the connection is up.
        Reader::over(slow.clone(), Consistency::Stale)
            .nodes()
            .await?;
        self.proxy.set(Mode::HoldRequests);
        let before = self.proxy.request_bytes();
        let call = call.clone();
        let delayed = tokio::spawn(async move { send(&slow, &call, ANSWERED_WITHIN).await });
        let proxy = &self.proxy;
        proxy.request_bytes_above(before, ANSWERED_WITHIN).await?;
        Ok(delayed)
    }

    /// Sends a call to a follower until it is answered.
    async fn at_a_follower(&self, call: &Call) -> Result<Answer> {
        let follower = self.cluster.followers().await?.remove(0);
        send_until_answered(&self.cluster.address(&follower)?, call, ANSWERED_WITHIN).await
    }

    async fn operator_sets(&mut self, to: StorageState) -> Result<()> {
        let revision = self.reader.known("ls1").await?.revision;
        let call = self.operator.set_state_call(self.node, to, revision);
        let answer = send_until_answered(&self.address, &call, ANSWERED_WITHIN).await?;
        ensure!(answer.applied().is_some(), "{answer:?}");
        Ok(())
    }

    async fn state(&self) -> Result<StorageState> {
        Ok(self.reader.known("ls1").await?.state())
    }

    async fn end(self) -> Result<()> {
        self.cluster.state_hashes_agree().await?;
        self.cluster.stop().await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_retry_of_what_was_done_does_not_undo_an_operators_change() -> Result<()> {
    let mut scene = Scene::set().await?;
    let activate = scene.requester.activate_call(scene.node, scene.incarnation);
    scene.lose(&activate, Mode::SwallowAnswers).await?;
    until("the activation is applied", ANSWERED_WITHIN, async || {
        let state = scene.state().await?;
        ensure!(state == StorageState::ReadWrite, "{state:?}");
        Ok(())
    })
    .await?;
    let history = scene.reader.history(scene.node).await?;
    let activated = *activations(&history).first().context("no activation")?;
    scene.operator_sets(StorageState::ReadOnly).await?;

    let late = scene.at_a_follower(&activate).await?;
    assert_eq!(late.replayed(), Some(activated), "{late:?}");
    assert_eq!(late.now(), StorageState::ReadOnly, "{late:?}");
    assert_eq!(scene.state().await?, StorageState::ReadOnly);
    let history = scene.reader.history(scene.node).await?;
    assert_eq!(activations(&history), [activated]);
    scene.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_first_arrival_does_not_revive_a_disabled_node() -> Result<()> {
    let mut scene = Scene::set().await?;
    let activate = scene.requester.activate_call(scene.node, scene.incarnation);
    scene.lose(&activate, Mode::DropRequests).await?;
    scene.operator_sets(StorageState::Disabled).await?;

    let late = scene.at_a_follower(&activate).await?;
    ensure!(late.refused().is_some(), "{late:?}");
    assert_eq!(scene.state().await?, StorageState::Disabled);
    // The refusal is the outcome of this tag from now on.
    let again = scene.at_a_follower(&activate).await?;
    assert_eq!(again.refused(), late.refused());
    ensure!(again.repeat, "{again:?}");
    let activations = activations(&scene.reader.history(scene.node).await?);
    ensure!(activations.is_empty(), "{activations:?}");
    scene.end().await
}

/// The first copy of the request is on its way for so long that the second one is answered, and others
/// move on, before it arrives.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_copy_that_arrives_after_the_second_changes_nothing() -> Result<()> {
    let mut scene = Scene::set().await?;
    let activate = scene.requester.activate_call(scene.node, scene.incarnation);
    let delayed = scene.delay(&activate).await?;
    let second = scene.at_a_follower(&activate).await?;
    let activated = second
        .applied()
        .context("the second copy was not applied")?;
    scene.operator_sets(StorageState::ReadOnly).await?;
    let before = scene.reader.known("ls1").await?;

    scene.proxy.set(Mode::Pass);
    let first = delayed.await??;
    assert_eq!(first.replayed(), Some(activated), "{first:?}");
    ensure!(first.repeat, "{first:?}");
    assert_eq!(first.now(), StorageState::ReadOnly, "{first:?}");
    assert_eq!(scene.reader.known("ls1").await?, before);
    let history = scene.reader.history(scene.node).await?;
    assert_eq!(activations(&history), [activated]);
    scene.end().await
}

/// The requester gave the delayed request up, and said so with a later one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_arrives_below_the_acknowledged_mark_is_never_applied() -> Result<()> {
    let mut scene = Scene::set().await?;
    let activate = scene.requester.activate_call(scene.node, scene.incarnation);
    let delayed = scene.delay(&activate).await?;
    scene.requester.acknowledge_all();
    let later = scene.requester.register_call("ls2", None);
    let later = scene.at_a_follower(&later).await?;
    ensure!(later.applied().is_some(), "{later:?}");

    scene.proxy.set(Mode::Pass);
    let late = delayed.await??;
    assert_eq!(late.refused(), Some("T-203"), "{late:?}");
    assert_eq!(scene.state().await?, StorageState::Provisioning);
    let history = scene.reader.history(scene.node).await?;
    ensure!(activations(&history).is_empty(), "{history:?}");
    scene.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tag_stands_for_one_request_and_an_acknowledged_one_for_none() -> Result<()> {
    let mut scene = Scene::set().await?;
    let first = scene.requester.register_call("ls2", None);
    let answer = scene.at_a_follower(&first).await?;
    let revision = answer.applied().context("not applied")?;

    // Another request under the same tag.
    let Call::Register(mut other) = first.clone() else {
        anyhow::bail!("not a registration");
    };
    other.name = "ls3".to_owned();
    let reused = scene.at_a_follower(&Call::Register(other)).await?;
    assert_eq!(reused.refused(), Some("T-202"), "{reused:?}");

    // The first one again, now after a later one and before it is acknowledged.
    let second = scene.requester.register_call("ls4", None);
    scene.at_a_follower(&second).await?;
    let delayed = scene.at_a_follower(&first).await?;
    assert_eq!(delayed.replayed(), Some(revision), "{delayed:?}");

    // And after it was acknowledged: its outcome is forgotten, and it is not done again.
    scene.requester.acknowledge_all();
    let third = scene.requester.register_call("ls5", None);
    scene.at_a_follower(&third).await?;
    let forgotten = scene.at_a_follower(&first).await?;
    assert_eq!(forgotten.refused(), Some("T-203"), "{forgotten:?}");

    let names: Vec<String> = {
        let nodes = scene.reader.nodes().await?.into_iter();
        nodes.map(|node| node.name).collect()
    };
    assert_eq!(names, ["ls1", "ls2", "ls4", "ls5"]);
    assert_eq!(registrations(&scene.reader.history(0).await?).len(), 4);
    scene.end().await
}
