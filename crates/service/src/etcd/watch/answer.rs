//! An answer to a stream of watchers. Events in it are encoded already, once for all who are told of them.

use bytes::Bytes;
use tally_proto::etcd::ResponseHeader;
use tokio::sync::OwnedSemaphorePermit;
use tonic::Status;

use crate::hub::Batch;

/// `etcdserverpb.WatchResponse`: the same bytes, of events that are bytes.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct WatchResponse {
    #[prost(message, optional, tag = "1")]
    pub(super) header: Option<ResponseHeader>,
    #[prost(int64, tag = "2")]
    pub(super) watch_id: i64,
    #[prost(bool, tag = "3")]
    pub(super) created: bool,
    #[prost(bool, tag = "4")]
    pub(super) canceled: bool,
    #[prost(int64, tag = "5")]
    pub(super) compact_revision: i64,
    #[prost(string, tag = "6")]
    pub(super) cancel_reason: String,
    #[prost(bool, tag = "7")]
    pub(super) fragment: bool,
    #[prost(bytes = "bytes", repeated, tag = "11")]
    pub(super) events: Vec<Bytes>,
}

/// An answer between its stream and the network. Boxed on its way: a channel has room for 32 of what it carries from the first on,
/// and there may be thousands of streams.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) answer: Result<WatchResponse, Status>,
    /// What it takes of the room for such answers, and the events in it: they count as waiting.
    pub(super) _held: Option<(OwnedSemaphorePermit, Batch)>,
}

impl Outgoing {
    /// One that takes hardly any room.
    pub(super) fn small(answer: Result<WatchResponse, Status>) -> Box<Self> {
        Box::new(Self {
            answer,
            _held: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use tally_proto::{etcd, mvcc};

    use super::*;

    #[test]
    fn an_answer_of_encoded_events_is_the_bytes_of_etcds() {
        let event = |key: &'static str| mvcc::Event {
            kv: Some(mvcc::KeyValue {
                key: key.into(),
                version: 3,
                ..Default::default()
            }),
            ..Default::default()
        };
        let header = ResponseHeader {
            revision: 9,
            ..Default::default()
        };
        let answer = etcd::WatchResponse {
            header: Some(header),
            watch_id: 1,
            created: true,
            canceled: true,
            compact_revision: 2,
            cancel_reason: "why".to_owned(),
            fragment: true,
            events: vec![event("a"), event("b"), mvcc::Event::default()],
        };
        let encoded = WatchResponse {
            header: Some(header),
            watch_id: 1,
            created: true,
            canceled: true,
            compact_revision: 2,
            cancel_reason: "why".to_owned(),
            fragment: true,
            events: Vec::from_iter(
                answer
                    .events
                    .iter()
                    .map(|event| event.encode_to_vec().into()),
            ),
        };
        assert_eq!(encoded.encode_to_vec(), answer.encode_to_vec());
    }
}
