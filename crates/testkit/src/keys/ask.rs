//! An operation as a request of the etcd API, and what its answer says.

use std::error::Error;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tally_proto::etcd::compare::{CompareResult, CompareTarget, TargetUnion};
use tally_proto::etcd::kv_client::KvClient;
use tally_proto::etcd::request_op::Request as Op;
use tally_proto::etcd::response_op::Response as Answered;
use tally_proto::etcd::{
    Compare, DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse, RangeRequest,
    RangeResponse, RequestOp, ResponseHeader, TxnRequest, TxnResponse,
};
use tally_proto::mvcc::KeyValue;
use tally_proto::v1;
use tonic::metadata::MetadataMap;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};

use super::{Asked, Came, Found, KeyOperation, Way};

const ATTEMPT: Duration = Duration::from_secs(2);

/// Sends it once, under a tag or without. What came is of its key, and for two keys of the other one as
/// well; `None` when it is not known what became of it.
///
/// # Errors
/// When the answer is one that no fault explains.
pub(super) async fn send(
    member: &Channel,
    operation: &KeyOperation,
    tag: Option<&v1::Tag>,
) -> Result<Option<Vec<Came>>> {
    let mut to = KvClient::new(member.clone());
    let key = &operation.key;
    let answer = match (&operation.way, operation.what) {
        (Way::Plain, Asked::Get) => to.range(request(get(key), tag)?).await.map(Answer::from),
        (Way::Plain, Asked::Put { value }) => {
            let put = request(put(key, value), tag)?;
            to.put(put).await.map(Answer::from)
        }
        (Way::Plain, Asked::Delete) => {
            let delete = request(delete(key), tag)?;
            to.delete_range(delete).await.map(Answer::from)
        }
        (Way::Plain, Asked::Swap { .. }) | (Way::Txn | Way::TxnWith(_), _) => {
            let txn = request(txn(operation), tag)?;
            to.txn(txn).await.map(Answer::from)
        }
    };
    match answer {
        Ok(answer) => {
            if tag.is_some() && operation.what != Asked::Get {
                told_of_tag(&answer.metadata)?;
            }
            let came = answer.came(operation);
            let came =
                came.with_context(|| format!("{operation:?} was answered with {answer:?}"))?;
            Ok(Some(came))
        }
        Err(status) => lawful(&status).map(|()| None),
    }
}

pub(super) fn request<T>(message: T, tag: Option<&v1::Tag>) -> Result<Request<T>> {
    let mut request = Request::new(message);
    request.set_timeout(ATTEMPT);
    if let Some(tag) = tag {
        tag_request(&mut request, tag)?;
    }
    Ok(request)
}

fn get(key: &str) -> RangeRequest {
    RangeRequest {
        key: key.to_owned().into(),
        ..Default::default()
    }
}

fn put(key: &str, value: u64) -> PutRequest {
    PutRequest {
        key: key.to_owned().into(),
        value: value.to_string().into(),
        prev_kv: true,
        ..Default::default()
    }
}

fn delete(key: &str) -> DeleteRangeRequest {
    DeleteRangeRequest {
        key: key.to_owned().into(),
        prev_kv: true,
        ..Default::default()
    }
}

/// The operation as a transaction; each of its answers tells what was there before.
fn txn(operation: &KeyOperation) -> TxnRequest {
    let key = &operation.key;
    let reads = || Op::RequestRange(get(key));
    let success = match (operation.what, &operation.way) {
        (Asked::Put { value }, Way::TxnWith(other)) => vec![
            Op::RequestPut(put(key, value)),
            Op::RequestPut(put(other, value)),
        ],
        (Asked::Get, _) => vec![reads()],
        (Asked::Put { value } | Asked::Swap { value, .. }, _) => {
            vec![reads(), Op::RequestPut(put(key, value))]
        }
        (Asked::Delete, _) => vec![reads(), Op::RequestDeleteRange(delete(key))],
    };
    let compare = match operation.what {
        Asked::Swap { expected, .. } => vec![has_value(key, expected)],
        Asked::Get | Asked::Put { .. } | Asked::Delete => Vec::new(),
    };
    let op = |request| RequestOp {
        request: Some(request),
    };
    TxnRequest {
        compare,
        success: success.into_iter().map(op).collect(),
        failure: vec![op(reads())],
    }
}

fn has_value(key: &str, expected: u64) -> Compare {
    Compare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Value.into(),
        key: key.to_owned().into(),
        target_union: Some(TargetUnion::Value(expected.to_string().into())),
        ..Default::default()
    }
}

/// An answer of any kind.
#[derive(Debug)]
struct Answer {
    metadata: MetadataMap,
    header: Option<ResponseHeader>,
    succeeded: bool,
    /// One for each operation on a key.
    answered: Vec<Option<Answered>>,
}

