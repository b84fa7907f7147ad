//! Requests about keys and their answers, in etcd's messages: as clients send them, and as they stand in
//! the log and in stored outcomes.

use bytes::Bytes;
use tally_model::keys::{
    Bounds, Compare, Comparison, DeleteRange, DuplicateKey, Expected, LeaseOf, Order, Put, Range,
    RangeAnswer, SortBy, Txn, check_distinct,
};
use tally_model::{KeyAnswer, KeyOp, KeyRange, KeyValue, LeaseId, Revision};

use super::{DecodeError, required};
use crate::etcd;
use crate::mvcc;
use etcd::compare::{CompareResult, CompareTarget, TargetUnion};
use etcd::range_request::{SortOrder, SortTarget};
use etcd::request_op::Request;
use etcd::response_op::Response;

/// Transactions within one another. Each is two messages within one another, and so is its answer, around
/// which other messages are put on their way: all of them together must stay below the hundred that can
/// be read.
pub const TXN_DEPTH_MAX: usize = 32;

/// Operations and comparisons of a transaction, those of nested ones and of branches that are not taken
/// included, for each that one level may have.
const OPS_MAX_FACTOR: usize = 16;

/// Why a request about keys is none, whatever the store holds.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MalformedKeys {
    #[error("no key is given")]
    EmptyKey,
    #[error("the sort order or target has a number that stands for none")]
    UnknownOrder,
    #[error("a value is given, and the key is to keep its own")]
    ValueGiven,
    #[error("a lease is given, and the key is to keep its own")]
    LeaseGiven,
    #[error("more operations than the {0} that are allowed")]
    TooManyOps(usize),
    #[error("more than {TXN_DEPTH_MAX} transactions within one another")]
    TooDeep,
    #[error("an operation of the transaction says nothing")]
    EmptyOp,
    #[error("a comparison has a number that stands for none")]
    UnknownComparison,
    #[error(transparent)]
    DuplicateKey(#[from] DuplicateKey),
}

impl From<MalformedKeys> for DecodeError {
    fn from(malformed: MalformedKeys) -> Self {
        Self::new("keys", format!("found a malformed request: {malformed}"))
    }
}

/// A transaction of a client, with no more operations, or nested ones, than allowed.
///
/// # Errors
/// The first thing that etcd's `checkTxnRequest` and `checkIntervals` would find.
pub fn txn(txn: etcd::TxnRequest, ops_max: usize) -> Result<Txn, MalformedKeys> {
    let mut all = ops_max.saturating_mul(OPS_MAX_FACTOR);
    count(&txn, &mut all).ok_or(MalformedKeys::TooManyOps(ops_max))?;
    let txn = branches(txn, ops_max, TXN_DEPTH_MAX)?;
    check_distinct(&txn.success)?;
    check_distinct(&txn.failure)?;
    Ok(txn)
}

/// Takes everything in a transaction from what is left; `None` when that is too little.
fn count(txn: &etcd::TxnRequest, left: &mut usize) -> Option<()> {
    let ops = txn.success.iter().chain(&txn.failure);
    *left = left.checked_sub(txn.compare.len() + txn.success.len() + txn.failure.len())?;
    for op in ops {
        if let Some(Request::RequestTxn(inner)) = &op.request {
            count(inner, left)?;
        }
    }
    Some(())
}

fn branches(txn: etcd::TxnRequest, ops_max: usize, depth: usize) -> Result<Txn, MalformedKeys> {
    let depth = depth.checked_sub(1).ok_or(MalformedKeys::TooDeep)?;
    let ops = txn
        .compare
        .len()
        .max(txn.success.len())
        .max(txn.failure.len());
    let left = ops_max.checked_sub(ops);
    let left = left.ok_or(MalformedKeys::TooManyOps(ops_max))?;
    let compare: Result<_, _> = txn.compare.into_iter().map(compare).collect();
    let each =
        |ops: Vec<etcd::RequestOp>| ops.into_iter().map(|one| op(one, left, depth)).collect();
    let (success, failure): (Result<_, _>, Result<_, _>) = (each(txn.success), each(txn.failure));
    Ok(Txn {
        compare: compare?,
        success: success?,
        failure: failure?,
    })
}

fn op(op: etcd::RequestOp, ops_max: usize, depth: usize) -> Result<KeyOp, MalformedKeys> {
    Ok(match op.request.ok_or(MalformedKeys::EmptyOp)? {
        Request::RequestRange(ask) => KeyOp::Range(ask.try_into()?),
        Request::RequestPut(ask) => KeyOp::Put(ask.try_into()?),
        Request::RequestDeleteRange(ask) => KeyOp::Delete(ask.try_into()?),
        Request::RequestTxn(ask) => KeyOp::Txn(branches(ask, ops_max, depth)?),
    })
}

