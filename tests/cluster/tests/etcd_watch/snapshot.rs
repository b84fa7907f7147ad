//! Watchers of a member that is brought forward by a snapshot, not by the log.

use std::time::Duration;

use anyhow::{Result, ensure};
use tally_proto::etcd::kv_client::KvClient;
use tally_proto::etcd::{CompactionRequest, WatchCreateRequest, WatchResponse};
use tally_testkit::{Cluster, channel, until};
use tonic::transport::Channel;

use crate::watching::{Watching, prefix, put, put_at_once, told};

const OFTEN: [&str; 4] = ["--snapshot-entries", "50", "--keep-entries", "10"];
const PURGED_WITHIN: Duration = Duration::from_secs(60);
/// Transactions that the member misses, keys that each puts, and bytes of their values: far more than is on the way
/// to it when it is paused.
const TXNS: usize = 200;
const KEYS: usize = 3;
const BYTES: usize = 32 << 10;

/// A cluster of which one follower is paused until the log does not reach back to where it was.
struct Away {
    cluster: Cluster,
    name: String,
    to: Channel,
    /// On that member, created before it was paused, and told of nothing since.
    watching: Watching,
    /// A client of the leader.
    kv: KvClient<Channel>,
    /// Of the first and the last write that it missed.
    missed: (i64, i64),
    purged_index: u64,
}

impl Away {
    async fn start() -> Result<Self> {
        let cluster = Cluster::start_with(3, &OFTEN).await?;
        let (leader, name) = (
            cluster.leader().await?,
            cluster.followers().await?.remove(0),
        );
        let to = channel(&cluster.address(&name)?).await?;
        let mut watching = Watching::open(&to).await?;
        watching.create(prefix("s/")).await?;
        let mut kv = KvClient::new(channel(&cluster.address(&leader)?).await?);
        put(&mut kv, "s/first", Vec::new()).await?;
        watching.events(1).await?;

        cluster.pause(&name)?;
        let before = cluster.status(&leader).await?.last_log_index;
        let first = put_at_once(&mut kv, "s/", KEYS, BYTES).await?;
        let mut last = first;
        for _ in 1..TXNS {
            last = put_at_once(&mut kv, "s/", KEYS, BYTES).await?;
        }
        let purged_index = until("the leader has purged", PURGED_WITHIN, async || {
            let purged = cluster.status(&leader).await?.purged_index;
            let missed = before + TXNS as u64 / 2;
            ensure!(purged > missed, "purged to {purged}, not beyond {missed}");
            Ok(purged)
        })
        .await?;
        Ok(Self {
            cluster,
            name,
            to,
            watching,
            kv,
            missed: (first, last),
            purged_index,
        })
    }

    async fn back(&self) -> Result<()> {
        self.cluster.resume(&self.name)?;
        self.cluster.state_hashes_agree().await?;
        let status = self.cluster.status(&self.name).await?;
        ensure!(
            status.snapshot_index >= self.purged_index,
            "no snapshot brought it forward: {status:?}"
        );
        Ok(())
    }
}

/// What a watcher was told: whole revisions, each once and in order.
struct Told {
    revision: i64,
    last: i64,
}

impl Told {
    /// Nothing of what was missed.
    fn before(first: i64, last: i64) -> Self {
        Self {
            revision: first - 1,
            last,
        }
    }

    fn take(&mut self, answer: &WatchResponse) -> Result<()> {
        let revisions = answer.events.iter().map(|event| told(event).3);
        let revisions: Vec<i64> = revisions.collect();
        for of_one in revisions.chunk_by(|one, other| one == other) {
            let expected = self.revision + 1;
            ensure!(of_one[0] == expected, "r{}, not r{expected}", of_one[0]);
            let whole = if expected <= self.last { KEYS } else { 1 };
            ensure!(of_one.len() == whole, "r{expected} was split");
            self.revision = expected;
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_snapshot_brought_is_told_in_order_once() -> Result<()> {
    let mut away = Away::start().await?;
    away.back().await?;
    let (first, last) = away.missed;
    let after = put(&mut away.kv, "s/after", Vec::new()).await?;

    let mut heard = Told::before(first, last);
    while heard.revision < after {
        let answer = away.watching.next().await?;
        ensure!(!answer.canceled, "cancelled after r{}", heard.revision);
        heard.take(&answer)?;
    }
    away.cluster.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_compacted_before_the_snapshot_ends_a_watcher_that_needs_it() -> Result<()> {
    let mut away = Away::start().await?;
    let (first, last) = away.missed;
    let compacted = last - 1;
    // Answered when it is removed: as long as it is there, who has begun is told of it.
    let compaction = CompactionRequest {
        revision: compacted,
        physical: true,
    };
    away.kv.compact(compaction).await?;
    away.back().await?;

    let mut heard = Told::before(first, last);
    loop {
        let answer = away.watching.next().await?;
        heard.take(&answer)?;
        if answer.canceled {
            ensure!(
                answer.compact_revision == compacted,
                "r{}, not compacted at r{compacted}",
                answer.compact_revision
            );
            break;
        }
    }
    ensure!(heard.revision < compacted, "told to r{}", heard.revision);
    // What is left is there for who asks for it.
    let rest = WatchCreateRequest {
        start_revision: compacted,
        ..prefix("s/")
    };
    let mut watching = Watching::open(&away.to).await?;
    watching.create(rest).await?;
    let events = watching
        .events(KEYS * usize::try_from(last - compacted + 1)?)
        .await?;
    ensure!(
        events
            .last()
            .is_some_and(|(_, event)| told(event).3 == last)
    );
    away.cluster.stop().await
}
