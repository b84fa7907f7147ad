//! A member comes back with an empty directory: it has forgotten its votes, so it must not vote.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tally_proto::v1::{Role, StatusResponse};
use tally_testkit::{Cluster, Reader, Requester, until, while_observing};

const SAID_WITHIN: Duration = Duration::from_secs(30);
/// Several times the longest election timeout.
const NO_ELECTION_FOR: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_member_does_not_vote_until_it_is_replaced() -> Result<()> {
    let mut cluster = Cluster::start(3).await?;
    let old = cluster.status("n2").await?.member;
    Requester::open(&cluster.address("n1")?)
        .await?
        .register(&cluster.address("n1")?, "ls1")
        .await?;
    wipe(&mut cluster, "n2").await?;

    cluster.kill("n3")?;
    no_leader(&cluster, "n1").await?;
    while_observing("n2 counts for a majority", NO_ELECTION_FOR, async || {
        let status = cluster.status("n1").await?;
        ensure!(
            status.role() != Role::Leader,
            "n1 leads with {:?}",
            status.members
        );
        outside(&cluster.status("n2").await?)
    })
    .await?;

    cluster.launch("n3")?;
    cluster.ready("n3").await?;
    let replaced = cluster.operator().run(&["member", "replace", "n2"]).await?;
    replaced.expect_code(0)?;
    cluster.all_ready().await?;
    let status = cluster.status("n1").await?;
    let member = status.members.iter().find(|member| member.name == "n2");
    let member = member.with_context(|| format!("n2 is no member: {:?}", status.members))?;
    ensure!(member.voter, "n2 does not vote: {member:?}");
    ensure!(member.id != old, "n2 kept the identity that it lost");
    cluster.state_hashes_agree().await?;

    // Its vote counts again: with n3 gone, n1 and n2 are a majority.
    cluster.kill("n3")?;
    cluster.leader().await?;
    let reader = Reader::linearizable(&cluster.address("n2")?).await?;
    reader.known("ls1").await?;
    cluster.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_member_founds_no_second_cluster_when_it_is_wiped() -> Result<()> {
    let mut cluster = Cluster::start(3).await?;
    let founded = cluster.status("n2").await?.cluster_id;
    wipe(&mut cluster, "n1").await?;
    assert_eq!(cluster.status("n2").await?.cluster_id, founded);

    // Nor does it when it is alone and cannot ask the others.
    for name in cluster.names() {
        cluster.kill(&name)?;
    }
    cluster.wipe("n1")?;
    cluster.launch("n1")?;
    until("n1 answers", SAID_WITHIN, async || {
        cluster.status("n1").await
    })
    .await?;
    while_observing("n1 founds a cluster alone", NO_ELECTION_FOR, async || {
        outside(&cluster.status("n1").await?)
    })
    .await?;

    cluster.launch("n2")?;
    cluster.launch("n3")?;
    cluster.ready("n2").await?;
    cluster.ready("n3").await?;
    says_what_to_run(&cluster, "n1").await?;
    assert_eq!(cluster.status("n3").await?.cluster_id, founded);
    cluster.stop().await
}

/// Kills a member, empties its directory, starts it again, and waits for what it says then.
async fn wipe(cluster: &mut Cluster, name: &str) -> Result<()> {
    cluster.kill(name)?;
    cluster.wipe(name)?;
    cluster.launch(name)?;
    says_what_to_run(cluster, name).await?;
    outside(&cluster.status(name).await?)
}

async fn says_what_to_run(cluster: &Cluster, name: &str) -> Result<()> {
    let command = format!("tally member replace {name}");
    let member = cluster.member(name)?;
    until(
        &format!("{name} says `{command}`"),
        SAID_WITHIN,
        async || {
            let answer = member.http("/readyz").await?;
            for said in [&answer.body, &member.log()] {
                ensure!(
                    said.contains("T-011") && said.contains(&command),
                    "{answer:?}"
                );
            }
            ensure!(answer.status == 503, "{answer:?}");
            Ok(())
        },
    )
    .await
}

/// Neither votes nor leads.
fn outside(status: &StatusResponse) -> Result<()> {
    let out = matches!(status.role(), Role::Stopped | Role::Learner);
    ensure!(out, "{} is {:?}", status.name, status.role());
    ensure!(
        !status.not_ready.is_empty(),
        "{} says that it serves",
        status.name
    );
    let votes = status
        .members
        .iter()
        .any(|member| member.voter && member.id == status.member);
    ensure!(!votes, "{} votes: {:?}", status.name, status.members);
    Ok(())
}

async fn no_leader(cluster: &Cluster, name: &str) -> Result<()> {
    until("the leader is given up", SAID_WITHIN, async || {
        let status = cluster.status(name).await?;
        ensure!(
            status.leader == 0 || status.role() == Role::Candidate,
            "{status:?}"
        );
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_member_that_comes_back_is_told_so() -> Result<()> {
    let mut cluster = Cluster::start(3).await?;
    let data = cluster.member("n2")?.data_dir().to_owned();
    let (old, new) = (data.with_extension("old"), data.with_extension("new"));
    cluster.kill("n2")?;
    std::fs::rename(&data, &old)?;
    cluster.launch("n2")?;
    says_what_to_run(&cluster, "n2").await?;
    let replace = ["member", "replace", "n2"];
    cluster.operator().run(&replace).await?.expect_code(0)?;
    cluster.all_ready().await?;
    // Once more changes nothing.
    cluster.operator().run(&replace).await?.expect_code(0)?;

    cluster.kill("n2")?;
    std::fs::rename(&data, &new)?;
    std::fs::rename(&old, &data)?;
    cluster.launch("n2")?;
    until("n2 says that it was removed", SAID_WITHIN, async || {
        let answer = cluster.member("n2")?.http("/readyz").await?;
        ensure!(answer.body.contains("T-021"), "{answer:?}");
        ensure!(answer.status == 503, "{answer:?}");
        Ok(())
    })
    .await?;

    cluster.kill("n2")?;
    std::fs::rename(&data, &old)?;
    std::fs::rename(&new, &data)?;
    cluster.restart("n2").await?;
    cluster.state_hashes_agree().await?;
    cluster.stop().await
}
