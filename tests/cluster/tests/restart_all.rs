//! All members are killed at once, under load, again and again.

use std::time::Duration;

use anyhow::Result;
use tally_testkit::{Cluster, Load, Recorded, rounds};

/// Answered in each round before the members are killed, so that it happens under load.
const ANSWERED_BEFORE: usize = 150;
const LOADED_WITHIN: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answered_command_survives_and_none_happens_twice() -> Result<()> {
    let mut cluster = Cluster::start(3).await?;
    let mut all = Recorded::default();
    for round in 1..=rounds(3, 20) {
        let load = Load::start(&cluster)?;
        load.answers(ANSWERED_BEFORE, LOADED_WITHIN).await?;
        cluster.kill_all()?;
        let mut recorded = load.stop().await?;
        cluster.restart_all().await?;
        println!("round {round}: {}", recorded.check(&cluster).await?);
        println!("round {round}: {}", recorded.linearizable()?);
        all.extend(recorded);
    }
    println!("all rounds again: {}", all.check(&cluster).await?);
    cluster.stop().await
}
