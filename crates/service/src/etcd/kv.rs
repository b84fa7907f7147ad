//! `etcdserverpb.KV`.

mod range;
mod server;

use std::sync::Arc;
use std::time::Instant;

use prost::Message;
use tally_consensus::Consistency;
use tally_model::command::Compact;
use tally_model::keys::{self, DeleteRange, Put, Range, Txn};
use tally_model::{Command, Effect, KeyAnswer, KeyOp, KeyRange, Outcome, Revision, View};
use tally_proto::convert;
use tally_proto::etcd::kv_server::Kv;
use tally_proto::etcd::request_op::Request as Asked;
use tally_proto::etcd::response_op::Response as Answered;
use tally_proto::etcd::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, PutRequest,
    PutResponse, RangeRequest, RangeResponse, RequestOp, ResponseOp, TxnRequest, TxnResponse,
};
use tally_storage::StateReader;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};

use super::writer::{Done, Writer};
use super::{header, rpctypes};
use crate::deadline;
use crate::member::Member;

pub(super) use server::SendsRanges;

/// What clients call again and again.
pub(super) const OFTEN: [&str; 4] = [
    "/etcdserverpb.KV/Range",
    "/etcdserverpb.KV/Put",
    "/etcdserverpb.KV/DeleteRange",
    "/etcdserverpb.KV/Txn",
];

/// Ranges that are read at a time; each takes a thread, and a large one as long as its caller takes it.
const RANGES_MAX: usize = 32;
/// Reads at a time that hold what they find, up to [`keys::READ_BYTES_MAX`]; or as many as there are
/// processors.
const HOLDERS_MIN: usize = 4;

pub(super) struct KvAnswers {
    member: Arc<Member>,
    writer: Arc<Writer>,
    ranges: Arc<Semaphore>,
    holders: Arc<Semaphore>,
}

impl KvAnswers {
    pub(super) fn new(member: Arc<Member>, writer: Arc<Writer>) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            member,
            writer,
            ranges: Arc::new(Semaphore::new(RANGES_MAX)),
            holders: Arc::new(Semaphore::new(processors.max(HOLDERS_MIN))),
        }
    }

    fn check_size(&self, request: &impl Message) -> Result<(), Status> {
        match request.encoded_len() > self.member.config.tuning.request_bytes_max {
            true => Err(rpctypes::too_large()),
            false => Ok(()),
        }
    }

    /// Writes keys; gives etcd's answer, its header with the revision alone.
    async fn write_keys(
        &self,
        method: &'static str,
        metadata: &MetadataMap,
        op: Result<KeyOp, Status>,
    ) -> Result<(Done, Option<Answered>), Status> {
        let command = op.map(Command::Keys);
        let done = self.writer.write(method, metadata, command).await?;
        let answered = match &done.effect {
            Effect::Keys(answer) => ResponseOp::from(answer).response,
            _ => None,
        };
        Ok((done, answered))
    }

    /// The state, as fresh as asked for.
    async fn state(
        &self,
        metadata: &MetadataMap,
        consistency: Consistency,
    ) -> Result<StateReader, Status> {
        let replica = self.writer.replica()?;
        let read_from = replica.read(consistency, deadline::of(metadata));
        let reader = self.member.ending.unless_refusing(read_from).await;
        let reader = reader.ok_or_else(rpctypes::stopped)?;
        reader.map_err(|error| rpctypes::read(&error))
    }

    /// Reads keys, and holds what it finds.
    async fn read(
        &self,
        metadata: &MetadataMap,
        consistency: Consistency,
        op: KeyOp,
    ) -> Result<(Revision, KeyAnswer), Status> {
        let reader = self.state(metadata, consistency).await?;
        let quick = matches!(&op, KeyOp::Range(ask) if matches!(ask.keys, KeyRange::One(_)));
        let look = move || reader.with_view(|view| keys::read(view, &op));
        let outcome = match quick {
            true => look(),
            // Many rows take their time, and others must go on meanwhile.
            false => {
                let _held = turn(&self.holders, metadata).await?;
                tokio::task::spawn_blocking(look)
                    .await
                    .map_err(|_| rpctypes::stopped())?
            }
        };
        match outcome.map_err(|_| rpctypes::stopped())? {
            Outcome::Applied {
                revision,
                effect: Effect::Keys(answer),
            } => Ok((revision, answer)),
            Outcome::Refused(refusal) => Err(rpctypes::refusal(&refusal)),
            Outcome::Applied { .. } | Outcome::Replayed { .. } => Err(rpctypes::stopped()),
        }
    }

    async fn read_range(
        &self,
        metadata: &MetadataMap,
        ask: RangeRequest,
    ) -> Result<Response<RangeResponse>, Status> {
        let consistency = consistency(ask.serializable);
        let ask = Range::try_from(ask).map_err(|error| rpctypes::malformed(&error))?;
        let many = !matches!(ask.keys, KeyRange::One(_));
        let (revision, answer) = if many && ask.comes_in_order() {
            let turn = turn(&self.ranges, metadata).await?;
            let reader = self.state(metadata, consistency).await?;
            let member = self.member.clone();
            let header = move |revision| header(&member, revision);
            match range::read(reader, ask, header, turn).await? {
                range::Answer::Held(answer) => (answer.revision, answer),
                range::Answer::Sent(sent) => {
                    let mut stands_for_it = Response::new(RangeResponse::default());
                    stands_for_it.extensions_mut().insert(sent);
                    return Ok(stands_for_it);
                }
            }
        } else {
            match self.read(metadata, consistency, KeyOp::Range(ask)).await? {
                (revision, KeyAnswer::Range(answer)) => (revision, answer),
                _ => return Err(rpctypes::stopped()),
            }
        };
        let mut message = RangeResponse::from(&answer);
        message.header = Some(header(&self.member, revision));
        Ok(Response::new(message))
    }
}

