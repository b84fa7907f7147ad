//! Load on a cluster: log servers that register, activate and change their state, and operators that
//! change it under them, until they are told to stop. Everything that was asked and answered is
//! recorded, so that afterwards each answered command can be looked for.

mod check;
mod operator;
mod owner;
mod target;
mod writer;

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tally_proto::v1;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::call::{Call, send_until_answered};
use crate::cluster::Cluster;

pub use check::Checked;

use target::Targets;
use writer::Writer;

/// Longer than an election and a restart on a busy machine.
const ASKED_WITHIN: Duration = Duration::from_secs(60);

/// How much, and how patient.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// Log servers at a time; each goes on with another name after a while.
    pub owners: usize,
    /// Operators at a time; each reads and changes any of the nodes.
    pub operators: usize,
    /// Between two calls of one writer.
    pub pause: Duration,
    /// How long one attempt may take before the same call is sent to another member.
    pub attempt: Duration,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            owners: 3,
            operators: 3,
            pause: Duration::from_millis(10),
            attempt: Duration::from_secs(2),
        }
    }
}

/// One command, however often it was sent.
#[derive(Clone, Debug)]
pub struct Sent {
    /// The node that it is about.
    pub name: String,
    pub call: Call,
    /// When it was sent first.
    pub invoked: Instant,
    /// How often it was sent.
    pub attempts: usize,
    /// When the first answer came, and what it was; `None` when none came.
    pub answered: Option<(Instant, v1::Answer)>,
}

impl Sent {
    /// A command that is sent from now on.
    pub fn begun(name: &str, call: Call) -> Self {
        Self {
            name: name.to_owned(),
            call,
            invoked: Instant::now(),
            attempts: 0,
            answered: None,
        }
    }

    /// Sends it to one address until it is answered, and keeps the answer.
    ///
    /// # Errors
    /// As for [`send_until_answered`].
    pub async fn settle(&mut self, to: &str, within: Duration) -> Result<v1::Answer> {
        self.attempts += 1;
        let answer = send_until_answered(to, &self.call, within).await?;
        self.answered = Some((Instant::now(), answer.clone()));
        Ok(answer)
    }
}

/// One linearizable read that was answered.
#[derive(Clone, Debug)]
pub struct Seen {
    pub name: String,
    pub invoked: Instant,
    pub returned: Instant,
    pub node: Option<v1::Node>,
}

/// What writers did.
#[derive(Clone, Debug, Default)]
pub struct Recorded {
    /// No two have the same tag.
    pub sent: Vec<Sent>,
    pub seen: Vec<Seen>,
}

impl Recorded {
    /// Adds what was recorded elsewhere on the same cluster.
    pub fn extend(&mut self, other: Self) {
        self.sent.extend(other.sent);
        self.seen.extend(other.seen);
    }

    /// Sends a command of the test's own until it is answered.
    ///
    /// # Errors
    /// As for [`send_until_answered`].
    pub async fn ask(&mut self, to: &str, name: &str, call: Call) -> Result<v1::Answer> {
        let mut sent = Sent::begun(name, call);
        let answer = sent.settle(to, ASKED_WITHIN).await;
        self.sent.push(sent);
        answer
    }

    /// Commands that were answered.
    pub fn answered(&self) -> usize {
        let answered = self.sent.iter().filter(|sent| sent.answered.is_some());
        answered.count()
    }
}

/// Running writers. They end when this is dropped; [`Load::stop`] also tells what they did.
#[derive(Debug)]
pub struct Load {
    stop: watch::Sender<bool>,
    answered: watch::Receiver<usize>,
    writers: JoinSet<Result<Recorded>>,
}

impl Load {
    /// Starts the usual writers on every member of a cluster.
    ///
    /// # Errors
    /// When an address is none.
    pub fn start(cluster: &Cluster) -> Result<Self> {
        Self::start_with(cluster, &LoadOptions::default())
    }

    /// Starts writers on every member of a cluster.
    ///
    /// # Errors
    /// When an address is none.
    pub fn start_with(cluster: &Cluster, options: &LoadOptions) -> Result<Self> {
        let names = cluster.names().into_iter();
        let addresses: Result<Vec<String>> = names.map(|name| cluster.address(&name)).collect();
        Self::start_at(&addresses?, options)
    }

    /// Starts writers on these addresses of one cluster.
    ///
    /// # Errors
    /// When one of them is none.
    pub fn start_at(addresses: &[String], options: &LoadOptions) -> Result<Self> {
        let (stop, stopping) = watch::channel(false);
        let (count, answered) = watch::channel(0);
        let targets = Targets::default();
        // Names of an earlier load on the same cluster must not come again.
        let run: u32 = rand::random();
        let mut writers = JoinSet::new();
        let writer =
            |first| Writer::new(addresses, first, options, stopping.clone(), count.clone());
        for owner in 0..options.owners {
            let name = format!("ls-{run:08x}-{owner}");
            writers.spawn(owner::run(writer(owner)?, name, targets.clone()));
        }
        for operator in 0..options.operators {
            writers.spawn(operator::run(writer(operator)?, targets.clone()));
        }
        Ok(Self {
            stop,
            answered,
            writers,
        })
    }

    /// Commands and reads that were answered so far.
    pub fn answered(&self) -> usize {
        *self.answered.borrow()
    }

    /// Waits until `more` have been answered from now on.
    ///
    /// # Errors
    /// When they have not after `within`, or every writer has failed.
    pub async fn answers(&self, more: usize, within: Duration) -> Result<()> {
        let mut answered = self.answered.clone();
        let before = *answered.borrow();
        let enough = answered.wait_for(|count| *count >= before + more);
        let waited = tokio::time::timeout(within, enough).await;
        let came = || self.answered() - before;
        waited
            .with_context(|| format!("{} of {more} answers in {within:?}", came()))?
            .context("every writer has ended")?;
        Ok(())
    }

    /// Tells the writers to stop, waits until the calls under way have ended, and returns what was
    /// recorded.
    ///
    /// # Errors
    /// When a writer met an answer that a well-formed call must not get.
    pub async fn stop(mut self) -> Result<Recorded> {
        self.stop.send_replace(true);
        let mut recorded = Recorded::default();
        while let Some(writer) = self.writers.join_next().await {
            recorded.extend(writer.context("a writer panicked")??);
        }
        Ok(recorded)
    }
}
