//! Loses answers, kills leaders and asks again, on three `tally serve` processes.

use anyhow::{Context, Result};
use clap::Parser;
use tally_testkit::{Cluster, leader_loss};

/// Lose the answer of a committed activation, kill the leader, retry through another member: it must
/// be recognised, with one activation in the history and equal states everywhere.
#[derive(Debug, Parser)]
#[command(name = "cluster-leader-loss")]
struct Arguments {
    /// How many times.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// What happens in which round follows from this number; random when not given.
    #[arg(long)]
    seed: Option<u64>,
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let seed = arguments
        .seed
        .unwrap_or_else(|| rand::random::<u32>().into());
    let count = usize::try_from(arguments.rounds).context("rounds")?;
    println!("{count} rounds, seed {seed}; the same again: --rounds {count} --seed {seed}");
    let mut cluster = Cluster::start(3).await?;
    leader_loss::rounds(&mut cluster, count, seed, |round| println!("{round}")).await?;
    cluster.stop().await?;
    println!("{count} rounds held");
    Ok(())
}