/// Waits until there is room for one more, as long as the caller does.
async fn turn(
    room: &Arc<Semaphore>,
    metadata: &MetadataMap,
) -> Result<OwnedSemaphorePermit, Status> {
    let turn = room.clone().acquire_owned();
    let turn = tokio::time::timeout_at(deadline::of(metadata).into(), turn).await;
    let turn = turn.map_err(|_| rpctypes::timed_out())?;
    turn.map_err(|_| rpctypes::stopped())
}

/// True when a transaction that only reads does not ask for the latest.
fn is_serializable(txn: &TxnRequest) -> bool {
    let mut ops = txn.success.iter().chain(&txn.failure);
    ops.all(|op: &RequestOp| match &op.request {
        Some(Asked::RequestRange(range)) => range.serializable,
        Some(Asked::RequestTxn(txn)) => is_serializable(txn),
        Some(Asked::RequestPut(_) | Asked::RequestDeleteRange(_)) | None => false,
    })
}

fn consistency(serializable: bool) -> Consistency {
    match serializable {
        true => Consistency::Stale,
        false => Consistency::Linearizable,
    }
}

#[tonic::async_trait]
impl Kv for KvAnswers {
    async fn range(
        &self,
        request: Request<RangeRequest>,
    ) -> Result<Response<RangeResponse>, Status> {
        let begun = Instant::now();
        let (metadata, _, ask) = request.into_parts();
        let result = self.read_range(&metadata, ask).await;
        self.member.metrics.request("KV.Range", &result, begun);
        result
    }

    async fn put(&self, request: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        let (metadata, _, ask) = request.into_parts();
        let put = |ask| Put::try_from(ask).map_err(|error| rpctypes::malformed(&error));
        let op = self
            .check_size(&ask)
            .and_then(|()| put(ask))
            .map(KeyOp::Put);
        let (done, answered) = self.write_keys("KV.Put", &metadata, op).await?;
        let mut message = match answered {
            Some(Answered::ResponsePut(message)) => message,
            _ => PutResponse::default(),
        };
        message.header = Some(header(&self.member, done.revision));
        Ok(done.response(message))
    }

