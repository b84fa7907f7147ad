//! Many keys: how long the members take, and what memory they have, from the load to the restart of all.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::Bytes;
use serde_json::{Value, json};
use tally_proto::etcd::PutRequest;
use tally_proto::etcd::kv_client::KvClient;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tonic::Request;

use crate::cluster::Cluster;
use crate::many::{ManyKeys, PAGE, caught_up, replace};
use crate::requester::lazy_channel;

/// How many ranges are read.
const RANGES: usize = 100;
/// Of so many keys one is changed, so that compaction finds something to remove.
const CHANGED_ONE_OF: usize = 10;
/// Between two writes that look whether somebody is kept waiting.
const PROBE_EVERY: Duration = Duration::from_millis(20);

/// What one step took.
#[derive(Clone, Debug)]
pub struct Step {
    pub what: &'static str,
    pub took: Duration,
    /// The longest that a write of another client took, or waited while nobody could answer.
    pub longest_write: Duration,
    /// Of each member at the end, by name.
    pub resident_bytes: Vec<(String, u64)>,
    /// The most that any member had meanwhile.
    pub most_resident_bytes: u64,
    pub disk_bytes: u64,
}

impl Step {
    /// Above the rows of a table.
    pub const HEADER: &str = "step                            seconds  longest write ms  most MB  disk MB  MB of each member at the end";

    /// As `--json` prints it.
    pub fn to_json(&self) -> Value {
        let resident = self.resident_bytes.iter();
        let resident = resident.map(|(name, bytes)| (name.clone(), megabytes(*bytes).into()));
        json!({
            "step": self.what,
            "seconds": self.took.as_secs_f64(),
            "longest_write_ms": self.longest_write.as_millis() as u64,
            "most_rss_mb": megabytes(self.most_resident_bytes),
            "disk_mb": megabytes(self.disk_bytes),
            "rss_mb": Value::Object(resident.collect()),
        })
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let resident = self.resident_bytes.iter();
        let resident = resident.map(|(name, bytes)| format!("{name} {:.1}", megabytes(*bytes)));
        write!(
            f,
            "{:<30}  {:>7.2}  {:>16.0}  {:>7.1}  {:>7.0}  {}",
            self.what,
            self.took.as_secs_f64(),
            self.longest_write.as_secs_f64() * 1e3,
            megabytes(self.most_resident_bytes),
            megabytes(self.disk_bytes),
            Vec::from_iter(resident).join(", ")
        )
    }
}

fn megabytes(bytes: u64) -> f64 {
    (bytes as f64 / 1e5).round() / 10.0
}

/// Does everything in turn with so many keys of 1 KiB, and tells of each step.
///
/// # Errors
/// When a member does not do what it should, or not in half an hour.
pub async fn run(
    cluster: &mut Cluster,
    keys: usize,
    mut tell: impl FnMut(&Step),
) -> Result<Vec<Step>> {
    let probe = Probe::start(cluster)?;
    let leader = cluster.leader().await?;
    let away = cluster.followers().await?.remove(0);
    let many = ManyKeys::at(cluster, &leader, keys).await?;
    let mut steps = Vec::new();
    let mut step = Begun::new(cluster, &probe);
    let mut ended = |cluster: &Cluster, begun: &mut Begun, what| -> Result<()> {
        let step = begun.end(what, cluster, &probe)?;
        tell(&step);
        steps.push(step);
        Ok(())
    };
    ended(cluster, &mut step, "nothing yet")?;

    let (first, _) = many.put(1, 1).await?;
    ended(cluster, &mut step, "load")?;
    let range = PAGE.min(keys);
    for _ in 0..RANGES {
        let from = rand::random_range(0..=keys - range);
        many.read(from, range, |_| 1).await?;
    }
    ended(cluster, &mut step, "100 ranges of 1,000")?;
    many.read_pages(|_| 1).await?;
    ended(cluster, &mut step, "all, in pages of 1,000")?;
    many.count().await?;
    ended(cluster, &mut step, "count of all")?;
    many.watch(first).await?;
    ended(cluster, &mut step, "prefix watch of all events")?;
    let (_, last) = many.put(CHANGED_ONE_OF, 2).await?;
    ended(cluster, &mut step, "change of one key in ten")?;
    many.compact(last).await?;
    ended(cluster, &mut step, "compaction, all reclaimed")?;

    replace(cluster, &away).await?;
    ended(cluster, &mut step, "new follower, by snapshot")?;
    cluster.stop_member(&away).await?;
    cluster.launch(&away)?;
    caught_up(cluster, &away).await?;
    ended(cluster, &mut step, "restart of a follower")?;
    for name in cluster.names() {
        cluster.stop_member(&name).await?;
    }
    for name in cluster.names() {
        cluster.launch(&name)?;
    }
    for name in cluster.names() {
        caught_up(cluster, &name).await?;
    }
    ended(cluster, &mut step, "restart of all")?;
    let many = ManyKeys::at(cluster, &leader, keys).await?;
    many.count().await?;
    ended(cluster, &mut step, "count of all")?;
    many.read_pages(|number| 1 + u8::from(number.is_multiple_of(CHANGED_ONE_OF)))
        .await?;
    ended(cluster, &mut step, "all, in pages of 1,000")?;
    probe.stop().await?;
    Ok(steps)
}

