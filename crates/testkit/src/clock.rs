//! Wall clocks that a test sets, one for each member, while they run. Time spans go on as they do: a
//! wall clock that is stepped does not touch them.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::cluster::Cluster;
use crate::lacking::lacking;
use crate::read::Reader;
use crate::requester::Requester;

/// Debian's libfaketime, for programs with threads.
const LIBRARY: &str = "faketime/libfaketimeMT.so.1";
const HOUR: i64 = 3_600;
const STEP_EVERY: Duration = Duration::from_millis(150);
const AHEAD_MS_MIN: u64 = 50 * 60_000;

/// The clocks of a cluster.
#[derive(Debug)]
pub struct Clocks {
    dir: PathBuf,
}

impl Clocks {
    /// Says why this machine cannot set clocks, if it cannot.
    ///
    /// # Errors
    /// When libfaketime is missing.
    pub fn possible() -> Result<()> {
        library().map(drop)
    }

    /// From their next start on the members of this cluster go by clocks of their own, which are right
    /// until they are set.
    ///
    /// # Errors
    /// When libfaketime is missing, or a file cannot be written.
    pub fn give(cluster: &mut Cluster) -> Result<Self> {
        let library = library()?.to_string_lossy().into_owned();
        let clocks = Self {
            dir: cluster.dir().join("clocks"),
        };
        fs::create_dir_all(&clocks.dir)?;
        for name in cluster.names() {
            clocks.set(&name, 0)?;
            let file = clocks.file(&name).to_string_lossy().into_owned();
            cluster.set_variable(&name, "LD_PRELOAD", library.clone())?;
            cluster.set_variable(&name, "FAKETIME_TIMESTAMP_FILE", file)?;
            for switch in [
                "FAKETIME_NO_CACHE",
                "FAKETIME_DONT_FAKE_MONOTONIC",
                "FAKETIME_DISABLE_SHM",
            ] {
                cluster.set_variable(&name, switch, "1".to_owned())?;
            }
        }
        Ok(clocks)
    }

    /// Sets a member's clock to so many seconds before or behind the right time, at once.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn set(&self, name: &str, seconds: i64) -> Result<()> {
        // Renamed into place, so that no half-written number is read.
        let fresh = self.dir.join(format!("{name}.new"));
        fs::write(&fresh, format!("{seconds:+}\n"))?;
        fs::rename(&fresh, self.file(name)).context("setting a clock")
    }

    /// From their next start on the clocks of the members are an hour apart; `None`, said loudly, where
    /// clocks cannot be set.
    ///
    /// # Errors
    /// When a file cannot be written, and where `CI` is set although clocks cannot be set.
    pub fn apart(cluster: &mut Cluster) -> Result<Option<Self>> {
        if let Err(why) = Self::possible() {
            lacking("clocks that step", &why)?;
            return Ok(None);
        }
        let clocks = Self::give(cluster)?;
        for (name, hours) in cluster.names().iter().zip([0, 1, -1].into_iter().cycle()) {
            clocks.set(name, hours * HOUR)?;
        }
        Ok(Some(clocks))
    }

    /// Steps any of these members' clocks to anywhere within an hour, again and again, until the work
    /// has ended.
    ///
    /// # Errors
    /// As the work fails, or when a file cannot be written.
    pub async fn step_during<T>(
        &self,
        names: &[String],
        seed: u64,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let stepping = async {
            let mut random = StdRng::seed_from_u64(seed);
            loop {
                let name = &names[random.random_range(0..names.len())];
                self.set(name, random.random_range(-HOUR..=HOUR))?;
                tokio::time::sleep(STEP_EVERY).await;
            }
        };
        tokio::select! {
            done = work => done,
            failed = stepping => failed,
        }
    }

    /// Puts every clock an hour ahead, and looks whether the cluster goes by that: or nothing was shown.
    ///
    /// # Errors
    /// When it does not, or does not answer.
    pub async fn are_followed(&self, cluster: &Cluster) -> Result<()> {
        for name in cluster.names() {
            self.set(&name, HOUR)?;
        }
        let address = cluster.address(&cluster.leader().await?)?;
        let mut requester = Requester::open(&address).await?;
        requester.register(&address, "an-hour-ahead").await?;
        let history = Reader::linearizable(&address).await?.history(0).await?;
        let last = history.last().context("no history")?.unix_ms;
        let since = SystemTime::now().duration_since(UNIX_EPOCH)?;
        let now = u64::try_from(since.as_millis())?;
        ensure!(last > now + AHEAD_MS_MIN, "stamped {last}, at {now}");
        Ok(())
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

fn library() -> Result<PathBuf> {
    let arch = std::env::consts::ARCH;
    let candidates = [
        format!("/usr/lib/{arch}-linux-gnu/{LIBRARY}"),
        format!("/usr/lib/{LIBRARY}"),
    ];
    let mut candidates = candidates.iter().map(PathBuf::from);
    candidates
        .find(|path: &PathBuf| Path::is_file(path))
        .context("libfaketime is missing; install it: scripts/setup")
}
