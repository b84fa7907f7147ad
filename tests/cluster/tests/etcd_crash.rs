//! All members are killed at once, or lose their power, while keys are written through the etcd API: what
//! was answered is there, and nothing happened twice.

use std::time::Duration;

use anyhow::{Context, Result};
use tally_testkit::keys::{KeyHistory, KeyLoad, KeyRecord, last_event, told_alike, watchers};
use tally_testkit::{Cluster, Disk, lacking, rounds};

/// Answered in each round before it happens.
const ANSWERED_BEFORE: usize = 150;
const LOADED_WITHIN: Duration = Duration::from_secs(60);
const TOLD_WITHIN: Duration = Duration::from_secs(60);
const DISK_MIB: u64 = 192;

async fn loaded(cluster: &Cluster, round: usize) -> Result<KeyLoad> {
    let load = KeyLoad::start(cluster, &format!("round/{round}"))?;
    load.answers(ANSWERED_BEFORE, LOADED_WITHIN).await?;
    Ok(load)
}

/// After the restart: one order explains what was answered before, and what is there now.
async fn holds(cluster: &Cluster, round: usize, mut record: KeyRecord) -> Result<KeyRecord> {
    record.read_back(cluster).await?;
    let searched = record.linearizable()?.at_least(ANSWERED_BEFORE)?;
    println!("round {round}: {searched}");
    cluster.state_hashes_agree().await?;
    Ok(record)
}

/// Who watches from the first revision on is told by every member what explains all answers of all rounds.
async fn history_holds(cluster: &Cluster, all: &KeyRecord) -> Result<()> {
    let last = last_event(cluster, "round/end").await?;
    let mut watchers = watchers(cluster, "round/", 1)?;
    let told = told_alike(&mut watchers, last, TOLD_WITHIN).await?;
    KeyHistory::of(&told)?.explains(all)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_survive_when_all_members_are_killed() -> Result<()> {
    let mut cluster = Cluster::start(3).await?;
    let mut all = KeyRecord::default();
    for round in 1..=rounds(3, 20) {
        let load = loaded(&cluster, round).await?;
        cluster.kill_all()?;
        let record = load.stop().await?;
        cluster.restart_all().await?;
        all.extend(holds(&cluster, round, record).await?);
    }
    history_holds(&cluster, &all).await?;
    cluster.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_survive_a_power_loss() -> Result<()> {
    if let Err(why) = Disk::possible() {
        return lacking("power loss", &why);
    }
    let mut cluster = Cluster::prepare(3, &["--snapshot-entries", "200", "--keep-entries", "50"])?;
    let mut disks = Vec::new();
    for name in cluster.names() {
        disks.push(Disk::image(cluster.member(&name)?.data_dir(), DISK_MIB)?);
    }
    cluster.restart_all().await?;
    let mut all = KeyRecord::default();
    for round in 1..=rounds(1, 10) {
        let load = loaded(&cluster, round).await?;
        for name in cluster.names() {
            cluster.pause(&name)?;
        }
        // Everybody stands still, so this is one moment: whatever was answered is in the copies.
        let copies: Vec<_> = disks.iter().map(Disk::copy).collect();
        cluster.kill_all()?;
        let record = load.stop().await?;
        for (disk, copy) in disks.iter_mut().zip(copies) {
            disk.replace(copy?)?;
        }
        let restarted = cluster.restart_all().await;
        restarted.context("restart after the power loss")?;
        all.extend(holds(&cluster, round, record).await?);
    }
    history_holds(&cluster, &all).await?;
    cluster.stop().await
}
