//! Load on keys through the etcd API: clients that put, get, delete and compare-and-swap, some under
//! tags of their own and some without, and watchers on every member. What they did and saw is recorded.

mod ask;
mod client;
mod compactor;
mod history;
mod linear;
mod rising;
mod snapshot;
mod watcher;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::cluster::Cluster;
use crate::requester::lazy_channel;

pub use ask::{outcome, tag_request};
pub use client::KeyClient;
pub use compactor::{Compacted, KeyCompactor};
pub use history::KeyHistory;
pub use linear::KeysSearched;
pub use snapshot::KeySnapshot;
pub use watcher::{KeyWatcher, Noted, last_event, told_alike, watchers};

/// Clients at a time, every second of them with tags.
const CLIENTS: usize = 8;

/// Keys of one load; a history of each is searched by itself.
const KEYS: usize = 6;

/// One request about one key. One that puts two keys counts as two, each with its own key.
#[derive(Clone, Debug)]
pub struct KeyOperation {
    pub key: String,
    pub what: Asked,
    pub way: Way,
    pub invoked: Instant,
    /// When its first answer came, and what it was; `None` when none came.
    pub came: Option<(Instant, Came)>,
}

/// How it was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// `KV.Range`, `KV.Put` or `KV.DeleteRange`.
    Plain,
    /// `KV.Txn`.
    Txn,
    /// `KV.Txn`, which puts the same value to this other key as well.
    TxnWith(String),
}

/// What was asked. Values are not used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    Get,
    Put {
        value: u64,
    },
    Delete,
    /// Puts a value if another one is there.
    Swap {
        expected: u64,
        value: u64,
    },
}

impl Asked {
    /// The value that is put if all goes well.
    pub fn value(self) -> Option<u64> {
        match self {
            Self::Put { value } | Self::Swap { value, .. } => Some(value),
            Self::Get | Self::Delete => None,
        }
    }
}

/// What a key has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    pub value: u64,
    /// How often the key was put since it was made.
    pub version: i64,
    /// Revision at which it was made.
    pub created: i64,
    /// Revision at which it was put last.
    pub modified: i64,
}

/// What was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Came {
    /// What the request found, before it changed anything.
    pub before: Option<Found>,
    /// False when a swap found something else than it expected, or a deletion nothing.
    pub done: bool,
    /// Of the answer's header: the revision of what was written, and the store's when nothing was.
    pub revision: i64,
}

/// What clients did.
#[derive(Clone, Debug, Default)]
pub struct KeyRecord {
    pub operations: Vec<KeyOperation>,
    /// What was found by who read all keys at once.
    pub snapshots: Vec<KeySnapshot>,
}

impl KeyRecord {
    /// Adds what was recorded elsewhere on the same cluster.
    pub fn extend(&mut self, other: Self) {
        self.operations.extend(other.operations);
        self.snapshots.extend(other.snapshots);
    }

    /// Gets every key once more, which is recorded as well: what was answered must still be there.
    ///
    /// # Errors
    /// When a member does not answer.
    pub async fn read_back(&mut self, cluster: &Cluster) -> Result<()> {
        let names = cluster.names().into_iter();
        let addresses: Result<Vec<String>> = names.map(|name| cluster.address(&name)).collect();
        let mut client = KeyClient::new(&addresses?, 0, false)?;
        let keys: BTreeSet<String> = self.operations.iter().map(|one| one.key.clone()).collect();
        for key in keys {
            let seen = client.get(&key).await?;
            self.operations.push(seen);
        }
        Ok(())
    }

    /// Operations that were answered.
    pub fn answered(&self) -> usize {
        let answered = self.operations.iter().filter(|one| one.came.is_some());
        answered.count()
    }
}

/// Running clients. They end when this is dropped; [`KeyLoad::stop`] also tells what they did.
#[derive(Debug)]
pub struct KeyLoad {
    stop: watch::Sender<bool>,
    answered: watch::Receiver<usize>,
    clients: JoinSet<Result<KeyRecord>>,
}

impl KeyLoad {
    /// Starts clients on every member, on keys of their own below `prefix`, and one that reads all of these at once.
    ///
    /// # Errors
    /// When an address is none.
    pub fn start(cluster: &Cluster, prefix: &str) -> Result<Self> {
        let names = cluster.names().into_iter();
        let addresses: Result<Vec<String>> = names.map(|name| cluster.address(&name)).collect();
        let addresses = addresses?;
        let (stop, stopping) = watch::channel(false);
        let (count, answered) = watch::channel(0);
        let mut clients = JoinSet::new();
        for number in 0..CLIENTS {
            let client = KeyClient::new(&addresses, number, number % 2 == 0)?;
            let keys = (0..KEYS).map(|key| format!("{prefix}/{key}")).collect();
            clients.spawn(client.run(keys, stopping.clone(), count.clone()));
        }
        let members = addresses.iter().map(|at| lazy_channel(at));
        let members = members.collect::<Result<_>>()?;
        clients.spawn(snapshot::look(members, format!("{prefix}/"), stopping));
        Ok(Self {
            stop,
            answered,
            clients,
        })
    }

    /// Waits until `more` requests have been answered from now on.
    ///
    /// # Errors
    /// When they have not after `within`, or a client has failed.
    pub async fn answers(&self, more: usize, within: Duration) -> Result<()> {
        let mut answered = self.answered.clone();
        let before = *answered.borrow();
        let enough = answered.wait_for(|count| *count >= before + more);
        let waited = tokio::time::timeout(within, enough).await;
        let came = || *self.answered.borrow() - before;
        waited
            .with_context(|| format!("{} of {more} answers in {within:?}", came()))?
            .context("every client has ended")?;
        Ok(())
    }

    /// Tells the clients to stop, waits until the requests under way have ended, and returns what was
    /// recorded.
    ///
    /// # Errors
    /// When a client met an answer that a well-formed request must not get.
    pub async fn stop(mut self) -> Result<KeyRecord> {
        self.stop.send_replace(true);
        let mut record = KeyRecord::default();
        while let Some(client) = self.clients.join_next().await {
            record.extend(client.context("a client panicked")??);
        }
        ensure!(!record.operations.is_empty(), "nothing was asked");
        Ok(record)
    }
}
