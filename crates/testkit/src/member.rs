//! One `tally serve` process: its directory, its addresses, and what it says of itself.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tally_proto::v1;
use v1::cluster_client::ClusterClient;

use crate::binary;
use crate::call::timed;
use crate::host::Host;
use crate::http::{self, HttpAnswer};
use crate::port::Port;
use crate::process::{Process, read_lossy};
use crate::requester::channel;

const STATUS_WITHIN: Duration = Duration::from_secs(2);
/// A member that is told to end has this long to hand over and to close its files.
const END_WITHIN: Duration = Duration::from_secs(20);

/// A member of a cluster under test, running or not.
#[derive(Debug)]
pub struct Member {
    name: String,
    data: PathBuf,
    log: PathBuf,
    client: Port,
    peer: Port,
    http: Port,
    host: Option<Host>,
    environment: Vec<(String, String)>,
    process: Option<Process>,
    /// Where the others reach it, if not at its own address.
    announced: Option<String>,
}

impl Member {
    /// A member that does not run yet, with everything it writes below `dir`.
    pub(crate) fn new(name: String, dir: &Path) -> Result<Self> {
        Ok(Self {
            data: dir.join(&name),
            log: dir.join(format!("{name}.log")),
            client: Port::take()?,
            peer: Port::take()?,
            http: Port::take()?,
            host: None,
            environment: Vec::new(),
            process: None,
            announced: None,
            name,
        })
    }

    /// As in `--name`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where clients reach it.
    pub fn client_address(&self) -> String {
        self.at(&self.client)
    }

    /// Where members reach it.
    pub fn peer_address(&self) -> String {
        self.at(&self.peer)
    }

    /// The peer address that the members are started with.
    pub(crate) fn announced(&self) -> String {
        let own = || self.peer_address();
        self.announced.clone().unwrap_or_else(own)
    }

    pub(crate) fn announce(&mut self, address: String) {
        self.announced = Some(address);
    }

    /// The id of its process.
    ///
    /// # Errors
    /// When it does not run.
    pub fn process_id(&self) -> Result<u32> {
        Ok(self.running()?.id())
    }

    /// Waits until the process has ended by itself.
    pub(crate) async fn ended(&mut self, within: Duration) -> Result<Option<i32>> {
        let process = self.process.as_mut().context("it was not started")?;
        let status = process.ended(within).await?;
        self.process = None;
        Ok(status.code())
    }

    /// Where operators reach it.
    pub fn http_address(&self) -> String {
        self.http.address()
    }

    /// Memory that its process occupies, in bytes.
    ///
    /// # Errors
    /// When it does not run.
    pub fn resident_bytes(&self) -> Result<u64> {
        self.running()?.resident_bytes()
    }

    /// The most that it has occupied, as [`Process::most_resident_bytes`] counts it.
    ///
    /// # Errors
    /// When it does not run.
    pub fn most_resident_bytes(&self) -> Result<u64> {
        self.running()?.most_resident_bytes()
    }

    /// As [`Process::forget_most_resident`].
    ///
    /// # Errors
    /// When it does not run.
    pub fn forget_most_resident(&self) -> Result<()> {
        self.running()?.forget_most_resident()
    }

    /// Its data directory.
    pub fn data_dir(&self) -> &Path {
        &self.data
    }

    /// Everything that it has written to its standard output and error, over all its runs.
    pub fn log(&self) -> String {
        read_lossy(&self.log)
    }

    /// True between start and kill or stop.
    pub fn is_started(&self) -> bool {
        self.process.is_some()
    }

    pub(crate) fn start(&mut self, initial_cluster: &str, more: &[String]) -> Result<()> {
        ensure!(self.process.is_none(), "{} runs already", self.name);
        let mut command = match &self.host {
            Some(host) => host.command(binary::tally()?),
            None => Command::new(binary::tally()?),
        };
        command
            .arg("serve")
            .args(["--name", &self.name])
            .arg("--data-dir")
            .arg(&self.data)
            .args(["--listen-client", &self.client_address()])
            .args(["--listen-peer", &self.peer_address()])
            .args(["--listen-http", &self.at(&self.http)])
            .args(["--initial-cluster", initial_cluster])
            .args(more)
            .env("NO_COLOR", "1")
            .envs(self.environment.iter().cloned());
        self.process = Some(Process::start(&mut command, &self.log)?);
        Ok(())
    }

    pub(crate) fn kill(&mut self) -> Result<()> {
        match self.process.take() {
            Some(mut process) => process.kill(),
            None => Ok(()),
        }
    }

    pub(crate) async fn stop(&mut self) -> Result<()> {
        let Some(mut process) = self.process.take() else {
            return Ok(());
        };
        let status = process.terminate(END_WITHIN).await?;
        ensure!(status.success(), "{} was told to end: {status}", self.name);
        Ok(())
    }

    pub(crate) fn ask_to_end(&self) -> Result<()> {
        self.running()?.ask_to_end()
    }

    pub(crate) fn pause(&self) -> Result<()> {
        self.running()?.pause()
    }

    pub(crate) fn resume(&self) -> Result<()> {
        self.running()?.resume()
    }

    /// Removes the data directory of a member that does not run.
    pub(crate) fn wipe(&self) -> Result<()> {
        ensure!(self.process.is_none(), "{} still runs", self.name);
        std::fs::remove_dir_all(&self.data)
            .with_context(|| format!("wiping {}", self.data.display()))
    }

    /// Fails when the process has ended although nobody ended it.
    pub(crate) fn still_runs(&mut self) -> Result<()> {
        let process = self.process.as_mut().context("it was not started")?;
        ensure!(process.is_running()?, "{} ended by itself", self.name);
        Ok(())
    }

    /// What the member knows, through `tally.v1.Cluster.Status`.
    ///
    /// # Errors
    /// When it does not answer within two seconds.
    pub async fn status(&self) -> Result<v1::StatusResponse> {
        let mut client = ClusterClient::new(channel(&self.client_address()).await?);
        let response = client
            .status(timed(&v1::StatusRequest {}, STATUS_WITHIN))
            .await;
        let status = response.with_context(|| format!("status of {}", self.name))?;
        Ok(status.into_inner())
    }

    /// `GET` on its HTTP listener, for example `/readyz`.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn http(&self, path: &str) -> Result<HttpAnswer> {
        http::get(&self.at(&self.http), path).await
    }

    /// From now on it is started there.
    pub(crate) fn move_to(&mut self, host: Host) {
        self.host = Some(host);
    }

    /// From now on it is started with this variable.
    pub(crate) fn set_variable(&mut self, name: &str, value: String) {
        self.environment.push((name.to_owned(), value));
    }

    fn at(&self, port: &Port) -> String {
        match &self.host {
            Some(host) => port.address_at(host.address),
            None => port.address(),
        }
    }

    fn running(&self) -> Result<&Process> {
        self.process
            .as_ref()
            .with_context(|| format!("{} does not run", self.name))
    }
}
