//! Members of etcd on this machine, as they come from its package, to be measured beside Tally's.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tally_proto::etcd::maintenance_client::MaintenanceClient;
use tally_proto::etcd::{StatusRequest, StatusResponse};
use tempfile::TempDir;

use super::usage::Usage;
use crate::call::timed;
use crate::deadline::until;
use crate::http;
use crate::port::Port;
use crate::process::Process;
use crate::requester::channel;

const SETTLED_WITHIN: Duration = Duration::from_secs(60);
const STATUS_WITHIN: Duration = Duration::from_secs(2);
const END_WITHIN: Duration = Duration::from_secs(20);

/// A cluster that leads and serves. Its processes and directories go when it is dropped.
#[derive(Debug)]
pub struct Etcd {
    members: Vec<EtcdMember>,
    /// After the members, so that they end first.
    _dir: TempDir,
}

#[derive(Debug)]
struct EtcdMember {
    name: String,
    client: Port,
    /// Held as long as the process, which listens on it.
    _peer: Port,
    process: Process,
}

impl Etcd {
    /// Starts `count` members of `program` with its defaults, below `parent`, and waits for a leader.
    ///
    /// # Errors
    /// When the program cannot be started, or there is no leader after a minute.
    pub async fn start(program: &Path, parent: &Path, count: usize) -> Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("etcd-cluster-")
            .tempdir_in(parent)
            .with_context(|| format!("making a directory in {}", parent.display()))?;
        let peers: Vec<Port> = (0..count).map(|_| Port::take()).collect::<Result<_>>()?;
        let named = |(number, peer): (usize, &Port)| format!("e{number}={}", url(peer));
        let all = peers.iter().enumerate().map(named).collect::<Vec<_>>();
        let all = all.join(",");
        let start = |(number, peer)| {
            EtcdMember::start(program, dir.path(), format!("e{number}"), peer, &all)
        };
        let members = peers.into_iter().enumerate().map(start);
        let etcd = Self {
            members: members.collect::<Result<_>>()?,
            _dir: dir,
        };
        until("a leader of etcd", SETTLED_WITHIN, async || {
            etcd.leader_first().await
        })
        .await?;
        Ok(etcd)
    }

    /// Where clients reach the members, the leader before the others.
    pub(super) async fn leader_first(&self) -> Result<Vec<String>> {
        let mut addresses = Vec::new();
        let mut leaders = 0;
        for member in &self.members {
            let address = member.client.address();
            match is_leader(&member.status().await?) {
                true => {
                    leaders += 1;
                    addresses.insert(0, address);
                }
                false => addresses.push(address),
            }
        }
        ensure!(leaders == 1, "{leaders} members lead");
        Ok(addresses)
    }

    /// Waits until every member has applied the same.
    pub(super) async fn settled(&self) -> Result<()> {
        until("equal applied indices", SETTLED_WITHIN, async || {
            let mut applied = Vec::new();
            for member in &self.members {
                applied.push(member.status().await?.raft_applied_index);
            }
            let first = applied.first().copied();
            ensure!(
                applied.iter().all(|index| Some(*index) == first),
                "applied: {applied:?}"
            );
            Ok(())
        })
        .await
    }

    /// Of every member.
    pub(super) async fn usage(&self) -> Result<Vec<Usage>> {
        let mut all = Vec::new();
        for member in &self.members {
            let usage = member.usage().await;
            all.push(usage.with_context(|| format!("what {} has used", member.name))?);
        }
        Ok(all)
    }

    /// Ends every member with SIGTERM.
    ///
    /// # Errors
    /// When one does not end.
    pub async fn stop(mut self) -> Result<()> {
        for member in &mut self.members {
            member.process.terminate(END_WITHIN).await?;
        }
        Ok(())
    }
}

impl EtcdMember {
    fn start(program: &Path, dir: &Path, name: String, peer: Port, all: &str) -> Result<Self> {
        let client = Port::take()?;
        let (client_url, peer_url) = (url(&client), url(&peer));
        let mut command = Command::new(program);
        command
            .args(["--name", &name])
            .arg("--data-dir")
            .arg(dir.join(&name))
            .args(["--listen-client-urls", &client_url])
            .args(["--advertise-client-urls", &client_url])
            .args(["--listen-peer-urls", &peer_url])
            .args(["--initial-advertise-peer-urls", &peer_url])
            .args(["--initial-cluster", all])
            .args(["--initial-cluster-state", "new"]);
        let process = Process::start(&mut command, &dir.join(format!("{name}.log")))?;
        Ok(Self {
            name,
            client,
            _peer: peer,
            process,
        })
    }

    async fn status(&self) -> Result<StatusResponse> {
        let mut client = MaintenanceClient::new(channel(&self.client.address()).await?);
        let status = client.status(timed(&StatusRequest {}, STATUS_WITHIN));
        Ok(status.await?.into_inner())
    }

    async fn usage(&self) -> Result<Usage> {
        let answer = http::get(&self.client.address(), "/metrics").await?;
        let status = self.status().await?;
        Ok(Usage {
            fsyncs: answer.metric("etcd_disk_wal_fsync_duration_seconds_count")?,
            term: status.raft_term,
            leads: is_leader(&status),
            ..Usage::of_process(self.process.id())?
        })
    }
}

fn is_leader(status: &StatusResponse) -> bool {
    let member = status.header.as_ref().map(|header| header.member_id);
    member == Some(status.leader)
}

fn url(port: &Port) -> String {
    format!("http://{}", port.address())
}
