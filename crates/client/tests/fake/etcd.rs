//! The etcd API of one member: keys, and watches that read the state again after each change.

use std::ops::ControlFlow;
use std::pin::Pin;

use tally_model::command::Compact;
use tally_model::keys::{self, DeleteRange, Put, Range};
use tally_model::{
    AtMost, Command, Effect, EventId, KeyChanged, KeyOp, KeyRange, Outcome, Request, Revision,
    SessionId, Tag, Tagged, View,
};
use tally_proto::convert::{digest, txn};
use tally_proto::etcd;
use tally_proto::etcd::response_op::Response as Answered;
use tally_proto::etcd::watch_request::RequestUnion;
use tally_proto::fault::Fault;
use tally_proto::{mvcc, v1};
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Response, Status, Streaming, async_trait};

use super::services::Member;

const OPS_MAX: usize = 128;

fn tag(metadata: &MetadataMap) -> Option<v1::Tag> {
    let text = |name: &str| Some(metadata.get(name)?.to_str().unwrap().to_owned());
    let number = |name: &str| text(name).map(|text| text.parse::<u64>().unwrap());
    let marker: Option<tally_model::Marker> =
        text("tally-marker").map(|text| text.parse().unwrap());
    Some(v1::Tag {
        session: number("tally-session")?,
        sequence: number("tally-sequence")?,
        acknowledged: number("tally-acknowledged")?,
        marker: marker.map(Into::into),
    })
}

fn header(revision: u64) -> Option<etcd::ResponseHeader> {
    Some(etcd::ResponseHeader {
        revision: revision.try_into().unwrap(),
        ..Default::default()
    })
}

/// As etcd words it, where it does.
fn refusal(code: &str, found: &str) -> Status {
    match code {
        "T-502" => Status::not_found("etcdserver: requested lease not found"),
        "T-503" => Status::out_of_range("etcdserver: mvcc: required revision has been compacted"),
        "T-504" => Status::out_of_range("etcdserver: mvcc: required revision is a future revision"),
        _ => Fault::new(code, found).into_status(Code::FailedPrecondition),
    }
}

impl Member {
    /// Applies a write of keys under the tag in its metadata, as planned.
    async fn write(
        &self,
        call: &'static str,
        metadata: &MetadataMap,
        op: KeyOp,
    ) -> Result<(bool, u64, Answered), Status> {
        let (replayed, revision, effect) = self.tagged(call, metadata, Command::Keys(op)).await?;
        match effect {
            v1::effect::Kind::Keys(op) => Ok((replayed, revision, op.response.unwrap())),
            other => panic!("{other:?}"),
        }
    }

    async fn tagged(
        &self,
        call: &'static str,
        metadata: &MetadataMap,
        command: Command,
    ) -> Result<(bool, u64, v1::effect::Kind), Status> {
        let tag = tag(metadata).expect("a write without a tag");
        let tagged = Tagged {
            tag: Tag {
                session: SessionId(tag.session),
                sequence: tag.sequence,
            },
            acknowledged: tag.acknowledged,
            marker: tag.marker.clone().map(|marker| marker.try_into().unwrap()),
            digest: digest(&command),
        };
        let request = Request {
            tagged: Some(tagged),
            command,
        };
        let answer = self.command(call, Some(tag), Ok(request)).await?.unwrap();
        let (revision, effect) = match answer.outcome.unwrap() {
            v1::answer::Outcome::Applied(applied) => (applied.revision, applied.effect),
            v1::answer::Outcome::Replayed(replayed) => (replayed.since, replayed.effect),
            v1::answer::Outcome::Refused(refused) => {
                return Err(refusal(&refused.code, &refused.found));
            }
        };
        Ok((answer.repeat, revision, effect.unwrap().kind.unwrap()))
    }
}

fn response<T>(replayed: bool, message: T) -> Response<T> {
    let mut response = Response::new(message);
    let outcome = MetadataValue::from_static(if replayed { "replayed" } else { "applied" });
    response.metadata_mut().insert("tally-outcome", outcome);
    response
}

#[async_trait]
impl etcd::kv_server::Kv for Member {
    async fn range(
        &self,
        ask: tonic::Request<etcd::RangeRequest>,
    ) -> Result<Response<etcd::RangeResponse>, Status> {
        let op = KeyOp::Range(Range::try_from(ask.into_inner()).unwrap());
        let outcome = keys::read(&self.shared.state().memory, &op);
        match outcome {
            Outcome::Applied {
                effect: Effect::Keys(tally_model::KeyAnswer::Range(answer)),
                revision,
            } => Ok(Response::new(etcd::RangeResponse {
                header: header(revision.0),
                ..(&answer).into()
            })),
            Outcome::Refused(found) => Err(refusal(found.code(), &found.to_string())),
            other => panic!("{other:?}"),
        }
    }