/// As it was encoded by [`From<&KeyOp>`].
impl TryFrom<etcd::RequestOp> for KeyOp {
    type Error = DecodeError;

    fn try_from(stored: etcd::RequestOp) -> Result<Self, DecodeError> {
        Ok(op(stored, usize::MAX, TXN_DEPTH_MAX)?)
    }
}

fn key(key: Bytes) -> Result<Bytes, MalformedKeys> {
    match key.is_empty() {
        true => Err(MalformedKeys::EmptyKey),
        false => Ok(key),
    }
}

fn bounds(min: i64, max: i64) -> Bounds {
    let bound = |bound: i64| (bound != 0).then_some(bound);
    Bounds {
        min: bound(min),
        max: bound(max),
    }
}

fn positive(number: i64) -> Option<u64> {
    u64::try_from(number).ok().filter(|number| *number > 0)
}

impl TryFrom<etcd::RangeRequest> for Range {
    type Error = MalformedKeys;

    fn try_from(ask: etcd::RangeRequest) -> Result<Self, MalformedKeys> {
        let keys = KeyRange::new(key(ask.key)?, ask.range_end);
        let unknown = |_| MalformedKeys::UnknownOrder;
        let descending = match SortOrder::try_from(ask.sort_order).map_err(unknown)? {
            SortOrder::None => None,
            SortOrder::Ascend => Some(false),
            SortOrder::Descend => Some(true),
        };
        let by = match SortTarget::try_from(ask.sort_target).map_err(unknown)? {
            SortTarget::Key => SortBy::Key,
            SortTarget::Version => SortBy::Version,
            SortTarget::Create => SortBy::Created,
            SortTarget::Mod => SortBy::Modified,
            SortTarget::Value => SortBy::Value,
        };
        Ok(Self {
            keys,
            limit: positive(ask.limit),
            at: positive(ask.revision).map(Revision),
            order: Order { by, descending },
            keys_only: ask.keys_only,
            count_only: ask.count_only,
            modified: bounds(ask.min_mod_revision, ask.max_mod_revision),
            created: bounds(ask.min_create_revision, ask.max_create_revision),
        })
    }
}

impl From<&Range> for etcd::RangeRequest {
    fn from(ask: &Range) -> Self {
        let order = match ask.order.descending {
            None => SortOrder::None,
            Some(false) => SortOrder::Ascend,
            Some(true) => SortOrder::Descend,
        };
        let target = match ask.order.by {
            SortBy::Key => SortTarget::Key,
            SortBy::Version => SortTarget::Version,
            SortBy::Created => SortTarget::Create,
            SortBy::Modified => SortTarget::Mod,
            SortBy::Value => SortTarget::Value,
        };
        Self {
            key: ask.keys.start().clone(),
            range_end: ask.keys.end(),
            limit: ask.limit.map_or(0, signed),
            revision: ask.at.map_or(0, Revision::signed),
            sort_order: order.into(),
            sort_target: target.into(),
            // How fresh a read is was settled before it stands anywhere.
            serializable: false,
            keys_only: ask.keys_only,
            count_only: ask.count_only,
            min_mod_revision: ask.modified.min.unwrap_or(0),
            max_mod_revision: ask.modified.max.unwrap_or(0),
            min_create_revision: ask.created.min.unwrap_or(0),
            max_create_revision: ask.created.max.unwrap_or(0),
        }
    }
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

impl TryFrom<etcd::PutRequest> for Put {
    type Error = MalformedKeys;

    fn try_from(ask: etcd::PutRequest) -> Result<Self, MalformedKeys> {
        let key = key(ask.key)?;
        if ask.ignore_value && !ask.value.is_empty() {
            return Err(MalformedKeys::ValueGiven);
        }
        if ask.ignore_lease && ask.lease != 0 {
            return Err(MalformedKeys::LeaseGiven);
        }
        Ok(Self {
            key,
            value: (!ask.ignore_value).then_some(ask.value),
            lease: match ask.ignore_lease {
                true => LeaseOf::Kept,
                false => LeaseOf::Given(lease(ask.lease)),
            },
            want_previous: ask.prev_kv,
        })
    }
}

fn lease(id: i64) -> Option<LeaseId> {
    (id != 0).then_some(LeaseId(id))
}

impl From<&Put> for etcd::PutRequest {
    fn from(ask: &Put) -> Self {
        let lease = match ask.lease {
            LeaseOf::Given(Some(LeaseId(id))) => id,
            LeaseOf::Given(None) | LeaseOf::Kept => 0,
        };
        Self {
            key: ask.key.clone(),
            value: ask.value.clone().unwrap_or_default(),
            lease,
            prev_kv: ask.want_previous,
            ignore_value: ask.value.is_none(),
            ignore_lease: ask.lease == LeaseOf::Kept,
        }
    }
}

impl TryFrom<etcd::DeleteRangeRequest> for DeleteRange {
    type Error = MalformedKeys;

