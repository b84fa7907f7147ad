//! The machine under the measurement, and how long its disk takes to keep a promise.

use std::fmt;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

/// Writes that are timed, in each way.
const SYNCS: u64 = 300;
/// About what one command puts into the log.
const WRITE_BYTES: usize = 256;

/// What ratios are taken of.
#[derive(Clone, Debug)]
pub struct Machine {
    cpu: String,
    cores: usize,
    kernel: String,
    /// Median time of an fdatasync after a small write into a file of fixed size, and into one that
    /// grows by it, whose size is then part of what must be kept.
    pub fdatasync: Duration,
    pub fdatasync_growing: Duration,
}

impl Machine {
    /// Looks around and times the disk of `dir`. Takes a moment; the machine should be quiet.
    ///
    /// # Errors
    /// When `dir` cannot be written or lies in memory.
    pub fn look(dir: &Path) -> Result<Self> {
        on_a_disk(dir)?;
        let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = info.lines().find(|line| line.starts_with("model name"));
        let model = model.and_then(|line| line.split_once(": "));
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Ok(Self {
            cpu: model.map_or("unknown CPU", |(_, name)| name).to_owned(),
            cores: thread::available_parallelism()?.get(),
            kernel: kernel.trim().to_owned(),
            fdatasync: time_syncs(dir, false)?,
            fdatasync_growing: time_syncs(dir, true)?,
        })
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = |time: Duration| time.as_secs_f64() * 1e3;
        write!(
            f,
            "{}, {} cores, Linux {}, fdatasync {:.3} ms ({:.3} ms where the file grows)",
            self.cpu,
            self.cores,
            self.kernel,
            millis(self.fdatasync),
            millis(self.fdatasync_growing)
        )
    }
}

/// Refuses a directory whose fsyncs cost nothing.
fn on_a_disk(dir: &Path) -> Result<()> {
    let dir = fs::canonicalize(dir).with_context(|| dir.display().to_string())?;
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let of = mounts
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ').skip(1);
            Some((fields.next()?, fields.next()?))
        })
        .filter(|(at, _)| dir.starts_with(at))
        .max_by_key(|(at, _)| at.len());
    let kind = of.map_or("unknown", |(_, kind)| kind);
    ensure!(
        !matches!(kind, "tmpfs" | "ramfs"),
        "{} is in memory ({kind}), expected a disk: give another --data-dir",
        dir.display()
    );
    Ok(())
}

fn time_syncs(dir: &Path, growing: bool) -> Result<Duration> {
    let path = dir.join("fdatasync");
    let file = File::create(&path)?;
    let bytes = [7; WRITE_BYTES];
    if !growing {
        file.write_all_at(&vec![0; WRITE_BYTES * SYNCS as usize], 0)?;
        file.sync_all()?;
    }
    let mut times = Vec::new();
    for number in 0..SYNCS {
        let begun = Instant::now();
        file.write_all_at(&bytes, number * WRITE_BYTES as u64)?;
        file.sync_data()?;
        times.push(begun.elapsed());
    }
    fs::remove_file(&path)?;
    times.sort_unstable();
    Ok(times[times.len() / 2])
}
