//! A watcher on one member, which goes on from where it was when its stream breaks.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use futures::StreamExt;
use tally_proto::etcd::watch_client::WatchClient;
use tally_proto::etcd::watch_request::RequestUnion;
use tally_proto::etcd::{WatchCreateRequest, WatchRequest};
use tally_proto::mvcc::event::EventType;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;

use crate::requester::lazy_channel;

/// Before a broken stream is opened again.
const PAUSE: Duration = Duration::from_millis(50);

/// One event as a watcher was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Noted {
    pub revision: i64,
    pub key: Bytes,
    /// `None` for a deletion.
    pub value: Option<Bytes>,
    pub version: i64,
}

/// See the module.
#[derive(Debug)]
pub struct KeyWatcher {
    noted: watch::Receiver<Vec<Noted>>,
    running: JoinHandle<Result<()>>,
}

impl Drop for KeyWatcher {
    fn drop(&mut self) {
        self.running.abort();
    }
}

impl KeyWatcher {
    /// Watches every key below a prefix, from a revision on.
    ///
    /// # Errors
    /// When the address is none.
    pub fn start(address: &str, prefix: &str, from: i64) -> Result<Self> {
        let channel = lazy_channel(address)?;
        let (note, noted) = watch::channel(Vec::new());
        let prefix = prefix.as_bytes().to_vec();
        let running = tokio::spawn(async move {
            let mut next = from;
            loop {
                let mut client = WatchClient::new(channel.clone());
                // What breaks a stream is the fault that the test is about.
                let _ = follow(&mut client, &prefix, &mut next, &note).await;
                tokio::time::sleep(PAUSE).await;
            }
        });
        Ok(Self { noted, running })
    }

    /// What was told so far.
    pub fn noted(&self) -> Vec<Noted> {
        self.noted.borrow().clone()
    }

    /// Waits until it was told of a revision, and gives everything up to it.
    ///
    /// # Errors
    /// When it was not after `within`, or was told something twice or out of order.
    pub async fn through(&self, revision: i64, within: Duration) -> Result<Vec<Noted>> {
        let mut noted = self.noted.clone();
        let reached = |noted: &Vec<Noted>| noted.last().is_some_and(|one| one.revision >= revision);
        let waited = tokio::time::timeout(within, noted.wait_for(reached)).await;
        let last = || self.noted.borrow().last().map(|one| one.revision);
        let told = waited.with_context(|| format!("told of {:?}, not of {revision}", last()))?;
        let told = told.context("the watcher has ended")?.clone();
        for pair in told.windows(2) {
            ensure!(
                pair[0].revision < pair[1].revision,
                "told out of order, or twice: {pair:?}"
            );
        }
        Ok(told
            .into_iter()
            .filter(|one| one.revision <= revision)
            .collect())
    }
}

async fn follow(
    client: &mut WatchClient<tonic::transport::Channel>,
    prefix: &[u8],
    next: &mut i64,
    note: &watch::Sender<Vec<Noted>>,
) -> Result<()> {
    let mut end = prefix.to_vec();
    *end.last_mut().context("an empty prefix")? += 1;
    let create = WatchCreateRequest {
        key: prefix.to_vec(),
        range_end: end,
        start_revision: *next,
        ..Default::default()
    };
    let (send, requests) = tokio::sync::mpsc::channel(1);
    let create = WatchRequest {
        request_union: Some(RequestUnion::CreateRequest(create)),
    };
    send.send(create).await?;
    let answers = client.watch(ReceiverStream::new(requests)).await?;
    let mut answers = answers.into_inner();
    while let Some(answer) = answers.next().await {
        let answer = answer?;
        ensure!(!answer.canceled, "cancelled: {answer:?}");
        for event in answer.events {
            let kind = event.r#type();
            let pair = event.kv.context("an event of nothing")?;
            *next = pair.mod_revision + 1;
            let noted = Noted {
                revision: pair.mod_revision,
                key: pair.key,
                value: (kind == EventType::Put).then_some(pair.value),
                version: pair.version,
            };
            note.send_modify(|all| all.push(noted));
        }
    }
    // Dropped only now: it would tell the member that the client has gone.
    drop(send);
    Ok(())
}
