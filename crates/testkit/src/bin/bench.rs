//! Measures three `tally serve` processes on this machine.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::{Args, Parser, Subcommand, ValueEnum};
use tally_testkit::Cluster;
use tally_testkit::bench::failover::{self, Fall, Summary};
use tally_testkit::bench::keys::{self, Step};
use tally_testkit::bench::{Etcd, Load, Machine, Operation, Row, Span, Store, To, Watchers, Whose};
use tokio::runtime::Builder;

const MEMBERS: usize = 3;

/// Three members with real fsyncs: what they do in a second, and how long they are silent when their
/// leader goes.
#[derive(Debug, Parser)]
#[command(name = "bench", args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    what: Option<What>,
    #[command(flatten)]
    throughput: Throughput,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Kill the leader again and again, and measure how long nobody is answered.
    Failover(Failover),
    /// Full load for long; no election may happen.
    Soak(Soak),
    /// Many keys of 1 KiB, from the load to the restart of all: time, and memory of the members.
    Keys(Keys),
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
    fn machine(&self) -> Result<Machine> {
        std::fs::create_dir_all(&self.data_dir)
            .with_context(|| format!("creating {}", self.data_dir.display()))?;
        Machine::look(&self.data_dir)
    }

    async fn start(&self) -> Result<Cluster> {
        let mut cluster = Cluster::prepare_in(&self.data_dir, MEMBERS, &[])?;
        cluster.restart_all().await?;
        Ok(cluster)
    }
}

#[derive(Debug, Args)]
struct Clients {
    /// Which members they connect to.
    #[arg(long, value_enum, default_value = "all")]
    to: Target,
    /// How many share a connection.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..))]
    per_connection: u16,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Target {
    Leader,
    Followers,
    All,
}

impl Clients {
    fn to(&self) -> To {
        match self.to {
            Target::Leader => To::Leader,
            Target::Followers => To::Followers,
            Target::All => To::All,
        }
    }

    async fn load(&self, store: &Store, operation: Operation) -> Result<Load> {
        Load::new(store, operation, self.to(), self.per_connection.into()).await
    }

    fn describe(&self) -> String {
        let sharing = self.per_connection;
        format!("clients {}, {sharing} to a connection", self.to())
    }
}

#[derive(Debug, Args)]
struct Throughput {
    /// What the clients do, each on a cluster of its own.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Operation::Command])]
    operation: Vec<Operation>,
    /// How long each number of clients is measured, seconds.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Numbers of clients.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 16, 64, 256])]
    clients: Vec<usize>,
    /// Calls in a second, of all clients together; without it each makes one after another.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    /// Watchers, for `watch`; each key is watched by ten.
    #[arg(long, default_value_t = 1_000)]
    watchers: usize,
    /// Streams that the watchers are on.
    #[arg(long, default_value_t = 10)]
    streams: usize,
    /// Measure members of this program too, an etcd: with its defaults, by the same load, after Tally's.
    #[arg(long, require_equals = true, value_name = "PROGRAM")]
    beside_etcd: Option<PathBuf>,
    #[command(flatten)]
    how: Clients,
    #[command(flatten)]
    place: Place,
}

impl Throughput {
    async fn run(self) -> Result<()> {
        let watchers = Watchers::new(self.watchers, self.streams)?;
        let machine = self.place.machine()?;
        let json = self.place.json;
        let of_nodes = self.operation.contains(&Operation::Command);
        ensure!(
            self.beside_etcd.is_none() || !of_nodes,
            "--operation has command, which etcd has not: leave it out, or --beside-etcd"
        );
        if !json {
            println!("{machine}");
            println!(
                "{MEMBERS} members, {}, {} s each",
                self.how.describe(),
                self.seconds
            );
            println!("{}", Row::HEADER);
        }
        let mut rows = Vec::new();
        for &operation in &self.operation {
            let tally = Store::Tally(self.place.start().await?);
            rows.extend(self.measure(tally, operation, watchers).await?);
            if let Some(program) = &self.beside_etcd {
                let etcd = Etcd::start(program, &self.place.data_dir, MEMBERS).await?;
                rows.extend(self.measure(Store::Etcd(etcd), operation, watchers).await?);
            }
        }
        if json {
            let rows: Vec<_> = rows.iter().map(Row::to_json).collect();
            println!("{}", serde_json::to_string_pretty(&rows)?);
            return Ok(());
        }
        let of_one =
            |row: &&Row| row.clients == 1 && row.operation.writes() && row.whose == Whose::Tally;
        for row in rows.iter().filter(of_one) {
            let ratio = row.p50.as_secs_f64() / machine.fdatasync.as_secs_f64();
            let operation = row.operation;
            println!("{operation}, median of one client: {ratio:.2} times an fdatasync");
        }
        for pair in rows.windows(2) {
            let [without, with] = pair else { continue };
            if with.operation == Operation::Watch {
                println!("{}", with.beside_none(without));
            }
        }
        let (of_tally, others): (Vec<_>, Vec<_>) =
            rows.iter().partition(|row| row.whose == Whose::Tally);
        for (row, other) in of_tally.iter().zip(others) {
            println!("{}", row.beside_other(other));
        }
        Ok(())
    }