    async fn delete_range(
        &self,
        request: Request<DeleteRangeRequest>,
    ) -> Result<Response<DeleteRangeResponse>, Status> {
        let (metadata, _, ask) = request.into_parts();
        let delete = |ask| DeleteRange::try_from(ask).map_err(|error| rpctypes::malformed(&error));
        let op = self
            .check_size(&ask)
            .and_then(|()| delete(ask))
            .map(KeyOp::Delete);
        let (done, answered) = self.write_keys("KV.DeleteRange", &metadata, op).await?;
        let mut message = match answered {
            Some(Answered::ResponseDeleteRange(message)) => message,
            _ => DeleteRangeResponse::default(),
        };
        message.header = Some(header(&self.member, done.revision));
        Ok(done.response(message))
    }

    async fn txn(&self, request: Request<TxnRequest>) -> Result<Response<TxnResponse>, Status> {
        let (metadata, _, ask) = request.into_parts();
        let ops_max = self.member.config.tuning.txn_ops_max;
        let serializable = is_serializable(&ask);
        let checked = self.check_size(&ask);
        let txn = |ask| convert::txn(ask, ops_max).map_err(|error| rpctypes::malformed(&error));
        let txn: Result<Txn, Status> = checked.and_then(|()| txn(ask));
        let message = |answered: Option<Answered>, revision| {
            let message = match answered {
                Some(Answered::ResponseTxn(message)) => message,
                _ => TxnResponse::default(),
            };
            TxnResponse {
                header: Some(header(&self.member, revision)),
                ..message
            }
        };
        match txn {
            Ok(txn) if txn.is_read_only() => {
                let begun = Instant::now();
                let consistency = consistency(serializable);
                let result = self.read(&metadata, consistency, KeyOp::Txn(txn)).await;
                self.member.metrics.request("KV.Txn", &result, begun);
                let (revision, answer) = result?;
                let answered = ResponseOp::from(&answer).response;
                Ok(Response::new(message(answered, revision)))
            }
            txn => {
                let op = txn.map(KeyOp::Txn);
                let (done, answered) = self.write_keys("KV.Txn", &metadata, op).await?;
                let message = message(answered, done.revision);
                Ok(done.response(message))
            }
        }
    }

    async fn compact(
        &self,
        request: Request<CompactionRequest>,
    ) -> Result<Response<CompactionResponse>, Status> {
        let (metadata, _, ask) = request.into_parts();
        let revision = Revision(ask.revision.try_into().unwrap_or(0));
        let command = Ok(Command::Compact(Compact { revision }));
        let done = self.writer.write("KV.Compact", &metadata, command).await?;
        if ask.physical {
            self.reclaimed(revision, deadline::of(&metadata)).await?;
        }
        let message = CompactionResponse {
            header: Some(header(&self.member, done.revision)),
        };
        Ok(done.response(message))
    }
}

impl KvAnswers {
    /// Waits until nothing that was compacted is left, as far as this member has applied.
    async fn reclaimed(&self, revision: Revision, deadline: Instant) -> Result<(), Status> {
        let replica = self.writer.replica()?;
        let mut applied = replica.watch_applied();
        let state = &replica.stores().state;
        loop {
            applied.borrow_and_update();
            let globals = state.with_view(|view| view.globals());
            let globals = globals.map_err(|_| rpctypes::stopped())?;
            if globals.compacted >= revision && !globals.is_reclaiming() {
                return Ok(());
            }
            let changed = tokio::time::timeout_at(deadline.into(), applied.changed());
            match changed.await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(rpctypes::stopped()),
                Err(_) => return Err(rpctypes::timed_out()),
            }
        }
    }
}
