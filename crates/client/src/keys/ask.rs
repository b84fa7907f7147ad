//! The calls of the etcd API, each as a value that can be sent again and again under one tag.

use std::time::Duration;

use etcd::kv_client::KvClient;
use etcd::lease_client::LeaseClient;
use etcd::response_op::Response as Answered;
use tally_model::keys::{KeyAnswer, RangeAnswer};
use tally_model::{KeyValue, LeaseId};
use tally_proto::{etcd, v1};
use tonic::metadata::MetadataMap;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use super::lease::{Lease, LeaseLeft};
use super::{Deleted, TxnAnswer, Written, refusal, tag};
use crate::answer::Refused;
use crate::call::{Call, Tagged};

/// Longest answer that is taken: a range is sent as a whole.
const ANSWER_BYTES_MAX: usize = 256 << 20;

/// A request of the etcd API.
pub(super) trait Ask: Clone + Send + Sync {
    /// What it is answered with.
    type Answer: Send;
    /// etcd's message of that.
    type Message: Send;

    /// Sends it once.
    fn ask(
        channel: Channel,
        request: Request<Self>,
    ) -> impl Future<Output = Result<Response<Self::Message>, Status>> + Send;

    /// Takes the header out of an answer.
    fn header(message: &mut Self::Message) -> Option<etcd::ResponseHeader>;

    /// Reads an answer; `None` when it makes no sense.
    fn read(message: Self::Message) -> Option<Self::Answer>;
}

/// A request on its way, under a tag when it is a write.
pub(super) struct Asked<Q> {
    ask: Q,
    tag: Option<v1::Tag>,
}

impl<Q> Asked<Q> {
    pub(super) fn new(ask: Q) -> Self {
        Self { ask, tag: None }
    }
}

/// An answer that cannot be read says nothing of what happened, so the request goes out again.
fn unreadable(part: &str) -> Status {
    Status::data_loss(format!("the answer cannot be read: {part}"))
}

fn read<Q: Ask>(metadata: &MetadataMap, mut message: Q::Message) -> Option<Written<Q::Answer>> {
    // It counts from 1 on, so 0 is an answer without one.
    let revision = Q::header(&mut message)?.revision;
    let revision = u64::try_from(revision).ok().filter(|number| *number > 0)?;
    Some(Written {
        revision,
        replayed: tag::is_replayed(metadata),
        answer: Q::read(message)?,
    })
}

impl<Q: Ask> Call for Asked<Q> {
    type Answer = Result<Written<Q::Answer>, Refused>;

    async fn send(&self, channel: Channel, within: Duration) -> Result<Self::Answer, Status> {
        let mut request = Request::new(self.ask.clone());
        request.set_timeout(within);
        if let Some(tag) = &self.tag {
            tag::put(request.metadata_mut(), tag)?;
        }
        match Q::ask(channel, request).await {
            Ok(response) => {
                let (metadata, message, _) = response.into_parts();
                let written = read::<Q>(&metadata, message);
                written.map(Ok).ok_or_else(|| unreadable("message"))
            }
            Err(status) => refusal::read(status).map(Err),
        }
    }
}

impl<Q: Ask> Tagged for Asked<Q> {
    fn put_tag(&mut self, tag: v1::Tag) {
        self.tag = Some(tag);
    }

    fn refused(answer: &Self::Answer) -> Option<&Refused> {
        answer.as_ref().err()
    }
}

macro_rules! asks {
    ($($ask:ident => $client:ident.$method:ident -> $message:ident => $answer:ty, $read:expr;)*) => {$(
        impl Ask for etcd::$ask {
            type Answer = $answer;
            type Message = etcd::$message;

            async fn ask(
                channel: Channel,
                request: Request<Self>,
            ) -> Result<Response<Self::Message>, Status> {
                let client = $client::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX);
                // A write may be as long as the member allows; it is the one to say so.
                let mut client = client.max_encoding_message_size(usize::MAX);
                client.$method(request).await
            }

            fn header(message: &mut Self::Message) -> Option<etcd::ResponseHeader> {
                message.header.clone()
            }

            fn read(message: Self::Message) -> Option<Self::Answer> {
                $read(message)
            }
        }
    )*};
}

