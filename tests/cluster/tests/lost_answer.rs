//! The answer of a committed activation is lost, the leader is killed, paused, cut off or hands over,
//! and the retry is recognised by whoever gets it.

use anyhow::{Context, Result};
use tally_testkit::leader_loss::{self, Fault};
use tally_testkit::{rounds, seed};

/// `TALLY_TEST_ROUNDS` and `TALLY_TEST_SEED` ask for more rounds, or for the same ones again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_answers_are_replayed_and_nothing_happens_twice() -> Result<()> {
    let count = match std::env::var("TALLY_TEST_ROUNDS") {
        Ok(text) => text.parse().context("TALLY_TEST_ROUNDS takes a number")?,
        Err(_) => rounds(12, 200),
    };
    let (mut cluster, faults) = leader_loss::cluster_for(&Fault::ALL, &[]).await?;
    leader_loss::rounds(&mut cluster, count, seed()?, &faults, |round| {
        println!("{round}");
    })
    .await?;
    cluster.stop().await
}
