//! Someone else asks for a node under another marker.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tally_proto::v1::{Answer, StorageState};
use tally_testkit::{
    AnswerExt, Cluster, LogServer, Reader, Requester, activations, fresh_marker,
    send_until_answered,
};

const ANSWERED_WITHIN: Duration = Duration::from_secs(30);
const RACES: usize = 12;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_marker_is_refused_and_recorded_and_the_owner_goes_on() -> Result<()> {
    let cluster = Cluster::start(3).await?;
    let operator = cluster.operator();
    let owner = LogServer::new("ls1", operator.clone())?;
    owner.start_up().await?.expect_code(0)?;

    let reader = Reader::linearizable(&cluster.address("n1")?).await?;
    let before = reader.known("ls1").await?;
    let stranger = LogServer::new("ls1", operator.clone())?;
    // It finds the name taken and bound before it has a marker to show.
    let refused = stranger.start_up().await?.expect_code(4)?;
    ensure!(refused.said().contains("T-31"), "{}", refused.said());

    let address = cluster.address("n2")?;
    let mut thief = Requester::open(&address).await?;
    let marker = thief.marker();
    let call = thief.register_call("ls1", Some(marker.clone()));
    let answer = send_until_answered(&address, &call, ANSWERED_WITHIN).await?;
    assert_eq!(answer.refused(), Some("T-310"), "{answer:?}");
    let answer = thief
        .activate(&address, before.id, before.incarnation)
        .await?;
    assert_eq!(answer.refused(), Some("T-310"), "{answer:?}");

    let claims = reader.claims(before.id).await?;
    let claim = claims
        .iter()
        .find(|claim| claim.marker.as_ref() == Some(&marker));
    assert_eq!(claim.context("no claim of the thief")?.attempts, 2);
    let shown = operator.run(&["node", "claims", "ls1"]).await?;
    let shown = shown.expect_code(0)?.said();
    ensure!(shown.contains(&hex(&marker.bits)[..4]), "{shown}");

    let after = reader.known("ls1").await?;
    assert_eq!(after.binding, before.binding);
    assert_eq!(after.state(), StorageState::ReadWrite);
    assert_eq!(after.incarnation, before.incarnation);
    owner.start_up().await?.expect_code(0)?;
    assert_eq!(activations(&reader.history(before.id).await?).len(), 1);
    cluster.state_hashes_agree().await?;
    cluster.stop().await
}

/// A second log server whose marker was made elsewhere, for example on a copied disk image, shows it
/// and is refused with the code for a conflict.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_server_with_a_marker_of_its_own_ends_with_a_conflict() -> Result<()> {
    let cluster = Cluster::start(3).await?;
    let operator = cluster.operator();
    let mut late = LogServer::new("first", operator.clone())?;
    late.start_up().await?.expect_code(0)?;
    let owner = LogServer::new("second", operator.clone())?;
    owner.start_up().await?.expect_code(0)?;

    late.rename("second")?;
    let refused = late.start_up().await?;
    let refused = refused.expect_code(4)?;
    ensure!(refused.said().contains("T-310"), "{}", refused.said());
    let claims = operator.run(&["node", "claims", "second"]).await?;
    claims.expect_code(0)?;
    let reader = Reader::linearizable(&cluster.address("n3")?).await?;
    let node = reader.known("second").await?;
    assert_eq!(reader.claims(node.id).await?.len(), 1);
    owner.start_up().await?.expect_code(0)?;
    cluster.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_markers_that_race_for_a_fresh_node_one_wins() -> Result<()> {
    let cluster = Cluster::start(3).await?;
    let reader = Reader::linearizable(&cluster.address("n1")?).await?;
    for race in 1..=RACES {
        let name = format!("raced-{race}");
        let (one, two) = tokio::try_join!(
            contender(cluster.address("n2")?, name.clone()),
            contender(cluster.address("n3")?, name.clone()),
        )?;
        let won = [&one, &two].map(|answer| answer.applied().is_some());
        ensure!(won[0] != won[1], "race {race}: {one:?} and {two:?}");
        let loser = if won[0] { &two } else { &one };
        let code = loser.refused().with_context(|| format!("{loser:?}"))?;
        ensure!(["T-310", "T-320"].contains(&code), "race {race}: {loser:?}");
        let node = reader.known(&name).await?;
        assert_eq!(activations(&reader.history(node.id).await?).len(), 1);
    }
    cluster.state_hashes_agree().await?;
    cluster.stop().await
}

/// Registers without showing a marker, as a first start does, and activates under its own.
async fn contender(address: String, name: String) -> Result<Answer> {
    let marker = fresh_marker();
    let mut requester = Requester::open_as(&address, marker).await?;
    let marker = requester.marker();
    let call = requester.register_call(&name, Some(marker));
    let answer = send_until_answered(&address, &call, ANSWERED_WITHIN).await?;
    let Some((node, incarnation)) = answer.registered() else {
        return Ok(answer);
    };
    requester.activate(&address, node, incarnation).await
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
