//! Loses answers, loses leaders and asks again, on three `tally serve` processes.

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use tally_testkit::leader_loss::{self, Fault};

/// Lose the answer of a committed activation, lose the leader, retry through another member: it must
/// be recognised, with one activation in the history, equal states everywhere, and all that others did
/// meanwhile linearizable.
#[derive(Debug, Parser)]
#[command(name = "cluster-leader-loss")]
struct Arguments {
    /// How many times.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// What happens in which round follows from this number; random when not given.
    #[arg(long)]
    seed: Option<u64>,
    /// What happens to the member that is struck, once or more often; all of it when not given.
    #[arg(long)]
    fault: Vec<Kind>,
}

/// Faults as a person asks for them.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    /// SIGKILL, and a new start.
    Kill,
    /// SIGSTOP and SIGCONT.
    Pause,
    /// Nothing passes between it and the other members.
    Partition,
    /// Nothing passes from it to the other members, or from them to it.
    OneWay,
    /// Leadership is handed over.
    Transfer,
}

impl Kind {
    fn faults(self) -> &'static [Fault] {
        match self {
            Self::Kill => &[Fault::Kill],
            Self::Pause => &[Fault::Pause],
            Self::Partition => &[Fault::Partition],
            Self::OneWay => &[Fault::Mute, Fault::Deaf],
            Self::Transfer => &[Fault::Transfer],
        }
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let seed = arguments
        .seed
        .unwrap_or_else(|| rand::random::<u32>().into());
    let count = usize::try_from(arguments.rounds).context("rounds")?;
    let kinds = if arguments.fault.is_empty() {
        Kind::value_variants()
    } else {
        &arguments.fault
    };
    let named = kinds.iter().filter_map(Kind::to_possible_value);
    let named: Vec<String> = named
        .map(|kind| format!(" --fault {}", kind.get_name()))
        .collect();
    let named = named.concat();
    println!("{count} rounds, seed {seed}; the same again: --rounds {count} --seed {seed}{named}");

    let faults: Vec<Fault> = kinds
        .iter()
        .flat_map(|kind| kind.faults())
        .copied()
        .collect();
    let (mut cluster, faults) = leader_loss::cluster_for(&faults, &[]).await?;
    leader_loss::rounds(&mut cluster, count, seed, &faults, |round| {
        println!("{round}");
    })
    .await?;
    cluster.stop().await?;
    println!("{count} rounds held");
    Ok(())
}
