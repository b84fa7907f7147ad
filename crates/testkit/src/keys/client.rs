//! One client of the etcd API.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rand::seq::IndexedRandom;
use tally_proto::etcd::compare::{CompareResult, CompareTarget, TargetUnion};
use tally_proto::etcd::kv_client::KvClient;
use tally_proto::etcd::request_op::Request as Op;
use tally_proto::etcd::response_op::Response as Answered;
use tally_proto::etcd::{
    Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest, TxnResponse,
};
use tally_proto::mvcc::KeyValue;
use tally_proto::v1;
use tokio::sync::watch;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};

use super::{Asked, Came, Found, KeyOperation, KeyRecord};
use crate::requester::{Requester, fresh_marker, lazy_channel};

/// Between two requests, and before the same one is sent to the next member.
const PAUSE: Duration = Duration::from_millis(10);
const ATTEMPT: Duration = Duration::from_secs(2);
const SETTLED_WITHIN: Duration = Duration::from_secs(60);

/// Values that nobody has used in this process.
static VALUES: AtomicU64 = AtomicU64::new(1);

/// See the module.
#[derive(Debug)]
pub struct KeyClient {
    members: Vec<Channel>,
    /// Which of them is asked next.
    at: usize,
    tagged: bool,
    session: Option<Requester>,
    record: KeyRecord,
    seen: Vec<u64>,
}

fn found(pair: &KeyValue) -> Result<Found> {
    let text = std::str::from_utf8(&pair.value).context("a value that nobody put")?;
    Ok(Found {
        value: text.parse().context("a value that nobody put")?,
        version: pair.version,
    })
}

/// The request as one transaction, whose answer tells what was there before.
fn txn(key: &str, what: Asked) -> TxnRequest {
    let key = key.as_bytes().to_vec();
    let op = |request| RequestOp {
        request: Some(request),
    };
    let get = || {
        op(Op::RequestRange(RangeRequest {
            key: key.clone().into(),
            ..Default::default()
        }))
    };
    let put = |value: u64| {
        op(Op::RequestPut(PutRequest {
            key: key.clone().into(),
            value: value.to_string().into(),
            ..Default::default()
        }))
    };
    let success = match what {
        Asked::Get => vec![get()],
        Asked::Put { value } | Asked::Swap { value, .. } => vec![get(), put(value)],
        Asked::Delete => vec![
            get(),
            op(Op::RequestDeleteRange(DeleteRangeRequest {
                key: key.clone().into(),
                ..Default::default()
            })),
        ],
    };
    let compare = match what {
        Asked::Swap { expected, .. } => vec![Compare {
            result: CompareResult::Equal.into(),
            target: CompareTarget::Value.into(),
            key: key.clone().into(),
            target_union: Some(TargetUnion::Value(expected.to_string().into())),
            ..Default::default()
        }],
        Asked::Get | Asked::Put { .. } | Asked::Delete => Vec::new(),
    };
    TxnRequest {
        compare,
        success,
        failure: vec![get()],
    }
}

fn came(answer: &TxnResponse) -> Result<Came> {
    let first = answer
        .responses
        .first()
        .and_then(|one| one.response.as_ref());
    let Some(Answered::ResponseRange(range)) = first else {
        bail!("the answer tells nothing of what was there: {answer:?}");
    };
    Ok(Came {
        before: range.kvs.first().map(found).transpose()?,
        done: answer.succeeded,
    })
}

impl KeyClient {
    /// A client of these members, beginning with one of them; with tags or without.
    ///
    /// # Errors
    /// When an address is none.
    pub fn new(addresses: &[String], first: usize, tagged: bool) -> Result<Self> {
        let members: Result<Vec<_>> = addresses.iter().map(|at| lazy_channel(at)).collect();
        Ok(Self {
            members: members?,
            at: first % addresses.len(),
            tagged,
            session: None,
            record: KeyRecord::default(),
            seen: Vec::new(),
        })
    }

    /// Gets a key once.
    pub(super) async fn get(&mut self, key: &str) -> Result<KeyOperation> {
        let invoked = Instant::now();
        let came = self.once(key, Asked::Get).await?;
        let came = came.context("the members do not answer")?;
        Ok(KeyOperation {
            key: key.to_owned(),
            what: Asked::Get,
            invoked,
            came: Some((Instant::now(), came)),
        })
    }

