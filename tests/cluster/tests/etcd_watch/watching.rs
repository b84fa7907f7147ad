//! A stream of watchers, and what they are given to watch.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tally_proto::etcd::kv_client::KvClient;
use tally_proto::etcd::watch_client::WatchClient;
use tally_proto::etcd::watch_request::RequestUnion;
use tally_proto::etcd::{
    DeleteRangeRequest, PutRequest, RequestOp, TxnRequest, WatchCreateRequest, WatchRequest,
    WatchResponse, request_op,
};
use tally_proto::mvcc::Event;
use tally_proto::mvcc::event::EventType;
use tally_testkit::{Cluster, channel};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};

pub(crate) const TOLD_WITHIN: Duration = Duration::from_secs(30);

/// A stream of watchers.
pub(crate) struct Watching {
    pub(crate) requests: mpsc::Sender<WatchRequest>,
    pub(crate) answers: Streaming<WatchResponse>,
}

impl Watching {
    pub(crate) async fn open(to: &Channel) -> Result<Self> {
        Ok(Self::open_with(to, false).await?)
    }

    /// Opens a stream, one that ends when the member knows no leader if `leader_needed`.
    pub(crate) async fn open_with(to: &Channel, leader_needed: bool) -> Result<Self, Status> {
        let (requests, sent) = mpsc::channel(16);
        let mut client = WatchClient::new(to.clone()).max_decoding_message_size(64 << 20);
        let mut ask = Request::new(ReceiverStream::new(sent));
        if leader_needed {
            let yes = MetadataValue::from_static("true");
            ask.metadata_mut().insert("hasleader", yes);
        }
        let answers = client.watch(ask).await?.into_inner();
        Ok(Self { requests, answers })
    }

    pub(crate) async fn ask(&self, request: RequestUnion) -> Result<()> {
        let request_union = Some(request);
        Ok(self.requests.send(WatchRequest { request_union }).await?)
    }

    pub(crate) async fn create(&mut self, ask: WatchCreateRequest) -> Result<WatchResponse> {
        self.ask(RequestUnion::CreateRequest(ask)).await?;
        self.next().await
    }

    pub(crate) async fn next(&mut self) -> Result<WatchResponse> {
        let answer = timeout(TOLD_WITHIN, self.answers.message()).await;
        answer.context("told nothing")??.context("the stream ended")
    }

    /// The next events, so many of them, and of which watcher they are.
    pub(crate) async fn events(&mut self, count: usize) -> Result<Vec<(i64, Event)>> {
        let mut events = Vec::new();
        while events.len() < count {
            let answer = self.next().await?;
            ensure!(!answer.canceled, "cancelled: {answer:?}");
            let watch = answer.watch_id;
            events.extend(answer.events.into_iter().map(|event| (watch, event)));
        }
        ensure!(events.len() == count, "more than {count}: {events:?}");
        Ok(events)
    }
}

pub(crate) fn prefix(key: &str) -> WatchCreateRequest {
    let mut end = key.as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    WatchCreateRequest {
        key: key.as_bytes().to_vec(),
        range_end: end,
        ..Default::default()
    }
}

pub(crate) async fn put(kv: &mut KvClient<Channel>, key: &str, value: Vec<u8>) -> Result<i64> {
    let put = PutRequest {
        key: key.to_owned().into(),
        value: value.into(),
        ..Default::default()
    };
    let header = kv.put(put).await?.into_inner().header;
    Ok(header.context("no header")?.revision)
}

/// Puts so many keys below a prefix in one transaction, each with so many bytes.
pub(crate) async fn put_at_once(
    kv: &mut KvClient<Channel>,
    below: &str,
    keys: usize,
    bytes: usize,
) -> Result<i64> {
    let puts = (0..keys).map(|number| {
        let put = PutRequest {
            key: format!("{below}{number:03}").into(),
            value: vec![b'v'; bytes].into(),
            ..Default::default()
        };
        RequestOp {
            request: Some(request_op::Request::RequestPut(put)),
        }
    });
    let all = TxnRequest {
        success: puts.collect(),
        ..Default::default()
    };
    let header = kv.txn(all).await?.into_inner().header;
    Ok(header.context("no header")?.revision)
}

pub(crate) async fn delete(kv: &mut KvClient<Channel>, key: &str) -> Result<i64> {
    let delete = DeleteRangeRequest {
        key: key.to_owned().into(),
        ..Default::default()
    };
    let header = kv.delete_range(delete).await?.into_inner().header;
    Ok(header.context("no header")?.revision)
}

/// Kind, key, value, revision.
pub(crate) fn told(event: &Event) -> (EventType, String, String, i64) {
    let pair = event.kv.clone().unwrap_or_default();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (key, value) = (text(&pair.key), text(&pair.value));
    (event.r#type(), key, value, pair.mod_revision)
}

/// A cluster, and a member of it that follows.
pub(crate) async fn cluster() -> Result<(Cluster, Channel)> {
    let cluster = Cluster::start(3).await?;
    let follower = cluster.followers().await?.remove(0);
    let to = channel(&cluster.address(&follower)?).await?;
    Ok((cluster, to))
}