asks! {
    RangeRequest => KvClient.range -> RangeResponse => RangeAnswer, range;
    PutRequest => KvClient.put -> PutResponse => Option<KeyValue>, put;
    DeleteRangeRequest => KvClient.delete_range -> DeleteRangeResponse => Deleted, deleted;
    TxnRequest => KvClient.txn -> TxnResponse => TxnAnswer, txn;
    CompactionRequest => KvClient.compact -> CompactionResponse => (), |_| Some(());
    LeaseGrantRequest => LeaseClient.lease_grant -> LeaseGrantResponse => Lease, granted;
    LeaseRevokeRequest => LeaseClient.lease_revoke -> LeaseRevokeResponse => (), |_| Some(());
    LeaseTimeToLiveRequest => LeaseClient.lease_time_to_live -> LeaseTimeToLiveResponse
        => Option<LeaseLeft>, left;
    LeaseLeasesRequest => LeaseClient.lease_leases -> LeaseLeasesResponse => Vec<LeaseId>, leases;
}

fn key_answer(answered: Answered) -> Option<KeyAnswer> {
    let answered = etcd::ResponseOp {
        response: Some(answered),
    };
    KeyAnswer::try_from(answered).ok()
}

fn range(message: etcd::RangeResponse) -> Option<RangeAnswer> {
    match key_answer(Answered::ResponseRange(message))? {
        KeyAnswer::Range(answer) => Some(answer),
        _ => None,
    }
}

fn put(message: etcd::PutResponse) -> Option<Option<KeyValue>> {
    match key_answer(Answered::ResponsePut(message))? {
        KeyAnswer::Put { previous, .. } => Some(previous),
        _ => None,
    }
}

fn deleted(message: etcd::DeleteRangeResponse) -> Option<Deleted> {
    match key_answer(Answered::ResponseDeleteRange(message))? {
        KeyAnswer::Deleted {
            count, previous, ..
        } => Some(Deleted { count, previous }),
        _ => None,
    }
}

fn txn(message: etcd::TxnResponse) -> Option<TxnAnswer> {
    match key_answer(Answered::ResponseTxn(message))? {
        KeyAnswer::Txn { succeeded, answers } => Some(TxnAnswer { succeeded, answers }),
        _ => None,
    }
}

fn granted(message: etcd::LeaseGrantResponse) -> Option<Lease> {
    Some(Lease {
        id: LeaseId(message.id),
        ttl_s: u64::try_from(message.ttl).ok()?,
    })
}

fn left(message: etcd::LeaseTimeToLiveResponse) -> Option<Option<LeaseLeft>> {
    let Ok(left_s) = u64::try_from(message.ttl) else {
        return Some(None);
    };
    Some(Some(LeaseLeft {
        lease: Lease {
            id: LeaseId(message.id),
            ttl_s: u64::try_from(message.granted_ttl).ok()?,
        },
        left_s,
        keys: message.keys.into_iter().map(Into::into).collect(),
    }))
}

fn leases(message: etcd::LeaseLeasesResponse) -> Option<Vec<LeaseId>> {
    let ids = message.leases.into_iter().map(|lease| LeaseId(lease.id));
    Some(ids.collect())
}

/// One sign of life of a lease, on a stream of its own: the seconds that it lives from now on, `None`
/// when there is none.
pub(super) struct Renewal(pub(super) LeaseId);

impl Call for Renewal {
    type Answer = Option<u64>;

    async fn send(&self, channel: Channel, _: Duration) -> Result<Option<u64>, Status> {
        let ask = tokio_stream::iter([etcd::LeaseKeepAliveRequest { id: self.0.0 }]);
        let answered = async {
            let answers = LeaseClient::new(channel).lease_keep_alive(ask).await?;
            answers.into_inner().message().await
        };
        // A refusal of a renewal is the answer with a time of 0; an error says nothing final.
        let answer = answered
            .await
            .map_err(|status| match refusal::read(status) {
                Ok(refused) => Status::internal(refused.to_string()),
                Err(status) => status,
            })?;
        let answer = answer.ok_or_else(|| unreadable("no renewal"))?;
        Ok(u64::try_from(answer.ttl).ok().filter(|ttl_s| *ttl_s > 0))
    }
}
