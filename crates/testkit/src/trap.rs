//! System calls of a running process that fail on purpose, with strace.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail, ensure};

use crate::deadline::until;
use crate::process::{Process, read_lossy};

const ATTACHED_WITHIN: Duration = Duration::from_secs(20);

/// Calls that make something durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Calls {
    /// All of them.
    Syncs,
    /// Those that sync the content of files, and no directories.
    DataSyncs,
}

impl Calls {
    fn names(self) -> &'static str {
        match self {
            Self::Syncs => "fsync,fdatasync,sync_file_range,msync,syncfs,sync",
            Self::DataSyncs => "fdatasync,sync_file_range",
        }
    }
}

/// Stands between a process and its disk. The process goes on undisturbed when this is dropped.
#[derive(Debug)]
pub struct Trap {
    process: Process,
    output: std::path::PathBuf,
}

/// A call that was made to fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    pub at: SystemTime,
    /// When the same thread's last call began that went well. What the thread wrote later was not synced.
    pub last_good: Option<SystemTime>,
    /// As strace shows it, with the file.
    pub call: String,
}

impl Trap {
    /// Can this machine have traps?
    ///
    /// # Errors
    /// Says what is missing.
    pub fn possible() -> Result<()> {
        let traced = Command::new("strace")
            .args(["-o", "/dev/null", "-e", "trace=fsync", "true"])
            .output()
            .context("running strace")?;
        ensure!(
            traced.status.success(),
            "strace: {}",
            String::from_utf8_lossy(&traced.stderr).trim()
        );
        Ok(())
    }

    /// From now on, in each thread of the process, the `n`-th of these calls and all after it fail with
    /// an I/O error. Notes are kept below `dir`.
    ///
    /// # Errors
    /// When strace cannot attach.
    pub async fn nth(process: u32, calls: Calls, n: usize, dir: &Path) -> Result<Self> {
        Self::set(process, calls, &format!("error=EIO:when={n}+"), dir).await
    }

    /// From now on these calls do not return for so long, which no process outlives that ends in time.
    ///
    /// # Errors
    /// When strace cannot attach.
    pub async fn hanging(process: u32, calls: Calls, hang: Duration, dir: &Path) -> Result<Self> {
        let microseconds = hang.as_micros();
        Self::set(process, calls, &format!("delay_enter={microseconds}"), dir).await
    }

    async fn set(process: u32, calls: Calls, injected: &str, dir: &Path) -> Result<Self> {
        let calls = calls.names();
        let output = dir.join(format!("trap-{process}"));
        let said = dir.join(format!("trap-{process}.log"));
        let mut command = Command::new("strace");
        command
            .args(["-f", "-y", "-ttt", "-p", &process.to_string()])
            .args(["-e", &format!("trace={calls}")])
            .args(["-e", &format!("inject={calls}:{injected}")])
            .arg("-o")
            .arg(&output);
        let mut process = Process::start(&mut command, &said)?;
        until("strace is attached", ATTACHED_WITHIN, async || {
            // It may have ended with its process by now, whose first call failed.
            let running = process.is_running()?;
            let said = process.log();
            ensure!(said.contains("attached"), "running: {running}: {said}");
            Ok(())
        })
        .await?;
        Ok(Self { process, output })
    }

    /// The first call that failed, once there is one.
    ///
    /// # Errors
    /// When there is none after `within`.
    pub async fn sprung(&self, within: Duration) -> Result<Failed> {
        until("a call that fails", within, async || {
            first_failed(&read_lossy(&self.output))
        })
        .await
    }

    /// Waits until strace has ended, which it does with the process.
    ///
    /// # Errors
    /// When it has not after `within`.
    pub async fn ended(mut self, within: Duration) -> Result<()> {
        self.process.ended(within).await?;
        Ok(())
    }
}

/// Goes through lines such as `4711 1700000000.123456 fdatasync(12</d/log/4.log>) = -1 EIO (…) (INJECTED)`;
/// a call during which another thread's was told is in two of them.
fn first_failed(output: &str) -> Result<Failed> {
    let mut unfinished: BTreeMap<&str, (SystemTime, &str)> = BTreeMap::new();
    let mut good: BTreeMap<&str, SystemTime> = BTreeMap::new();
    for line in output.lines() {
        let Some((thread, rest)) = line.split_once(' ') else {
            continue;
        };
        let Some((at, said)) = rest.trim_start().split_once(' ') else {
            continue;
        };
        let seconds: f64 = at.parse().with_context(|| format!("no time: {line}"))?;
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs_f64(seconds);
        if let Some(begin) = said.strip_suffix("<unfinished ...>") {
            unfinished.insert(thread, (at, begin.trim_end()));
            continue;
        }
        let (at, call) = match said.split_once(" resumed>") {
            None => (at, said.to_owned()),
            Some((_, end)) => {
                let begun = unfinished.remove(thread);
                let (at, begin) = begun.with_context(|| format!("no beginning: {line}"))?;
                (at, format!("{begin}{end}"))
            }
        };
        if call.ends_with("(INJECTED)") {
            let last_good = good.get(thread).copied();
            return Ok(Failed {
                at,
                last_good,
                call,
            });
        }
        if call.ends_with("= 0") {
            good.insert(thread, at);
        }
    }
    bail!("{} lines and no call that failed", output.lines().count())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at_ms(ms: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_000 + ms)
    }

    #[test]
    fn a_line_of_strace_is_understood() -> Result<()> {
        let line = "4711 1700000000.250000 fdatasync(12</d/log/4.log>) = -1 EIO (Input/output error) (INJECTED)";
        let failed = first_failed(line)?;
        assert_eq!((failed.at, failed.last_good), (at_ms(250), None));
        assert!(failed.call.starts_with("fdatasync(12</d/log/4.log>)"));
        Ok(())
    }

    #[test]
    fn a_call_in_two_lines_is_one_and_the_thread_s_last_good_one_is_known() -> Result<()> {
        let output = "\
4711 1700000000.125000 fdatasync(12</d/log/4.log>) = 0
4712 1700000000.187500 fsync(14</d/state>) = 0
4711 1700000000.250000 fdatasync(12</d/log/4.log> <unfinished ...>
4712 1700000000.312500 fsync(14</d/state>) = 0
4711 1700000000.375000 <... fdatasync resumed>) = -1 EIO (Input/output error) (INJECTED)";
        let failed = first_failed(output)?;
        assert_eq!(
            (failed.at, failed.last_good),
            (at_ms(250), Some(at_ms(125)))
        );
        assert!(failed.call.starts_with("fdatasync(12</d/log/4.log>) = -1"));
        Ok(())
    }
}
