//! Many writers at a time, and what they see and cost between two looks.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use futures::{StreamExt, TryStreamExt, stream};
use hdrhistogram::Histogram;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tonic::transport::Channel;

use super::usage::Usage;
use super::{Row, Writer};
use crate::cluster::Cluster;
use crate::requester::channel;

/// Writers that are provisioned at a time.
const PROVISIONED_AT_A_TIME: usize = 16;
/// Time for queues to fill and for caches to warm before anything counts.
const WARM_UP: Duration = Duration::from_secs(1);
/// Longest latency that is told apart, microseconds.
const LATENCY_US_MAX: u64 = 60_000_000;
const SIGNIFICANT_DIGITS: u8 = 3;

/// Which members the clients connect to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum To {
    /// The leader, as of the start.
    Leader,
    /// The others, in turn: every command is passed on.
    Followers,
    /// Every member in turn, the leader first: of three clients, two have their commands passed on.
    All,
}

impl fmt::Display for To {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Leader => "at the leader",
            Self::Followers => "spread over the followers",
            Self::All => "spread over all members, the leader first",
        })
    }
}

/// How long a row is measured.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    pub measured: Duration,
    /// Told at this interval, with what was measured since the last time; never when longer.
    pub told_every: Duration,
}

/// The writers of a cluster.
#[derive(Debug)]
pub struct Load {
    /// Addresses in the order in which clients are given to them.
    addresses: Vec<String>,
    clients_per_connection: usize,
    /// By member and number of the connection.
    channels: Vec<Vec<Channel>>,
    writers: Vec<Writer>,
}

impl Load {
    /// For a cluster that has a leader.
    ///
    /// # Errors
    /// When it has none.
    pub async fn new(cluster: &Cluster, to: To, clients_per_connection: usize) -> Result<Self> {
        let leader = cluster.leader().await?;
        let mut names = cluster.started();
        names.sort_by_key(|name| *name != leader);
        match to {
            To::Leader => names.truncate(1),
            To::Followers => drop(names.remove(0)),
            To::All => {}
        }
        let addresses = names.iter().map(|name| cluster.address(name));
        let addresses: Vec<String> = addresses.collect::<Result<_>>()?;
        Ok(Self {
            channels: vec![Vec::new(); addresses.len()],
            addresses,
            clients_per_connection,
            writers: Vec::new(),
        })
    }

    /// Makes sure that there are so many writers.
    async fn provision(&mut self, clients: usize) -> Result<()> {
        let mut missing = Vec::new();
        for number in self.writers.len()..clients {
            let member = number % self.addresses.len();
            let connection = number / self.addresses.len() / self.clients_per_connection;
            let address = self.addresses[member].clone();
            let channels = &mut self.channels[member];
            if channels.len() == connection {
                channels.push(channel(&address).await?);
            }
            missing.push((number, address, channels[connection].clone()));
        }
        let provisioned = stream::iter(missing)
            .map(async |(number, address, channel)| {
                Writer::provision(&address, channel, &format!("bench-{number}")).await
            })
            .buffered(PROVISIONED_AT_A_TIME);
        let provisioned: Vec<Writer> = provisioned.try_collect().await?;
        self.writers.extend(provisioned);
        Ok(())
    }

    /// Lets so many clients write for a while, each one command after another.
    ///
    /// # Errors
    /// When a command is refused or a member does not tell what it used.
    pub async fn run(
        &mut self,
        cluster: &Cluster,
        clients: usize,
        span: Span,
        mut tell: impl FnMut(&Row),
    ) -> Result<Row> {
        self.provision(clients).await?;
        let seen = Arc::new(Seen::new()?);
        let mut running = JoinSet::new();
        for writer in self.writers.drain(..clients) {
            running.spawn(write_on(writer, seen.clone()));
        }
        let measured = measure(cluster, clients, span, &seen, &mut running, &mut tell).await;
        seen.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = running.join_next().await {
            self.writers.push(ended??);
        }
        measured
    }
}

async fn measure(
    cluster: &Cluster,
    clients: usize,
    span: Span,
    seen: &Seen,
    running: &mut JoinSet<Result<Writer>>,
    tell: &mut impl FnMut(&Row),
) -> Result<Row> {
    pass(WARM_UP, running).await?;
    seen.take()?;
    let first = Usage::of_all(cluster).await?;
    let begun = Instant::now();
    let mut all = histogram()?;
    let (mut before, mut since, mut repeats) = (first.clone(), begun, 0);
    loop {
        let left = span.measured.saturating_sub(begun.elapsed());
        if left.is_zero() {
            break;
        }
        pass(left.min(span.told_every), running).await?;
        let (latencies, again) = seen.take()?;
        let now = Instant::now();
        let after = Usage::of_all(cluster).await?;
        if span.told_every < span.measured {
            tell(&Row::new(
                clients,
                now - since,
                &latencies,
                &before,
                &after,
                again,
            ));
        }
        all.add(&latencies)?;
        repeats += again;
        (before, since) = (after, now);
    }
    Ok(Row::new(
        clients,
        since - begun,
        &all,
        &first,
        &before,
        repeats,
    ))
}

/// Waits, unless a writer ends: none does before it is told to.
async fn pass(time: Duration, running: &mut JoinSet<Result<Writer>>) -> Result<()> {
    tokio::select! {
        () = sleep(time) => Ok(()),
        Some(ended) = running.join_next() => match ended? {
            Ok(_) => bail!("a client ended by itself"),
            Err(error) => Err(error).context("a client gave up"),
        },
    }
}

async fn write_on(mut writer: Writer, seen: Arc<Seen>) -> Result<Writer> {
    while !seen.stop.load(Ordering::Relaxed) {
        let begun = Instant::now();
        writer.write().await?;
        let took = u64::try_from(begun.elapsed().as_micros()).unwrap_or(LATENCY_US_MAX);
        seen.with_latencies(|latencies| latencies.saturating_record(took));
        seen.repeats
            .fetch_add(std::mem::take(&mut writer.repeats), Ordering::Relaxed);
    }
    Ok(writer)
}

/// What all clients of a run see.
struct Seen {
    /// Microseconds.
    latencies: Mutex<Histogram<u64>>,
    repeats: AtomicU64,
    stop: AtomicBool,
}

impl Seen {
    fn new() -> Result<Self> {
        Ok(Self {
            latencies: Mutex::new(histogram()?),
            repeats: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        })
    }

    fn with_latencies<T>(&self, change: impl FnOnce(&mut Histogram<u64>) -> T) -> T {
        change(
            &mut self
                .latencies
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }

    /// Latencies and repeats since the last time.
    fn take(&self) -> Result<(Histogram<u64>, u64)> {
        let fresh = histogram()?;
        let latencies = self.with_latencies(|latencies| std::mem::replace(latencies, fresh));
        Ok((latencies, self.repeats.swap(0, Ordering::Relaxed)))
    }
}

fn histogram() -> Result<Histogram<u64>> {
    Ok(Histogram::new_with_max(LATENCY_US_MAX, SIGNIFICANT_DIGITS)?)
}