    fn try_from(ask: etcd::DeleteRangeRequest) -> Result<Self, MalformedKeys> {
        Ok(Self {
            keys: KeyRange::new(key(ask.key)?, ask.range_end),
            want_previous: ask.prev_kv,
        })
    }
}

impl From<&DeleteRange> for etcd::DeleteRangeRequest {
    fn from(ask: &DeleteRange) -> Self {
        Self {
            key: ask.keys.start().clone(),
            range_end: ask.keys.end(),
            prev_kv: ask.want_previous,
        }
    }
}

fn compare(compare: etcd::Compare) -> Result<Compare, MalformedKeys> {
    let unknown = |_| MalformedKeys::UnknownComparison;
    let keys = KeyRange::new(key(compare.key)?, compare.range_end);
    let comparison = match CompareResult::try_from(compare.result).map_err(unknown)? {
        CompareResult::Equal => Comparison::Equal,
        CompareResult::Greater => Comparison::Greater,
        CompareResult::Less => Comparison::Less,
        CompareResult::NotEqual => Comparison::NotEqual,
    };
    // The target counts; what is given for another one counts as nothing given.
    let given = compare.target_union;
    let expected = match CompareTarget::try_from(compare.target).map_err(unknown)? {
        CompareTarget::Version => Expected::Version(match given {
            Some(TargetUnion::Version(version)) => version,
            _ => 0,
        }),
        CompareTarget::Create => Expected::Created(match given {
            Some(TargetUnion::CreateRevision(revision)) => revision,
            _ => 0,
        }),
        CompareTarget::Mod => Expected::Modified(match given {
            Some(TargetUnion::ModRevision(revision)) => revision,
            _ => 0,
        }),
        CompareTarget::Value => Expected::Value(match given {
            Some(TargetUnion::Value(value)) => value,
            _ => Bytes::new(),
        }),
        CompareTarget::Lease => Expected::Lease(match given {
            Some(TargetUnion::Lease(lease)) => lease,
            _ => 0,
        }),
    };
    Ok(Compare {
        keys,
        comparison,
        expected,
    })
}

impl From<&Compare> for etcd::Compare {
    fn from(compare: &Compare) -> Self {
        let result = match compare.comparison {
            Comparison::Equal => CompareResult::Equal,
            Comparison::NotEqual => CompareResult::NotEqual,
            Comparison::Greater => CompareResult::Greater,
            Comparison::Less => CompareResult::Less,
        };
        let (target, given) = match &compare.expected {
            Expected::Version(version) => (CompareTarget::Version, TargetUnion::Version(*version)),
            Expected::Created(revision) => (
                CompareTarget::Create,
                TargetUnion::CreateRevision(*revision),
            ),
            Expected::Modified(revision) => {
                (CompareTarget::Mod, TargetUnion::ModRevision(*revision))
            }
            Expected::Value(value) => (CompareTarget::Value, TargetUnion::Value(value.clone())),
            Expected::Lease(lease) => (CompareTarget::Lease, TargetUnion::Lease(*lease)),
        };
        Self {
            result: result.into(),
            target: target.into(),
            key: compare.keys.start().clone(),
            range_end: compare.keys.end(),
            target_union: Some(given),
        }
    }
}

impl From<&Txn> for etcd::TxnRequest {
    fn from(txn: &Txn) -> Self {
        Self {
            compare: txn.compare.iter().map(Into::into).collect(),
            success: txn.success.iter().map(Into::into).collect(),
            failure: txn.failure.iter().map(Into::into).collect(),
        }
    }
}

impl From<&KeyOp> for etcd::RequestOp {
    fn from(op: &KeyOp) -> Self {
        let request = match op {
            KeyOp::Range(ask) => Request::RequestRange(ask.into()),
            KeyOp::Put(ask) => Request::RequestPut(ask.into()),
            KeyOp::Delete(ask) => Request::RequestDeleteRange(ask.into()),
            KeyOp::Txn(txn) => Request::RequestTxn(txn.into()),
        };
        Self {
            request: Some(request),
        }
    }
}

impl From<&KeyValue> for mvcc::KeyValue {
    fn from(found: &KeyValue) -> Self {
        Self {
            key: found.key.clone(),
            create_revision: found.created.signed(),
            mod_revision: found.modified.signed(),
            version: signed(found.version),
            value: found.value.clone(),
            lease: found.lease.map_or(0, |LeaseId(id)| id),
        }
    }
}

impl TryFrom<mvcc::KeyValue> for KeyValue {
    type Error = DecodeError;

