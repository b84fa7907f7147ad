//! The `tally` command as an operator types it.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::binary;

const ENDS_WITHIN: Duration = Duration::from_secs(60);

/// A command that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// `None` when a signal ended it.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Finished {
    /// Everything it said.
    pub fn said(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }

    /// The same, if it ended with `code`.
    ///
    /// # Errors
    /// When it ended otherwise; the message carries what it said.
    pub fn expect_code(self, code: i32) -> Result<Self> {
        let found = self.code;
        ensure!(
            found == Some(code),
            "exit code {found:?}, expected {code}:\n{}",
            self.said()
        );
        Ok(self)
    }

    /// Standard output as JSON.
    ///
    /// # Errors
    /// When it is none.
    pub fn json(&self) -> Result<serde_json::Value> {
        serde_json::from_str(&self.stdout).with_context(|| format!("no JSON: {}", self.said()))
    }
}

/// Types commands against a cluster's endpoints.
#[derive(Clone, Debug)]
pub struct Operator {
    endpoints: Vec<String>,
}

impl Operator {
    /// `endpoints` are `HOST:PORT` each.
    pub fn new(endpoints: Vec<String>) -> Self {
        Self { endpoints }
    }

    /// For `TALLY_ENDPOINTS`.
    pub fn endpoints(&self) -> String {
        let urls = self
            .endpoints
            .iter()
            .map(|address| format!("http://{address}"));
        Vec::from_iter(urls).join(",")
    }

    /// Runs `tally` with these arguments to its end.
    ///
    /// # Errors
    /// When it cannot be started or does not end within a minute. An exit code is no error.
    pub async fn run(&self, arguments: &[&str]) -> Result<Finished> {
        let output = timeout(ENDS_WITHIN, self.command(arguments)?.output())
            .await
            .with_context(|| format!("tally {arguments:?} did not end in {ENDS_WITHIN:?}"))??;
        Ok(Finished {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Starts `tally` with these arguments, its output to be read. It is killed when it is dropped.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(&self, arguments: &[&str]) -> Result<Child> {
        let mut command = self.command(arguments)?;
        Ok(command.stdout(Stdio::piped()).spawn()?)
    }

    fn command(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = Command::new(binary::tally()?);
        command
            .args(arguments)
            .env("TALLY_ENDPOINTS", self.endpoints())
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .kill_on_drop(true);
        Ok(command)
    }
}
