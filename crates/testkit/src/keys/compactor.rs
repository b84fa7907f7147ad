//! Compaction beside a load, never beyond what every watcher was told.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tally_proto::etcd::CompactionRequest;
use tally_proto::etcd::kv_client::KvClient;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::ask::{lawful, request};
use super::watcher::{KeyWatcher, Told};
use crate::cluster::Cluster;
use crate::requester::lazy_channel;

/// Between two compactions.
const PAUSE: Duration = Duration::from_millis(100);

/// Compacts again and again, through each member in turn. Ends when this is dropped.
#[derive(Debug)]
pub struct KeyCompactor {
    stop: watch::Sender<bool>,
    running: JoinHandle<Result<Compacted>>,
}

/// What was compacted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compacted {
    /// Answered compactions.
    pub times: usize,
    /// The last revision that was answered.
    pub revision: i64,
}

impl Drop for KeyCompactor {
    fn drop(&mut self) {
        self.running.abort();
    }
}

impl KeyCompactor {
    /// Starts it, at the revision of which the slowest of these watchers has been told.
    ///
    /// # Errors
    /// When an address is none.
    pub fn start(cluster: &Cluster, watchers: &BTreeMap<String, KeyWatcher>) -> Result<Self> {
        let names = cluster.names().into_iter();
        let members = names.map(|name| lazy_channel(&cluster.address(&name)?));
        let members = members.collect::<Result<Vec<_>>>()?;
        let told = watchers.values().map(KeyWatcher::told).collect();
        let (stop, stopping) = watch::channel(false);
        let running = tokio::spawn(compact(members, told, stopping));
        Ok(Self { stop, running })
    }

    /// Ends it after the compaction that is under way.
    ///
    /// # Errors
    /// When one was answered as none must be.
    pub async fn stop(mut self) -> Result<Compacted> {
        self.stop.send_replace(true);
        (&mut self.running)
            .await
            .context("the compactor panicked")?
    }
}

async fn compact(
    members: Vec<Channel>,
    told: Vec<Told>,
    stopping: watch::Receiver<bool>,
) -> Result<Compacted> {
    let mut compacted = Compacted::default();
    // The last revision that was asked for without an answer: it may have been compacted.
    let mut unknown = 0;
    for member in members.into_iter().cycle() {
        if *stopping.borrow() {
            break;
        }
        let revision = told.iter().map(Told::last).min().context("no watcher")?;
        if revision > compacted.revision {
            let ask = CompactionRequest {
                revision,
                physical: false,
            };
            match KvClient::new(member).compact(request(ask, None)?).await {
                Ok(_) => {
                    compacted.times += 1;
                    compacted.revision = revision;
                }
                Err(status) if is_compacted(&status) => {
                    ensure!(
                        revision <= unknown,
                        "{revision} was not compacted: {status:?}"
                    );
                    compacted.revision = revision;
                }
                Err(status) => {
                    lawful(&status)?;
                    unknown = revision;
                }
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(compacted)
}

fn is_compacted(status: &Status) -> bool {
    status.code() == Code::OutOfRange && status.message().contains("has been compacted")
}
