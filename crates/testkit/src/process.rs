//! One child process: started with its output in a file, signalled by its id, never left behind.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::deadline::until;

/// A child of this process. Killed when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command`; standard output and error are appended to `log`.
    ///
    /// # Errors
    /// When the file or the program cannot be opened.
    pub fn start(command: &mut Command, log: &Path) -> Result<Self> {
        let output = OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("opening {}", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("starting {command:?}"))?;
        Ok(Self {
            child,
            log: log.to_owned(),
        })
    }

    /// Everything it wrote so far, earlier runs with the same file included.
    pub fn log(&self) -> String {
        read_lossy(&self.log)
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// True until it has ended.
    ///
    /// # Errors
    /// When the system cannot tell.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Memory that it occupies, in bytes.
    ///
    /// # Errors
    /// When it has ended.
    pub fn resident_bytes(&self) -> Result<u64> {
        self.status("VmRSS:")
    }

    /// The most that it has occupied since it started, or since it was told to count anew.
    ///
    /// # Errors
    /// When it has ended.
    pub fn most_resident_bytes(&self) -> Result<u64> {
        self.status("VmHWM:")
    }

    /// Has the system count anew what the most is that it has occupied.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn forget_most_resident(&self) -> Result<()> {
        let path = format!("/proc/{}/clear_refs", self.child.id());
        std::fs::write(&path, "5").with_context(|| format!("writing {path}"))
    }

    fn status(&self, name: &str) -> Result<u64> {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.and_then(|line| line.split_whitespace().next());
        let kib: u64 = kib
            .with_context(|| format!("{path} has no {name}"))?
            .parse()?;
        Ok(kib * 1024)
    }

    /// SIGKILL, and waits for the end.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// SIGSTOP.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn pause(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// SIGCONT.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn resume(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// SIGTERM, and waits for the end.
    ///
    /// # Errors
    /// When it is still there after `within`.
    pub async fn terminate(&mut self, within: Duration) -> Result<ExitStatus> {
        self.ask_to_end()?;
        self.ended(within).await
    }

    /// SIGTERM, and does not wait.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn ask_to_end(&self) -> Result<()> {
        self.signal(Signal::TERM)
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// When it is still there after `within`.
    pub async fn ended(&mut self, within: Duration) -> Result<ExitStatus> {
        until("end of a process", within, async || {
            match self.child.try_wait()? {
                Some(status) => Ok(status),
                None => bail!("process {} still runs", self.child.id()),
            }
        })
        .await
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        kill_process(Pid::from_child(&self.child), signal)
            .with_context(|| format!("sending {signal:?} to {}", self.child.id()))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Nothing is left to do for a process that is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A log file's text; empty when there is none.
pub(crate) fn read_lossy(path: &Path) -> String {
    std::fs::read(path)
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn output_is_kept_and_a_paused_process_goes_on() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let log = dir.path().join("log");
        let mut command = Command::new("sh");
        command.args(["-c", "echo begun; read line; echo never"]);
        let mut process = Process::start(&mut command, &log)?;
        let status = process.ended(Duration::from_secs(10)).await?;
        assert!(status.success(), "{status}");
        assert_eq!(process.log(), "begun\nnever\n");

        let mut process = Process::start(Command::new("sleep").arg("600"), &log)?;
        process.pause()?;
        assert!(process.is_running()?);
        process.resume()?;
        let status = process.terminate(Duration::from_secs(10)).await?;
        assert!(!status.success(), "{status}");
        Ok(())
    }
}
