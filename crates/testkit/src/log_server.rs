//! `tally log-server` processes.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tally_proto::logserver;
use tempfile::TempDir;
use tonic::Status;

use crate::binary;
use crate::call::timed;
use crate::command::{Finished, Operator};
use crate::deadline::until;
use crate::port::Port;
use crate::process::Process;
use crate::requester::channel;

use logserver::log_server_client::LogServerClient;

const SERVES_WITHIN: Duration = Duration::from_secs(30);
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// A log server's name, directory and address; not running by itself.
#[derive(Debug)]
pub struct LogServer {
    name: String,
    dir: TempDir,
    port: Port,
    operator: Operator,
}

impl LogServer {
    /// A log server with an empty directory that will ask `operator`'s endpoints.
    ///
    /// # Errors
    /// When there is no room for a directory.
    pub fn new(name: &str, operator: Operator) -> Result<Self> {
        Ok(Self {
            name: name.to_owned(),
            dir: tempfile::Builder::new().prefix("tally-ls-").tempdir()?,
            port: Port::take()?,
            operator,
        })
    }

    /// Asks under another name from now on, with the same directory, and has the directory say so too.
    ///
    /// # Errors
    /// When the directory's marker cannot be rewritten.
    pub fn rename(&mut self, name: &str) -> Result<()> {
        let marker = self.data_dir().join("MARKER");
        if marker.exists() {
            let (old, new) = (
                format!("\"name\":\"{}\"", self.name),
                format!("\"name\":\"{name}\""),
            );
            let text = std::fs::read_to_string(&marker)?;
            std::fs::write(&marker, text.replace(&old, &new))?;
        }
        name.clone_into(&mut self.name);
        Ok(())
    }

    /// Its data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Removes everything below its data directory.
    ///
    /// # Errors
    /// When that is not possible.
    pub fn wipe(&self) -> Result<()> {
        let dir = self.data_dir();
        std::fs::remove_dir_all(&dir).with_context(|| format!("wiping {}", dir.display()))
    }

    /// Every file below its data directory, by relative path, ascending.
    ///
    /// # Errors
    /// When a directory cannot be read.
    pub fn files(&self) -> Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        let root = self.data_dir();
        if root.is_dir() {
            collect_files(&root, &root, &mut files)?;
        }
        files.sort();
        Ok(files)
    }

    /// Runs `tally log-server --exit-after-start`: provisions and ends.
    ///
    /// # Errors
    /// When it does not end.
    pub async fn start_up(&self) -> Result<Finished> {
        let data = self.data_dir();
        let data = data.to_str().context("path is not UTF-8")?;
        let mut arguments = self.arguments(data);
        arguments.push("--exit-after-start".to_owned());
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        self.operator.run(&arguments).await
    }

    /// Runs `tally log-server` and waits until it answers.
    ///
    /// # Errors
    /// When it does not, or ends.
    pub async fn serve(&self) -> Result<LogServerProcess> {
        let data = self.data_dir();
        let data = data.to_str().context("path is not UTF-8")?;
        let mut command = Command::new(binary::tally()?);
        command
            .args(self.arguments(data))
            .env("TALLY_ENDPOINTS", self.operator.endpoints())
            .env("NO_COLOR", "1");
        let mut running = LogServerProcess {
            process: Process::start(&mut command, &self.dir.path().join("log"))?,
            address: self.port.address(),
        };
        until("the log server answers", SERVES_WITHIN, async || {
            let runs = running.process.is_running()?;
            ensure!(runs, "it ended:\n{}", running.process.log());
            running.state().await
        })
        .await?;
        Ok(running)
    }

    fn arguments(&self, data: &str) -> Vec<String> {
        let arguments = [
            "log-server",
            "--name",
            &self.name,
            "--data-dir",
            data,
            "--listen",
            &self.port.address(),
        ];
        arguments.map(str::to_owned).to_vec()
    }
}

fn collect_files(root: &Path, dir: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            collect_files(root, &path, files)?;
        } else {
            files.push(path.strip_prefix(root)?.to_owned());
        }
    }
    Ok(())
}

/// A running log server. Killed when dropped.
#[derive(Debug)]
pub struct LogServerProcess {
    process: Process,
    address: String,
}

impl LogServerProcess {
    /// Everything it has said.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Where its clients reach it.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Memory that its process occupies, in bytes.
    ///
    /// # Errors
    /// When it has ended.
    pub fn resident_bytes(&self) -> Result<u64> {
        self.process.resident_bytes()
    }

    /// SIGKILL.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill()
    }

    /// SIGTERM, and waits until it ended with exit code 0.
    ///
    /// # Errors
    /// When it does not.
    pub async fn stop(mut self) -> Result<()> {
        let status = self.process.terminate(SERVES_WITHIN).await?;
        ensure!(status.success(), "{status}:\n{}", self.process.log());
        Ok(())
    }

    /// What it says of itself.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn state(&self) -> Result<logserver::StateResponse> {
        let mut client = LogServerClient::new(channel(&self.address).await?);
        let ask = timed(&logserver::StateRequest {}, ANSWER_WITHIN);
        Ok(client.state(ask).await?.into_inner())
    }

    /// Appends one record and returns its offset.
    ///
    /// # Errors
    /// The outer one when it cannot be reached, the inner one when it refuses.
    pub async fn append(&self, log: u64, data: &[u8]) -> Result<Result<u64, Status>> {
        let mut client = LogServerClient::new(channel(&self.address).await?);
        let ask = logserver::AppendRequest {
            log,
            data: data.to_vec(),
        };
        let answer = client.append(timed(&ask, ANSWER_WITHIN)).await;
        Ok(answer.map(|response| response.into_inner().offset))
    }

    /// Every record of a log.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn read(&self, log: u64) -> Result<Vec<logserver::Record>> {
        let mut client = LogServerClient::new(channel(&self.address).await?);
        let ask = logserver::ReadRequest {
            log,
            from: 1,
            limit: 0,
        };
        let response = client.read(timed(&ask, ANSWER_WITHIN)).await?;
        Ok(response.into_inner().records)
    }
}