    pub(super) async fn run(
        mut self,
        keys: Vec<String>,
        stopping: watch::Receiver<bool>,
        count: watch::Sender<usize>,
    ) -> Result<KeyRecord> {
        while !*stopping.borrow() {
            let key = keys.choose(&mut rand::rng()).context("no keys")?.clone();
            let what = self.draw();
            let number = self.record.operations.len();
            self.record.operations.push(KeyOperation {
                key: key.clone(),
                what,
                invoked: Instant::now(),
                came: None,
            });
            let came = match self.tagged {
                true => self.until_answered(&key, what, &stopping).await?,
                false => self.once(&key, what).await?,
            };
            if let Some(came) = came {
                if let Some(found) = came.before {
                    self.seen.push(found.value);
                }
                self.record.operations[number].came = Some((Instant::now(), came));
                count.send_modify(|count| *count += 1);
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok(self.record)
    }

    /// What to ask next; a swap expects what was seen last, if anything was.
    fn draw(&mut self) -> Asked {
        let value = VALUES.fetch_add(1, Ordering::Relaxed);
        let expected = self.seen.pop();
        match (rand::random_range(0..10), expected) {
            (0..3, _) => Asked::Get,
            (3..6, Some(expected)) => Asked::Swap { expected, value },
            (9, _) => Asked::Delete,
            _ => Asked::Put { value },
        }
    }

    /// Sends a request without a tag, once; `None` when it is not known what became of it.
    async fn once(&mut self, key: &str, what: Asked) -> Result<Option<Came>> {
        let mut to = KvClient::new(self.members[self.at].clone());
        let mut request = Request::new(txn(key, what));
        request.set_timeout(ATTEMPT);
        match to.txn(request).await {
            Ok(answer) => Ok(Some(came(answer.get_ref())?)),
            Err(status) => {
                lawful(&status)?;
                self.at = (self.at + 1) % self.members.len();
                Ok(None)
            }
        }
    }

    /// Sends a request to one member after the other, under one tag, until it is answered, or nobody
    /// wants to know any more.
    async fn until_answered(
        &mut self,
        key: &str,
        what: Asked,
        stopping: &watch::Receiver<bool>,
    ) -> Result<Option<Came>> {
        let deadline = Instant::now() + SETTLED_WITHIN;
        let Some(tag) = self.tag(deadline, stopping).await? else {
            return Ok(None);
        };
        loop {
            let mut to = KvClient::new(self.members[self.at].clone());
            let mut request = Request::new(txn(key, what));
            request.set_timeout(ATTEMPT);
            tag_request(&mut request, &tag)?;
            match to.txn(request).await {
                Ok(answer) => {
                    if what != Asked::Get {
                        told_of_tag(&answer)?;
                    }
                    return came(answer.get_ref()).map(Some);
                }
                Err(status) => lawful(&status)?,
            }
            if *stopping.borrow() {
                return Ok(None);
            }
            ensure!(
                Instant::now() < deadline,
                "{what:?} was not answered in time"
            );
            self.at = (self.at + 1) % self.members.len();
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn tag(
        &mut self,
        deadline: Instant,
        stopping: &watch::Receiver<bool>,
    ) -> Result<Option<v1::Tag>> {
        loop {
            if let Some(session) = &mut self.session {
                session.acknowledge_all();
                return Ok(Some(session.next_tag()));
            }
            match Requester::try_open(&self.members[self.at], fresh_marker()).await {
                Ok(session) => self.session = Some(session),
                Err(_) if *stopping.borrow() => return Ok(None),
                Err(error) => {
                    ensure!(
                        Instant::now() < deadline,
                        "no session was opened: {error:#}"
                    );
                    self.at = (self.at + 1) % self.members.len();
                }
            }
        }
    }
}

/// Puts a tag into a request's metadata.
///
/// # Errors
/// When a number is no text, which does not happen.
pub fn tag_request<T>(request: &mut Request<T>, tag: &v1::Tag) -> Result<()> {
    let metadata = request.metadata_mut();
    metadata.insert("tally-session", tag.session.to_string().parse()?);
    metadata.insert("tally-sequence", tag.sequence.to_string().parse()?);
    metadata.insert("tally-acknowledged", tag.acknowledged.to_string().parse()?);
    Ok(())
}

/// The answer says whether it is the first one.
fn told_of_tag<T>(answer: &Response<T>) -> Result<()> {
    let outcome = answer.metadata().get("tally-outcome");
    let outcome = outcome.and_then(|value| value.to_str().ok());
    ensure!(
        matches!(outcome, Some("applied" | "replayed")),
        "the answer's metadata says {outcome:?}"
    );
    Ok(())
}

/// Fails for an error that faults do not explain.
fn lawful(status: &Status) -> Result<()> {
    match status.code() {
        Code::Unavailable
        | Code::DeadlineExceeded
        | Code::Cancelled
        | Code::Unknown
        | Code::Internal
        | Code::ResourceExhausted => Ok(()),
        _ => bail!("a well-formed request was turned down: {status:?}"),
    }
}
