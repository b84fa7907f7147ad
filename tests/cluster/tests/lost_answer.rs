//! The answer of a committed activation is lost, the leader is killed, and the retry is recognised by
//! whoever gets it.

use anyhow::{Context, Result};
use tally_testkit::{Cluster, leader_loss};

const ROUNDS: usize = 20;

/// `TALLY_TEST_ROUNDS` and `TALLY_TEST_SEED` ask for more rounds, or for the same ones again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_answers_are_replayed_and_nothing_happens_twice() -> Result<()> {
    let count = number("TALLY_TEST_ROUNDS")?.map_or(Ok(ROUNDS), usize::try_from)?;
    let seed = number("TALLY_TEST_SEED")?.unwrap_or_else(|| rand::random::<u32>().into());
    println!("{count} rounds, seed {seed}");
    let mut cluster = Cluster::start(3).await?;
    leader_loss::rounds(&mut cluster, count, seed, |round| println!("{round}")).await?;
    cluster.stop().await
}

fn number(variable: &str) -> Result<Option<u64>> {
    match std::env::var(variable) {
        Ok(text) => text
            .parse()
            .map(Some)
            .with_context(|| format!("{variable}={text}")),
        Err(_) => Ok(None),
    }
}