impl Answer {
    fn plain(metadata: MetadataMap, header: Option<ResponseHeader>, answered: Answered) -> Self {
        Self {
            metadata,
            header,
            succeeded: true,
            answered: vec![Some(answered)],
        }
    }

    /// What it says of each key.
    fn came(&self, operation: &KeyOperation) -> Result<Vec<Came>> {
        let header = self.header.context("no header")?;
        let (key, other) = match &operation.way {
            Way::TxnWith(other) => (&operation.key, other),
            Way::Plain | Way::Txn => (&operation.key, &operation.key),
        };
        let came = |before: Option<Found>| Came {
            before,
            done: match operation.what {
                Asked::Delete => before.is_some(),
                Asked::Get | Asked::Put { .. } | Asked::Swap { .. } => self.succeeded,
            },
            revision: header.revision,
        };
        let reads_only = operation.what == Asked::Get || !self.succeeded;
        let keys = [key, other].into_iter();
        let before: Result<Vec<_>> = self.answered.iter().zip(keys).map(before).collect();
        match (before?.as_slice(), &operation.way) {
            ([before, beside], Way::TxnWith(_)) => Ok(vec![came(*before), came(*beside)]),
            ([before], Way::Plain) => Ok(vec![came(*before)]),
            ([before], Way::Txn) if reads_only => Ok(vec![came(*before)]),
            ([before, again], Way::Txn) if before == again && !reads_only => {
                Ok(vec![came(*before)])
            }
            (before, _) => bail!("what was there before cannot have been {before:?}"),
        }
    }
}

impl From<Response<RangeResponse>> for Answer {
    fn from(response: Response<RangeResponse>) -> Self {
        let (metadata, answer, _) = response.into_parts();
        Self::plain(metadata, answer.header, Answered::ResponseRange(answer))
    }
}

impl From<Response<PutResponse>> for Answer {
    fn from(response: Response<PutResponse>) -> Self {
        let (metadata, answer, _) = response.into_parts();
        Self::plain(metadata, answer.header, Answered::ResponsePut(answer))
    }
}

impl From<Response<DeleteRangeResponse>> for Answer {
    fn from(response: Response<DeleteRangeResponse>) -> Self {
        let (metadata, answer, _) = response.into_parts();
        Self::plain(
            metadata,
            answer.header,
            Answered::ResponseDeleteRange(answer),
        )
    }
}

impl From<Response<TxnResponse>> for Answer {
    fn from(response: Response<TxnResponse>) -> Self {
        let (metadata, answer, _) = response.into_parts();
        let answered = answer.responses.into_iter().map(|one| one.response);
        Self {
            metadata,
            header: answer.header,
            succeeded: answer.succeeded,
            answered: answered.collect(),
        }
    }
}

/// What one operation on a key found there.
fn before((answered, key): (&Option<Answered>, &String)) -> Result<Option<Found>> {
    let (pairs, count) = match answered {
        Some(Answered::ResponseRange(range)) => (range.kvs.as_slice(), range.count),
        Some(Answered::ResponseDeleteRange(gone)) => (gone.prev_kvs.as_slice(), gone.deleted),
        Some(Answered::ResponsePut(put)) => {
            let pair = put.prev_kv.as_slice();
            (pair, i64::from(!pair.is_empty()))
        }
        Some(Answered::ResponseTxn(_)) | None => bail!("an answer to what was not asked"),
    };
    match (pairs, count) {
        ([], 0) => Ok(None),
        ([pair], 1) if pair.key == *key => found(pair).map(Some),
        _ => bail!("{count} keys were found, of which it has {pairs:?}"),
    }
}

pub(super) fn found(pair: &KeyValue) -> Result<Found> {
    let text = std::str::from_utf8(&pair.value).context("a value that nobody put")?;
    Ok(Found {
        value: text.parse().context("a value that nobody put")?,
        version: pair.version,
        created: pair.create_revision,
        modified: pair.mod_revision,
    })
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

/// What an answer's metadata says became of its tag.
pub fn outcome(metadata: &MetadataMap) -> Option<&str> {
    metadata.get("tally-outcome")?.to_str().ok()
}

/// The answer says whether it is the first one.
fn told_of_tag(metadata: &MetadataMap) -> Result<()> {
    let outcome = outcome(metadata);
    ensure!(
        matches!(outcome, Some("applied" | "replayed")),
        "the answer's metadata says {outcome:?}"
    );
    Ok(())
}

/// Fails for an error that faults do not explain.
pub(super) fn lawful(status: &Status) -> Result<()> {
    // A status with a cause is the client's own, of a connection that broke.
    let is_answer = status.source().is_none();
    match status.code() {
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled => Ok(()),
        Code::Unknown | Code::Internal if !is_answer => Ok(()),
        _ => bail!("a well-formed request was turned down: {status:?}"),
    }
}
