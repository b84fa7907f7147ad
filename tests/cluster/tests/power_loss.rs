//! The power fails under load: what each member's disk holds at that moment is what is left.
//!
//! Each member's directory is a file system in an image file. All members are stopped where they are,
//! the images are copied without a sync, and the members go on from the copies. What was written and
//! not synced is lost with them.

use std::time::Duration;

use anyhow::{Context, Result};
use tally_testkit::{Cluster, Disk, Load, Recorded, lacking, rounds};

/// Answered in each round before the power fails.
const ANSWERED_BEFORE: usize = 150;
const LOADED_WITHIN: Duration = Duration::from_secs(60);
const DISK_MIB: u64 = 192;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answered_command_survives_a_power_loss_and_none_happens_twice() -> Result<()> {
    if let Err(why) = Disk::possible() {
        return lacking("power loss", &why);
    }
    // Snapshots, purged logs and flushed states are to be found in every condition.
    let mut cluster = Cluster::prepare(3, &["--snapshot-entries", "200", "--keep-entries", "50"])?;
    let mut disks = Vec::new();
    for name in cluster.names() {
        disks.push(Disk::image(cluster.member(&name)?.data_dir(), DISK_MIB)?);
    }
    cluster.restart_all().await?;
    let mut all = Recorded::default();
    for round in 1..=rounds(1, 10) {
        let load = Load::start(&cluster)?;
        load.answers(ANSWERED_BEFORE, LOADED_WITHIN).await?;
        for name in cluster.names() {
            cluster.pause(&name)?;
        }
        // Everybody stands still, so this is one moment: whatever was answered is in the copies.
        let copies: Vec<_> = disks.iter().map(Disk::copy).collect();
        cluster.kill_all()?;
        let mut recorded = load.stop().await?;
        for (disk, copy) in disks.iter_mut().zip(copies) {
            disk.replace(copy?)?;
        }
        cluster
            .restart_all()
            .await
            .context("restart after the power loss")?;
        println!("round {round}: {}", recorded.check(&cluster).await?);
        all.extend(recorded);
    }
    println!("all rounds again: {}", all.check(&cluster).await?);
    cluster.stop().await
}