/// A step under way.
struct Begun(Instant);

impl Begun {
    fn new(cluster: &Cluster, probe: &Probe) -> Self {
        forget_most(cluster);
        probe.take();
        Self(Instant::now())
    }

    /// Ends it and begins the next one.
    fn end(&mut self, what: &'static str, cluster: &Cluster, probe: &Probe) -> Result<Step> {
        let took = self.0.elapsed();
        let (mut resident_bytes, mut most, mut disk_bytes) = (Vec::new(), 0, 0);
        for name in cluster.started() {
            let member = cluster.member(&name)?;
            resident_bytes.push((name, member.resident_bytes()?));
            most = most.max(member.most_resident_bytes()?);
            disk_bytes = disk_bytes.max(size(member.data_dir())?);
        }
        let step = Step {
            what,
            took,
            longest_write: probe.take(),
            resident_bytes,
            most_resident_bytes: most,
            disk_bytes,
        };
        *self = Self::new(cluster, probe);
        Ok(step)
    }
}

/// Has the system count anew what the most memory of each member was.
fn forget_most(cluster: &Cluster) {
    for name in cluster.started() {
        // Where it may not, what is told is the most since the start.
        if let Ok(member) = cluster.member(&name) {
            let _ = member.forget_most_resident();
        }
    }
}

/// What files below a directory take; one that has just gone counts for nothing.
fn size(directory: &std::path::Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(directory)?.flatten() {
        bytes += match entry.metadata() {
            Ok(found) if found.is_dir() => size(&entry.path()).unwrap_or(0),
            Ok(found) => found.len(),
            Err(_) => 0,
        };
    }
    Ok(bytes)
}

/// A client that writes all the time and sees whether it is kept waiting.
struct Probe {
    /// Microseconds.
    longest: Arc<AtomicU64>,
    /// When the write that is under way began, microseconds after `begun`.
    since: Arc<AtomicU64>,
    begun: Instant,
    stop: Arc<AtomicBool>,
    running: JoinHandle<Result<()>>,
}

impl Probe {
    /// Through each member in turn.
    fn start(cluster: &Cluster) -> Result<Self> {
        let names = cluster.names();
        let clients = names.iter().map(|name| {
            let address = cluster.address(name)?;
            Ok(KvClient::new(lazy_channel(&address)?))
        });
        let clients: Vec<_> = clients.collect::<Result<_>>()?;
        let (longest, since) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let (stop, begun) = (Arc::<AtomicBool>::default(), Instant::now());
        let running = {
            let (longest, since, stop) = (longest.clone(), since.clone(), stop.clone());
            tokio::spawn(async move {
                let mut turns = clients.iter().cycle();
                while !stop.load(Ordering::Relaxed) {
                    sleep(PROBE_EVERY).await;
                    let from = begun.elapsed();
                    since.store(micros(from), Ordering::Relaxed);
                    let put = PutRequest {
                        key: Bytes::from_static(b"probe"),
                        ..Default::default()
                    };
                    // One member after the other, as a client that has three endpoints does.
                    while !stop.load(Ordering::Relaxed) {
                        let mut client = turns.next().context("no members")?.clone();
                        let mut request = Request::new(put.clone());
                        request.set_timeout(Duration::from_secs(10));
                        match client.put(request).await {
                            Ok(_) => break,
                            Err(_) => sleep(Duration::from_millis(1)).await,
                        }
                    }
                    longest.fetch_max(micros(begun.elapsed() - from), Ordering::Relaxed);
                    since.store(u64::MAX, Ordering::Relaxed);
                }
                Ok(())
            })
        };
        Ok(Self {
            longest,
            since,
            begun,
            stop,
            running,
        })
    }

    /// The longest that a write has taken since the last time, one under way included.
    fn take(&self) -> Duration {
        let under_way =
            micros(self.begun.elapsed()).saturating_sub(self.since.load(Ordering::Relaxed));
        Duration::from_micros(self.longest.swap(0, Ordering::Relaxed).max(under_way))
    }

    async fn stop(self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        self.running.await?
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
