//! Measures three `tally serve` processes on this machine.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use tally_testkit::Cluster;
use tally_testkit::bench::failover::{self, Fall, Summary};

const MEMBERS: usize = 3;

/// Three members with real fsyncs: what they do in a second, and how long they are silent when their
/// leader goes.
#[derive(Debug, Parser)]
#[command(name = "bench")]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Kill the leader again and again, and measure how long nobody is answered.
    Failover(Failover),
}

#[derive(Debug, Args)]
struct Place {
    /// Where the members' directories are made; must be on a disk.
    #[arg(long, default_value = "target/bench")]
    data_dir: PathBuf,
    /// Print a list of rows instead of a table.
    #[arg(long)]
    json: bool,
}

impl Place {
    async fn start(&self) -> Result<Cluster> {
        std::fs::create_dir_all(&self.data_dir)
            .with_context(|| format!("creating {}", self.data_dir.display()))?;
        let mut cluster = Cluster::prepare_in(&self.data_dir, MEMBERS, &[])?;
        cluster.restart_all().await?;
        Ok(cluster)
    }
}

#[derive(Debug, Args)]
struct Failover {
    /// How many times.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// SIGTERM instead of SIGKILL.
    #[arg(long)]
    graceful: bool,
    #[command(flatten)]
    place: Place,
}

impl Failover {
    async fn run(self) -> Result<()> {
        let fall = match self.graceful {
            true => Fall::Stopped,
            false => Fall::Killed,
        };
        let mut cluster = self.place.start().await?;
        let count = usize::try_from(self.rounds).context("rounds")?;
        let json = self.place.json;
        let rounds = failover::rounds(&mut cluster, count, fall, |round| {
            if !json {
                println!("{round}");
            }
        })
        .await?;
        cluster.stop().await?;
        if json {
            let rows: Vec<_> = rounds.iter().map(failover::Round::to_json).collect();
            println!("{}", serde_json::to_string_pretty(&rows)?);
        } else if let Some(summary) = Summary::of(&rounds) {
            println!("{summary}");
        }
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    match Arguments::parse().what {
        What::Failover(failover) => failover.run().await,
    }
}
