//! A disk fills up: the member says so and ends, the others go on, and with room again it comes back
//! with nothing lost.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tally_testkit::{Cluster, Disk, Load, Recorded, grow, lacking};

const DISK_KIB: u64 = 96 << 10;
/// What is left when the disk is said to be full. RocksDB has set some room apart before.
const REST_KIB: u64 = 64;
const LOADED_WITHIN: Duration = Duration::from_secs(60);
const ENDS_WITHIN: Duration = Duration::from_secs(60);
const ANSWERED: usize = 60;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Leader,
    Follower,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_with_a_full_disk_ends_and_comes_back() -> Result<()> {
    fills_up(Victim::Leader, &[]).await
}

/// Snapshots are what needs room first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_with_a_full_disk_ends_and_comes_back() -> Result<()> {
    fills_up(Victim::Follower, &["--snapshot-entries", "100"]).await
}

async fn fills_up(kind: Victim, arguments: &[&str]) -> Result<()> {
    if let Err(why) = Disk::possible() {
        return lacking("a full disk", &why);
    }
    let mut cluster = Cluster::prepare(3, arguments)?;
    let mut disks = Vec::new();
    for name in cluster.names() {
        disks.push(Disk::small(cluster.member(&name)?.data_dir(), DISK_KIB)?);
    }
    cluster.restart_all().await?;
    let mut all = Recorded::default();
    load(&cluster, &mut all).await?;
    let victim = match kind {
        Victim::Leader => cluster.leader().await?,
        Victim::Follower => cluster.followers().await?.remove(0),
    };
    let position = cluster.names().iter().position(|name| *name == victim);
    let disk = &disks[position.context("not a member")?];
    disk.fill(REST_KIB)?;

    runs_out(&mut cluster, &victim, &mut all).await?;
    // What it had begun to write is gone when it starts again, so there may be a little room until
    // the load has used it up.
    cluster.launch(&victim)?;
    runs_out(&mut cluster, &victim, &mut all).await?;
    load(&cluster, &mut all).await?;

    disk.make_room()?;
    cluster.restart(&victim).await?;
    println!("{}", all.check(&cluster).await?);
    cluster.stop().await
}

/// Loads the cluster until the victim ends for want of room, and a little longer.
async fn runs_out(cluster: &mut Cluster, victim: &str, all: &mut Recorded) -> Result<()> {
    // Through a member that stays: it passes commands on, whoever leads.
    let mut others = cluster.names();
    others.retain(|name| name != victim);
    let address = cluster.address(&others[0])?;
    let said_before = cluster.member(victim)?.log().len();
    let under_way = Load::start(cluster)?;
    let growing = async {
        // Cut off when the leader ends; by then the disk is full.
        let grown = grow(&address, 20_000).await;
        println!("growing ended: {grown:?}");
        std::future::pending().await
    };
    let code = tokio::select! {
        code = cluster.ended(victim, ENDS_WITHIN) => code?,
        () = growing => None,
    };
    under_way.answers(ANSWERED, LOADED_WITHIN).await?;
    all.extend(under_way.stop().await?);
    ensure!(code == Some(1), "{victim} ended with {code:?}");
    says_what_to_do(cluster, victim, said_before)
}

async fn load(cluster: &Cluster, all: &mut Recorded) -> Result<()> {
    let load = Load::start(cluster)?;
    load.answers(ANSWERED, LOADED_WITHIN).await?;
    all.extend(load.stop().await?);
    Ok(())
}

/// The end of its log names the code, a file of its own, the reason and what to do.
fn says_what_to_do(cluster: &Cluster, victim: &str, said_before: usize) -> Result<()> {
    let member = cluster.member(victim)?;
    // With the line break before it.
    let log = member.log().split_off(said_before.saturating_sub(1));
    let said = log.rfind("\nT-").map(|end| log[end..].trim());
    let said = said.context("no code in its log")?;
    println!("{victim} said: {said}");
    let directory = member.data_dir().to_string_lossy();
    for part in ["T-008", &directory, "No space left", "next", "make room"] {
        ensure!(said.contains(part), "does not say {part}: {said}");
    }
    Ok(())
}