    /// A row for each number of clients; two with watchers, the first before they come.
    async fn measure(
        &self,
        store: Store,
        operation: Operation,
        watchers: Watchers,
    ) -> Result<Vec<Row>> {
        let mut load = self.how.load(&store, operation).await?;
        let measured = Duration::from_secs(self.seconds);
        let span = Span {
            measured,
            told_every: measured,
            rate: self.rate,
        };
        let mut rows = Vec::new();
        let mut add = |row: Row| {
            if !self.place.json {
                println!("{}", row.to_line());
            }
            rows.push(row);
        };
        for &clients in &self.clients {
            add(load.run(&store, clients, span, |_| {}).await?);
            if operation == Operation::Watch {
                load.watch(watchers).await?;
                add(load.run(&store, clients, span, |_| {}).await?);
                load.end_watch();
            }
        }
        // Its connections end before the members do.
        drop(load);
        store.settled().await?;
        store.stop().await?;
        Ok(rows)
    }
}

#[derive(Debug, Args)]
struct Soak {
    /// How long.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    minutes: u64,
    /// How many clients.
    #[arg(long, default_value_t = 256)]
    clients: usize,
    #[command(flatten)]
    how: Clients,
    #[command(flatten)]
    place: Place,
}

impl Soak {
    async fn run(self) -> Result<()> {
        let machine = self.place.machine()?;
        let store = Store::Tally(self.place.start().await?);
        let mut load = self.how.load(&store, Operation::Command).await?;
        let span = Span {
            measured: Duration::from_secs(self.minutes * 60),
            told_every: Duration::from_secs(60),
            rate: None,
        };
        let json = self.place.json;
        if !json {
            println!("{machine}");
            println!(
                "{MEMBERS} members, {}, a line each minute",
                self.how.describe()
            );
            println!("{}", Row::HEADER);
        }
        let tell = |row: &Row| {
            if !json {
                println!("{}", row.to_line());
            }
        };
        let all = load.run(&store, self.clients, span, tell).await?;
        store.settled().await?;
        store.stop().await?;
        if json {
            println!("{}", serde_json::to_string_pretty(&[all.to_json()])?);
        } else {
            println!("{}  (all)", all.to_line());
        }
        let elections = all.elections;
        eprintln!(
            "elections in {} minutes of full load: {elections}",
            self.minutes
        );
        ensure!(
            elections == 0,
            "found {elections} elections, expected none: every member ran"
        );
        Ok(())
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
        let machine = self.place.machine()?;
        let mut cluster = self.place.start().await?;
        let count = usize::try_from(self.rounds).context("rounds")?;
        let json = self.place.json;
        if !json {
            println!("{machine}");
        }
        let rounds = failover::rounds(&mut cluster, count, fall, |round| {
            if !json {
                println!("{round}");
            }
        })
        .await?;
        cluster.stop().await?;
        let summary = Summary::of(&rounds).context("no round was run")?;
        if json {
            let all = summary.to_json(&rounds);
            println!("{}", serde_json::to_string_pretty(&all)?);
        } else {
            println!("{summary}");
        }
        Ok(())
    }
}

#[derive(Debug, Args)]
struct Keys {
    /// How many.
    #[arg(long, default_value = "100000", value_parser = clap::value_parser!(u32).range(1..))]
    keys: u32,
    /// Fails when a member had more than so many million bytes in memory at any time.
    #[arg(long)]
    most_mb: Option<u32>,
    #[command(flatten)]
    place: Place,
}

impl Keys {
    async fn run(self) -> Result<()> {
        let machine = self.place.machine()?;
        let mut cluster = self.place.start().await?;
        let count = usize::try_from(self.keys).context("keys")?;
        let json = self.place.json;
        if !json {
            println!("{machine}");
            println!("{MEMBERS} members, {count} keys of 1 KiB");
            println!("{}", Step::HEADER);
        }
        let steps = keys::run(&mut cluster, count, |step| {
            if !json {
                println!("{step}");
            }
        })
        .await?;
        cluster.state_hashes_agree().await?;
        cluster.stop().await?;
        if json {
            let steps: Vec<_> = steps.iter().map(Step::to_json).collect();
            println!("{}", serde_json::to_string_pretty(&steps)?);
        }
        let most = steps.iter().map(|step| step.most_resident_bytes).max();
        if let (Some(bound), Some(most)) = (self.most_mb, most) {
            let bound = u64::from(bound) * 1_000_000;
            ensure!(
                most <= bound,
                "a member had {most} bytes in memory, more than {bound}"
            );
        }
        Ok(())
    }
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    // One thread for a load: it shares the machine with what it measures. Members are killed and
    // waited for on one of two, so that the writers go on meanwhile.
    let mut runtime = match &arguments.what {
        Some(What::Failover(_) | What::Keys(_)) => Builder::new_multi_thread(),
        Some(What::Soak(_)) | None => Builder::new_current_thread(),
    };
    let runtime = runtime.enable_all().build()?;
    runtime.block_on(async {
        match arguments.what {
            Some(What::Failover(failover)) => failover.run().await,
            Some(What::Soak(soak)) => soak.run().await,
            Some(What::Keys(keys)) => keys.run().await,
            None => arguments.throughput.run().await,
        }
    })
}
