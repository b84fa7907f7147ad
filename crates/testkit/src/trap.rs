//! System calls of a running process that fail on purpose, with strace.

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
            let output = read_lossy(&self.output);
            match output.lines().find(|line| line.contains("(INJECTED)")) {
                Some(line) => parse(line),
                None => bail!("{} calls went well", output.lines().count()),
            }
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

/// A line such as `4711 1700000000.123456 fdatasync(12</d/log/000004.log>) = -1 EIO (…) (INJECTED)`.
fn parse(line: &str) -> Result<Failed> {
    let mut words = line.splitn(3, char::is_whitespace);
    let _thread = words.next();
    let rest = line.split_whitespace().nth(1).context("no time")?;
    let seconds: f64 = rest.parse().with_context(|| format!("no time: {line}"))?;
    let call = line
        .split_once(rest)
        .map(|(_, call)| call.trim().to_owned())
        .context("no call")?;
    Ok(Failed {
        at: SystemTime::UNIX_EPOCH + Duration::from_secs_f64(seconds),
        call,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_strace_is_understood() -> Result<()> {
        let line = "4711 1700000000.250000 fdatasync(12</d/log/4.log>) = -1 EIO (Input/output error) (INJECTED)";
        let failed = parse(line)?;
        let expected = SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_250);
        assert_eq!(failed.at, expected);
        assert!(failed.call.starts_with("fdatasync(12</d/log/4.log>)"));
        Ok(())
    }
}
