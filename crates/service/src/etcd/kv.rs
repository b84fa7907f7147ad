//! `etcdserverpb.KV`.

mod range;
mod sent;
mod server;

use std::sync::Arc;
use std::time::Instant;

use prost::Message;
use tally_consensus::Consistency;
use tally_model::command::Compact;
use tally_model::keys::{self, DeleteRange, Put, Range};
use tally_model::{Command, Effect, KeyAnswer, KeyOp, KeyRange, Outcome, Revision, View};
use tally_proto::convert::{self, MalformedKeys};
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

use super::holders::{Holders, turn};
use super::writer::{Done, Writer};
use super::{header, rpctypes};
use crate::deadline;
use crate::member::Member;

use sent::Sent;
pub(super) use server::KvRoute;

/// What clients call again and again.
pub(super) const OFTEN: [&str; 4] = [
    "/etcdserverpb.KV/Range",
    "/etcdserverpb.KV/Put",
    "/etcdserverpb.KV/DeleteRange",
    "/etcdserverpb.KV/Txn",
];

/// Of an answer of more bytes as little as possible is held.
const HELD_BYTES_MAX: usize = 1 << 20;
/// Ranges that are read at a time; each takes a thread.
const RANGES_MAX: usize = 32;
/// Large answers that are sent at a time: those of ranges that are read meanwhile, and those that are held.
const SENT_RANGES_MAX: usize = 32;
const SENT_HELD_MAX: usize = 4;

pub(super) struct KvAnswers {
    member: Arc<Member>,
    writer: Arc<Writer>,
    room: Room,
}

/// For how much there is room at a time.
struct Room {
    ranges: Arc<Semaphore>,
    /// For reads that hold up to [`keys::READ_BYTES_MAX`].
    holders: Holders,
    sent_ranges: Arc<Semaphore>,
    sent_held: Arc<Semaphore>,
}

impl KvAnswers {
    pub(super) fn new(member: Arc<Member>, writer: Arc<Writer>, holders: Holders) -> Self {
        let room = |for_so_many| Arc::new(Semaphore::new(for_so_many));
        Self {
            member,
            writer,
            room: Room {
                ranges: room(RANGES_MAX),
                holders,
                sent_ranges: room(SENT_RANGES_MAX),
                sent_held: room(SENT_HELD_MAX),
            },
        }
    }

    /// Turns a request into what the state machine takes. That it is too large is told after what else is wrong with it.
    fn check<Ask: Message, Op>(
        &self,
        ask: Ask,
        checked: impl FnOnce(Ask) -> Result<Op, MalformedKeys>,
    ) -> Result<Op, Status> {
        let bytes = ask.encoded_len();
        let op = checked(ask).map_err(|error| rpctypes::malformed(&error))?;
        self.check_size(bytes).map(|()| op)
    }