    async fn put(
        &self,
        ask: tonic::Request<etcd::PutRequest>,
    ) -> Result<Response<etcd::PutResponse>, Status> {
        let (metadata, _, ask) = ask.into_parts();
        let op = KeyOp::Put(Put::try_from(ask).unwrap());
        let (replayed, revision, answered) = self.write("put", &metadata, op).await?;
        let Answered::ResponsePut(mut message) = answered else {
            panic!("{answered:?}")
        };
        message.header = header(revision);
        Ok(response(replayed, message))
    }

    async fn delete_range(
        &self,
        ask: tonic::Request<etcd::DeleteRangeRequest>,
    ) -> Result<Response<etcd::DeleteRangeResponse>, Status> {
        let (metadata, _, ask) = ask.into_parts();
        let op = KeyOp::Delete(DeleteRange::try_from(ask).unwrap());
        let (replayed, revision, answered) = self.write("delete", &metadata, op).await?;
        let Answered::ResponseDeleteRange(mut message) = answered else {
            panic!("{answered:?}")
        };
        message.header = header(revision);
        Ok(response(replayed, message))
    }

    async fn txn(
        &self,
        ask: tonic::Request<etcd::TxnRequest>,
    ) -> Result<Response<etcd::TxnResponse>, Status> {
        let (metadata, _, ask) = ask.into_parts();
        let op = KeyOp::Txn(txn(ask, OPS_MAX).unwrap());
        let (replayed, revision, answered) = self.write("txn", &metadata, op).await?;
        let Answered::ResponseTxn(mut message) = answered else {
            panic!("{answered:?}")
        };
        message.header = header(revision);
        Ok(response(replayed, message))
    }

    async fn compact(
        &self,
        ask: tonic::Request<etcd::CompactionRequest>,
    ) -> Result<Response<etcd::CompactionResponse>, Status> {
        let (metadata, _, ask) = ask.into_parts();
        let revision = Revision(ask.revision.try_into().unwrap());
        let command = Command::Compact(Compact { revision });
        let (replayed, revision, _) = self.tagged("compact", &metadata, command).await?;
        let message = etcd::CompactionResponse {
            header: header(revision),
        };
        Ok(response(replayed, message))
    }
}

/// What changed after one revision, up to and including another.
fn events(
    view: &impl View,
    watched: &KeyRange,
    after: Revision,
    until: Revision,
) -> Vec<mvcc::Event> {
    let (after, until) = (EventId::last_of(after), EventId::last_of(until));
    let changed = view.keys_changed(after, until, AtMost::ALL).into_iter();
    let changed = changed.filter(|changed| watched.contains(&changed.key));
    changed
        .map(|KeyChanged { id, key, deleted }| {
            let mut made = None;
            view.scan_keys(
                &KeyRange::One(key.clone()),
                Some(id.revision),
                &mut |found| {
                    made = Some(mvcc::KeyValue::from(&found));
                    ControlFlow::Break(())
                },
            );
            let gone = mvcc::KeyValue {
                key,
                mod_revision: id.revision.signed(),
                ..Default::default()
            };
            mvcc::Event {
                r#type: i32::from(deleted),
                kv: Some(made.unwrap_or(gone)),
                prev_kv: None,
            }
        })
        .collect()
}

#[async_trait]
impl etcd::watch_server::Watch for Member {
    type WatchStream =
        Pin<Box<dyn Stream<Item = Result<etcd::WatchResponse, Status>> + Send + 'static>>;

    /// Serves one watcher, from the revision before the one asked for on: a client must not rely on
    /// being told each once.
    async fn watch(
        &self,
        ask: tonic::Request<Streaming<etcd::WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let mut asks = ask.into_inner();
        let Some(RequestUnion::CreateRequest(ask)) = asks.message().await?.unwrap().request_union
        else {
            panic!("no watch is asked for")
        };
        let watched = KeyRange::new(ask.key.into(), ask.range_end.into());
        let (sender, receiver) = mpsc::channel(4);
        let mut applied = self.shared.applied.subscribe();
        let mut breaks = self.shared.breaks.subscribe();
        let revision = {
            let mut state = self.shared.state();
            state.watches += 1;
            state.memory.globals().revision
        };
        let mut told = match u64::try_from(ask.start_revision).unwrap() {
            0 => revision,
            from => Revision(from.saturating_sub(2)),
        };
        let shared = self.shared.clone();
        tokio::spawn(async move {
            let created = etcd::WatchResponse {
                header: header(revision.0),
                created: true,
                ..Default::default()
            };
            let _ = sender.send(Ok(created)).await;
            // Until it ends, the way from the client stays open.
            let _asks = asks;
            loop {
                let (now, changes) = {
                    let state = shared.state();
                    let now = state.memory.globals().revision;
                    (now, events(&state.memory, &watched, told, now))
                };
                told = now;
                if !changes.is_empty() {
                    let answer = etcd::WatchResponse {
                        header: header(now.0),
                        events: changes,
                        ..Default::default()
                    };
                    let _ = sender.send(Ok(answer)).await;
                }
                tokio::select! {
                    changed = applied.changed() => if changed.is_err() { return },
                    _ = breaks.changed() => return,
                    () = sender.closed() => return,
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}