    fn try_from(found: mvcc::KeyValue) -> Result<Self, DecodeError> {
        Ok(Self {
            key: found.key,
            value: found.value,
            created: revision("key_value.create_revision", found.create_revision)?,
            modified: revision("key_value.mod_revision", found.mod_revision)?,
            version: unsigned("key_value.version", found.version)?,
            lease: lease(found.lease),
        })
    }
}

fn unsigned(what: &'static str, number: i64) -> Result<u64, DecodeError> {
    u64::try_from(number)
        .map_err(|_| DecodeError::new(what, format!("found {number}, expected 0 or more")))
}

fn revision(what: &'static str, number: i64) -> Result<Revision, DecodeError> {
    unsigned(what, number).map(Revision)
}

/// The header of an answer as the state machine gives it; who answers adds the rest.
fn header(revision: Revision) -> Option<etcd::ResponseHeader> {
    Some(etcd::ResponseHeader {
        revision: revision.signed(),
        ..Default::default()
    })
}

fn revision_of(header: Option<etcd::ResponseHeader>) -> Result<Revision, DecodeError> {
    let header = required("response.header", header)?;
    revision("response.header.revision", header.revision)
}

impl From<&RangeAnswer> for etcd::RangeResponse {
    fn from(answer: &RangeAnswer) -> Self {
        Self {
            header: header(answer.revision),
            kvs: answer.found.iter().map(Into::into).collect(),
            more: answer.more,
            count: signed(answer.count),
        }
    }
}

impl From<&KeyAnswer> for etcd::ResponseOp {
    fn from(answer: &KeyAnswer) -> Self {
        let response = match answer {
            KeyAnswer::Range(answer) => Response::ResponseRange(answer.into()),
            KeyAnswer::Put { revision, previous } => Response::ResponsePut(etcd::PutResponse {
                header: header(*revision),
                prev_kv: previous.as_ref().map(Into::into),
            }),
            KeyAnswer::Deleted {
                revision,
                count,
                previous,
            } => Response::ResponseDeleteRange(etcd::DeleteRangeResponse {
                header: header(*revision),
                deleted: signed(*count),
                prev_kvs: previous.iter().map(Into::into).collect(),
            }),
            KeyAnswer::Txn { succeeded, answers } => Response::ResponseTxn(etcd::TxnResponse {
                // The outermost one gets that of the whole answer; etcd leaves the others empty.
                header: Some(etcd::ResponseHeader::default()),
                succeeded: *succeeded,
                responses: answers.iter().map(Into::into).collect(),
            }),
        };
        Self {
            response: Some(response),
        }
    }
}

fn key_values(found: Vec<mvcc::KeyValue>) -> Result<Vec<KeyValue>, DecodeError> {
    found.into_iter().map(TryInto::try_into).collect()
}

impl TryFrom<etcd::ResponseOp> for KeyAnswer {
    type Error = DecodeError;

    fn try_from(answer: etcd::ResponseOp) -> Result<Self, DecodeError> {
        Ok(match required("response_op.response", answer.response)? {
            Response::ResponseRange(answer) => Self::Range(RangeAnswer {
                revision: revision_of(answer.header)?,
                found: key_values(answer.kvs)?,
                more: answer.more,
                count: unsigned("range_response.count", answer.count)?,
            }),
            Response::ResponsePut(answer) => Self::Put {
                revision: revision_of(answer.header)?,
                previous: answer.prev_kv.map(TryInto::try_into).transpose()?,
            },
            Response::ResponseDeleteRange(answer) => Self::Deleted {
                revision: revision_of(answer.header)?,
                count: unsigned("delete_range_response.deleted", answer.deleted)?,
                previous: key_values(answer.prev_kvs)?,
            },
            Response::ResponseTxn(answer) => Self::Txn {
                succeeded: answer.succeeded,
                answers: answer
                    .responses
                    .into_iter()
                    .map(TryInto::try_into)
                    .collect::<Result<_, _>>()?,
            },
        })
    }
}
