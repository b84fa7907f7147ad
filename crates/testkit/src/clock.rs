//! Wall clocks that a test sets, one for each member, while they run. Time spans go on as they do: a
//! wall clock that is stepped does not touch them.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::cluster::Cluster;

/// Debian's libfaketime, for programs with threads.
const LIBRARY: &str = "faketime/libfaketimeMT.so.1";

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
