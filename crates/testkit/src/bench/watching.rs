//! Watchers on one member, of which each put of a key is told to ten.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, bail, ensure};
use futures::{StreamExt, stream};
use tally_proto::etcd::watch_client::WatchClient;
use tally_proto::etcd::watch_request::RequestUnion;
use tally_proto::etcd::{WatchCreateRequest, WatchRequest, WatchResponse};
use tokio::task::JoinSet;
use tonic::Streaming;

use super::key_caller::{KEYS, key};
use crate::requester::channel;

/// Streams, and so watchers that are told of each key: every stream watches all keys, in parts.
const STREAMS: usize = 10;
/// Watchers of a stream.
const PARTS: usize = 100;
const _: () = assert!(KEYS.is_multiple_of(PARTS), "a key without watchers");

/// The watchers; they end when it is dropped.
#[derive(Debug)]
pub(super) struct Watching {
    streams: JoinSet<Result<()>>,
    events: Arc<AtomicU64>,
}

impl Watching {
    /// Starts all watchers and waits for their creation.
    pub(super) async fn start(address: &str) -> Result<Self> {
        let events = Arc::new(AtomicU64::new(0));
        let mut streams = JoinSet::new();
        for _ in 0..STREAMS {
            let mut client = WatchClient::new(channel(address).await?);
            // Without an end: it would tell the member that the client has gone.
            let requests = stream::iter((0..PARTS).map(create)).chain(stream::pending());
            let mut answers = client.watch(requests).await?.into_inner();
            for _ in 0..PARTS {
                let answer = next(&mut answers).await?;
                ensure!(answer.created, "expected a created watcher: {answer:?}");
            }
            streams.spawn(count(answers, events.clone()));
        }
        Ok(Self { streams, events })
    }

    /// Events that came since the last time.
    ///
    /// # Errors
    /// When a stream has ended.
    pub(super) fn take(&mut self) -> Result<u64> {
        if let Some(ended) = self.streams.try_join_next() {
            ended??;
            bail!("a watch ended by itself");
        }
        Ok(self.events.swap(0, Ordering::Relaxed))
    }
}

/// A watcher of one part of the keys.
fn create(part: usize) -> WatchRequest {
    let keys = KEYS / PARTS;
    let create = WatchCreateRequest {
        key: key(part * keys).into(),
        range_end: key((part + 1) * keys).into(),
        ..Default::default()
    };
    WatchRequest {
        request_union: Some(RequestUnion::CreateRequest(create)),
    }
}

async fn next(answers: &mut Streaming<WatchResponse>) -> Result<WatchResponse> {
    let answer = answers.message().await?.context("a watch has ended")?;
    ensure!(!answer.canceled, "a watcher was cancelled: {answer:?}");
    Ok(answer)
}

async fn count(mut answers: Streaming<WatchResponse>, events: Arc<AtomicU64>) -> Result<()> {
    loop {
        let came = next(&mut answers).await?.events.len();
        events.fetch_add(came as u64, Ordering::Relaxed);
    }
}