    fn check_size(&self, bytes: usize) -> Result<(), Status> {
        match bytes > self.member.config.tuning.request_bytes_max {
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
        deadline: Instant,
        consistency: Consistency,
    ) -> Result<StateReader, Status> {
        let replica = self.writer.replica()?;
        let read_from = replica.read(consistency, deadline);
        let reader = self.member.ending.unless_refusing(read_from).await;
        let reader = reader.ok_or_else(rpctypes::stopped)?;
        let reader = reader.map_err(|error| rpctypes::read(&error))?;
        if consistency == Consistency::Stale {
            self.member.applies_its_answers(&replica, deadline).await;
        }
        Ok(reader)
    }

    /// Reads keys, and holds what it finds; as long as the turn is held too, unless it is one key.
    async fn read(
        &self,
        deadline: Instant,
        consistency: Consistency,
        op: KeyOp,
    ) -> Result<(Revision, KeyAnswer, Option<OwnedSemaphorePermit>), Status> {
        let reader = self.state(deadline, consistency).await?;
        let quick = matches!(&op, KeyOp::Range(ask) if matches!(ask.keys, KeyRange::One(_)));
        let look = move || reader.with_view(|view| keys::read(view, &op));
        let (outcome, held) = match quick {
            true => (look(), None),
            // Many rows take their time, and others must go on meanwhile.
            false => {
                let (looked, held) = self.room.holders.look(deadline, look).await?;
                (looked, Some(held))
            }
        };
        match outcome.map_err(|_| rpctypes::stopped())? {
            Outcome::Applied {
                revision,
                effect: Effect::Keys(answer),
            } => Ok((revision, answer, held)),
            Outcome::Refused(refusal) => Err(rpctypes::refusal(&refusal)),
            Outcome::Applied { .. } | Outcome::Replayed { .. } => Err(rpctypes::stopped()),
        }
    }

    async fn read_range(
        &self,
        begun: Instant,
        deadline: Instant,
        ask: RangeRequest,
    ) -> Result<Response<RangeResponse>, Status> {
        let consistency = consistency(ask.serializable);
        let ask = Range::try_from(ask).map_err(|error| rpctypes::malformed(&error))?;
        let ended = self.ended("KV.Range", begun);
        let many = !matches!(ask.keys, KeyRange::One(_));
        if many && ask.comes_in_order() {
            return self.read_in_order(deadline, consistency, ask, ended).await;
        }
        let read = self.read(deadline, consistency, KeyOp::Range(ask)).await?;
        let (revision, KeyAnswer::Range(answer), _held) = read else {
            return Err(rpctypes::stopped());
        };
        let mut message = RangeResponse::from(&answer);
        message.header = Some(header(&self.member, revision));
        sent::respond(message, &self.room.sent_held, ended).await
    }

    async fn read_in_order(
        &self,
        deadline: Instant,
        consistency: Consistency,
        ask: Range,
        ended: impl FnOnce(&Result<(), Status>) + Send + 'static,
    ) -> Result<Response<RangeResponse>, Status> {
        let reader = self.state(deadline, consistency).await?;
        let member = self.member.clone();
        let reading = range::Reading {
            ask,
            header: move |revision| header(&member, revision),
            ended,
            // Not before: while nobody leads, those who wait for a leader must not keep the others waiting.
            turn: turn(&self.room.ranges, deadline).await?,
            room: self.room.sent_ranges.clone(),
        };
        match reading.run(reader).await? {
            range::Answer::Held(answer) => {
                let mut message = RangeResponse::from(&answer);
                message.header = Some(header(&self.member, answer.revision));
                Ok(Response::new(message))
            }
            range::Answer::Sent(sent) => Ok(sent::stands_for(sent)),
        }
    }

    /// Counts an answer, unless it is one that is counted when it is sent.
    fn count<T>(&self, method: &'static str, result: &Result<Response<T>, Status>, begun: Instant) {
        let is_sent = |answer: &Response<T>| answer.extensions().get::<Sent>().is_some();
        if !result.as_ref().is_ok_and(is_sent) {
            self.member.metrics.request(method, result, begun);
        }
    }

    /// Counts an answer when it is sent.
    fn ended(
        &self,
        method: &'static str,
        begun: Instant,
    ) -> impl FnOnce(&Result<(), Status>) + Send + 'static {
        let member = self.member.clone();
        move |result| {
            member.metrics.request(method, result, begun);
            if let Err(status) = result {
                let why = status.message();
                tracing::info!(method, why, "an answer was cut off");
            }
        }
    }
}

/// True when a transaction that only reads does not ask for the latest. One with another in it does, as in etcd. So does one
/// that only compares, which says nowhere that less will do, though etcd answers it from what the member has.
fn is_serializable(txn: &TxnRequest) -> bool {
    let mut ops = txn.success.iter().chain(&txn.failure).peekable();
    ops.peek().is_some()
        && ops.all(|op: &RequestOp| match &op.request {
            Some(Asked::RequestRange(range)) => range.serializable,
            Some(Asked::RequestTxn(_) | Asked::RequestPut(_) | Asked::RequestDeleteRange(_))
            | None => false,
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
        let deadline = deadline::of(&metadata);
        let result = self.read_range(begun, deadline, ask).await;
        self.count("KV.Range", &result, begun);
        result
    }

    async fn put(&self, request: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        let (metadata, _, ask) = request.into_parts();
        let op = self.check(ask, Put::try_from).map(KeyOp::Put);
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
        let op = self.check(ask, DeleteRange::try_from).map(KeyOp::Delete);
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
        let bytes = ask.encoded_len();
        let txn = convert::txn(ask, ops_max).map_err(|error| rpctypes::malformed(&error));
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
                let deadline = deadline::of(&metadata);
                let result = async {
                    let consistency = consistency(serializable);
                    let read = self.read(deadline, consistency, KeyOp::Txn(txn));
                    let (revision, answer, _held) = read.await?;
                    let message = message(ResponseOp::from(&answer).response, revision);
                    let ended = self.ended("KV.Txn", begun);
                    sent::respond(message, &self.room.sent_held, ended).await
                };
                let result = result.await;
                self.count("KV.Txn", &result, begun);
                result
            }
            txn => {
                let op = txn.and_then(|txn| self.check_size(bytes).map(|()| KeyOp::Txn(txn)));
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
            let reclaimed = self.reclaimed(revision, deadline::of_long(&metadata));
            let reclaimed = self.member.ending.unless_refusing(reclaimed).await;
            reclaimed.ok_or_else(rpctypes::stopped)??;
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
