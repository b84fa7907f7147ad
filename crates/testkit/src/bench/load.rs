//! Many clients at a time, and what they see and cost between two looks.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use futures::{StreamExt, TryStreamExt, stream};
use hdrhistogram::Histogram;
use tokio::task::JoinSet;
use tokio::time::{Interval, interval_at, sleep};
use tonic::transport::Channel;

use super::key_caller::fill;
use super::operation::Client;
use super::store::Store;
use super::watching::{Watchers, Watching};
use super::{Operation, Row};
use crate::requester::channel;

/// Clients that are provisioned at a time.
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
    /// The others, in turn: every write is passed on.
    Followers,
    /// Every member in turn, the leader first: of three clients, two have their writes passed on.
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

/// How long a row is measured, and how much is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    pub measured: Duration,
    /// Told at this interval, with what was measured since the last time; never when longer.
    pub told_every: Duration,
    /// Calls in a second, of all clients; `None` lets each make one after another.
    pub rate: Option<u32>,
}

/// The clients of a store.
#[derive(Debug)]
pub struct Load {
    operation: Operation,
    /// Addresses in the order in which clients are given to them.
    addresses: Vec<String>,
    clients_per_connection: usize,
    /// By member and number of the connection.
    channels: Vec<Vec<Channel>>,
    clients: Vec<Client>,
    watching: Option<Watching>,
}

impl Load {
    /// For a store that has a leader. Makes the keys that the operation needs.
    ///
    /// # Errors
    /// When it has none, or a member does not answer.
    pub async fn new(
        store: &Store,
        operation: Operation,
        to: To,
        clients_per_connection: usize,
    ) -> Result<Self> {
        let mut addresses = store.leader_first().await?;
        match to {
            To::Leader => addresses.truncate(1),
            To::Followers => drop(addresses.remove(0)),
            To::All => {}
        }
        let first = addresses.first().context("no member to connect to")?;
        if operation != Operation::Command {
            fill(&channel(first).await?).await?;
            // Every member has the keys, for reads of what it has applied.
            store.settled().await?;
        }
        Ok(Self {
            operation,
            channels: vec![Vec::new(); addresses.len()],
            addresses,
            clients_per_connection,
            clients: Vec::new(),
            watching: None,
        })
    }

    /// Has the first client's member watched from now on.
    ///
    /// # Errors
    /// When a watcher is not created.
    pub async fn watch(&mut self, watchers: Watchers) -> Result<()> {
        let first = self.addresses.first().context("no member to watch")?;
        self.watching = Some(Watching::start(first, watchers).await?);
        Ok(())
    }

    /// Has nobody watch any more.
    pub fn end_watch(&mut self) {
        self.watching = None;
    }

    /// What is measured: a load with watchers is one of puts while there are none.
    fn measured(&self) -> Operation {
        match self.operation {
            Operation::Watch if self.watching.is_none() => Operation::Put,
            operation => operation,
        }
    }

