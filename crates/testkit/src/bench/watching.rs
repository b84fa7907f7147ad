//! Watchers on one member, of which each put of a key is told to ten.

use std::ops::Range;
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

/// Watchers that are told of each key.
const OF_EACH_KEY: usize = 10;
/// Connections that streams share.
const CONNECTIONS: usize = 10;

/// How many watchers there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watchers {
    watchers: usize,
    streams: usize,
}

impl Watchers {
    /// So many, on so many streams.
    ///
    /// # Errors
    /// When they cannot have equal parts of the keys, or of the streams.
    pub fn new(watchers: usize, streams: usize) -> Result<Self> {
        let parts = watchers / OF_EACH_KEY;
        ensure!(
            watchers.is_multiple_of(OF_EACH_KEY) && parts > 0 && KEYS.is_multiple_of(parts),
            "{watchers} watchers, expected {OF_EACH_KEY} times a divisor of {KEYS}"
        );
        ensure!(
            streams > 0 && watchers.is_multiple_of(streams),
            "{streams} streams, expected a divisor of {watchers}"
        );
        Ok(Self { watchers, streams })
    }

    /// Those of one stream, by number.
    fn of_stream(self, stream: usize) -> Range<usize> {
        let each = self.watchers / self.streams;
        stream * each..(stream + 1) * each
    }

    /// The request of a watcher of one part of the keys.
    fn create(self, number: usize) -> WatchRequest {
        let parts = self.watchers / OF_EACH_KEY;
        let (part, keys) = (number % parts, KEYS / parts);
        let create = WatchCreateRequest {
            key: key(part * keys).into(),
            range_end: key((part + 1) * keys).into(),
            ..Default::default()
        };
        WatchRequest {
            request_union: Some(RequestUnion::CreateRequest(create)),
        }
    }
}

/// The watchers; they end when it is dropped.
#[derive(Debug)]
pub(super) struct Watching {
    streams: JoinSet<Result<()>>,
    events: Arc<AtomicU64>,
}

impl Watching {
    /// Starts all watchers and waits for their creation.
    pub(super) async fn start(address: &str, watchers: Watchers) -> Result<Self> {
        let events = Arc::new(AtomicU64::new(0));
        let mut streams = JoinSet::new();
        let mut channels = Vec::new();
        for _ in 0..CONNECTIONS.min(watchers.streams) {
            channels.push(channel(address).await?);
        }
        for stream in 0..watchers.streams {
            let numbers = watchers.of_stream(stream);
            let mut client = WatchClient::new(channels[stream % channels.len()].clone());
            // Without an end: it would tell the member that the client has gone.
            let requests = numbers.clone().map(move |number| watchers.create(number));
            let requests = stream::iter(requests).chain(stream::pending());
            let mut answers = client.watch(requests).await?.into_inner();
            for _ in numbers {
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