    /// Makes sure that there are so many clients.
    async fn provision(&mut self, clients: usize) -> Result<()> {
        let mut missing = Vec::new();
        for number in self.clients.len()..clients {
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
                Client::provision(self.operation, number, &address, channel).await
            })
            .buffered(PROVISIONED_AT_A_TIME);
        let provisioned: Vec<Client> = provisioned.try_collect().await?;
        self.clients.extend(provisioned);
        Ok(())
    }

    /// Lets so many clients work for a while, each at one call after another.
    ///
    /// # Errors
    /// When a call is refused or a member does not tell what it used.
    pub async fn run(
        &mut self,
        store: &Store,
        clients: usize,
        span: Span,
        mut tell: impl FnMut(&Row),
    ) -> Result<Row> {
        self.provision(clients).await?;
        let seen = Arc::new(Seen::new()?);
        let mut running = JoinSet::new();
        for (number, client) in self.clients.drain(..clients).enumerate() {
            let pace = span.rate.map(|rate| pace(rate, number, clients));
            running.spawn(go_on(client, pace, seen.clone()));
        }
        let measured = self.measure(store, clients, span, &seen, &mut running, &mut tell);
        let measured = measured.await;
        seen.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = running.join_next().await {
            self.clients.push(ended??);
        }
        measured
    }

    async fn measure(
        &mut self,
        store: &Store,
        clients: usize,
        span: Span,
        seen: &Seen,
        running: &mut JoinSet<Result<Client>>,
        tell: &mut impl FnMut(&Row),
    ) -> Result<Row> {
        let operation = self.measured();
        pass(WARM_UP, running).await?;
        self.take(seen)?;
        let first = store.usage().await?;
        let begun = Instant::now();
        let mut all = Taken::new()?;
        let (mut before, mut since) = (first.clone(), begun);
        loop {
            let left = span.measured.saturating_sub(begun.elapsed());
            if left.is_zero() {
                break;
            }
            pass(left.min(span.told_every), running).await?;
            let taken = self.take(seen)?;
            let now = Instant::now();
            let after = store.usage().await?;
            if span.told_every < span.measured {
                tell(&Row::new(
                    store.whose(),
                    operation,
                    clients,
                    now - since,
                    &taken,
                    &before,
                    &after,
                ));
            }
            all.add(&taken)?;
            (before, since) = (after, now);
        }
        Ok(Row::new(
            store.whose(),
            operation,
            clients,
            since - begun,
            &all,
            &first,
            &before,
        ))
    }

    /// What clients and watchers saw since the last time.
    fn take(&mut self, seen: &Seen) -> Result<Taken> {
        let fresh = histogram()?;
        Ok(Taken {
            latencies: seen.with_latencies(|latencies| std::mem::replace(latencies, fresh)),
            repeats: seen.repeats.swap(0, Ordering::Relaxed),
            events: self.watching.as_mut().map_or(Ok(0), Watching::take)?,
        })
    }
}

/// Waits, unless a client ends: none does before it is told to.
async fn pass(time: Duration, running: &mut JoinSet<Result<Client>>) -> Result<()> {
    tokio::select! {
        () = sleep(time) => Ok(()),
        Some(ended) = running.join_next() => match ended? {
            Ok(_) => bail!("a client ended by itself"),
            Err(error) => Err(error).context("a client gave up"),
        },
    }
}

/// When a client of several calls, so that all together call so often in a second.
fn pace(rate: u32, number: usize, clients: usize) -> Interval {
    let between = Duration::from_secs(1) / rate;
    let times = |count: usize| between * u32::try_from(count).unwrap_or(u32::MAX);
    interval_at(tokio::time::Instant::now() + times(number), times(clients))
}

async fn go_on(mut client: Client, mut pace: Option<Interval>, seen: Arc<Seen>) -> Result<Client> {
    while !seen.stop.load(Ordering::Relaxed) {
        if let Some(pace) = &mut pace {
            pace.tick().await;
        }
        let begun = Instant::now();
        let repeats = client.once().await?;
        let took = u64::try_from(begun.elapsed().as_micros()).unwrap_or(LATENCY_US_MAX);
        seen.with_latencies(|latencies| latencies.saturating_record(took));
        seen.repeats.fetch_add(repeats, Ordering::Relaxed);
    }
    Ok(client)
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
}

/// What was seen between two looks.
pub(super) struct Taken {
    /// Microseconds, one for each call.
    pub(super) latencies: Histogram<u64>,
    pub(super) repeats: u64,
    /// Told to watchers.
    pub(super) events: u64,
}

impl Taken {
    fn new() -> Result<Self> {
        Ok(Self {
            latencies: histogram()?,
            repeats: 0,
            events: 0,
        })
    }

    fn add(&mut self, other: &Self) -> Result<()> {
        self.latencies.add(&other.latencies)?;
        self.repeats += other.repeats;
        self.events += other.events;
        Ok(())
    }
}

fn histogram() -> Result<Histogram<u64>> {
    Ok(Histogram::new_with_max(LATENCY_US_MAX, SIGNIFICANT_DIGITS)?)
}
