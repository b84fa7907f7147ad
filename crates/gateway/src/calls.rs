//! Which path is which call, and how their messages are read from JSON and written as such. The paths are those of
//! etcd 3.5's gateway.

use std::collections::BTreeMap;
use std::io;

use bytes::Bytes;
use prost::Message;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use tally_model::explanation::codes;
use tally_proto::etcd;
use tally_proto::etcd::request_op::Request as Op;
use tally_proto::fault::Fault;
use tonic::{Code, Status};

use crate::room::too_much;

/// Longest answer in JSON, bytes.
const JSON_BYTES_MAX: usize = 32 << 20;

/// One path.
pub(crate) struct Call {
    pub(crate) path: &'static str,
    /// The path of the gRPC call.
    pub(crate) grpc: &'static str,
    pub(crate) kind: Kind,
    /// True of a request, as gRPC carries it, that asks for something to be done.
    pub(crate) writes: fn(&[u8]) -> bool,
    /// Reads a request, and gives it as gRPC carries it.
    pub(crate) read: fn(&[u8]) -> Result<Vec<u8>, Status>,
    /// Writes an answer that gRPC carried.
    pub(crate) write: fn(Bytes) -> Result<Vec<u8>, Status>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One request, one answer.
    Unary,
    /// Any number of both.
    Stream,
}

pub(crate) static CALLS: &[Call] = &[
    unary::<etcd::RangeRequest, etcd::RangeResponse>("/v3/kv/range", "/etcdserverpb.KV/Range"),
    write_of::<etcd::PutRequest, etcd::PutResponse>("/v3/kv/put", "/etcdserverpb.KV/Put"),
    write_of::<etcd::DeleteRangeRequest, etcd::DeleteRangeResponse>(
        "/v3/kv/deleterange",
        "/etcdserverpb.KV/DeleteRange",
    ),
    Call {
        writes: txn_writes,
        ..unary::<etcd::TxnRequest, etcd::TxnResponse>("/v3/kv/txn", "/etcdserverpb.KV/Txn")
    },
    write_of::<etcd::CompactionRequest, etcd::CompactionResponse>(
        "/v3/kv/compaction",
        "/etcdserverpb.KV/Compact",
    ),
    stream::<etcd::WatchRequest, etcd::WatchResponse>("/v3/watch", "/etcdserverpb.Watch/Watch"),
    write_of::<etcd::LeaseGrantRequest, etcd::LeaseGrantResponse>(
        "/v3/lease/grant",
        "/etcdserverpb.Lease/LeaseGrant",
    ),
    revoke("/v3/lease/revoke"),
    revoke("/v3/kv/lease/revoke"),
    stream::<etcd::LeaseKeepAliveRequest, etcd::LeaseKeepAliveResponse>(
        "/v3/lease/keepalive",
        "/etcdserverpb.Lease/LeaseKeepAlive",
    ),
    time_to_live("/v3/lease/timetolive"),
    time_to_live("/v3/kv/lease/timetolive"),
    leases("/v3/lease/leases"),
    leases("/v3/kv/lease/leases"),
    unary::<etcd::MemberAddRequest, etcd::MemberAddResponse>(
        "/v3/cluster/member/add",
        "/etcdserverpb.Cluster/MemberAdd",
    ),
    unary::<etcd::MemberRemoveRequest, etcd::MemberRemoveResponse>(
        "/v3/cluster/member/remove",
        "/etcdserverpb.Cluster/MemberRemove",
    ),
    unary::<etcd::MemberUpdateRequest, etcd::MemberUpdateResponse>(
        "/v3/cluster/member/update",
        "/etcdserverpb.Cluster/MemberUpdate",
    ),
    unary::<etcd::MemberListRequest, etcd::MemberListResponse>(
        "/v3/cluster/member/list",
        "/etcdserverpb.Cluster/MemberList",
    ),
    unary::<etcd::MemberPromoteRequest, etcd::MemberPromoteResponse>(
        "/v3/cluster/member/promote",
        "/etcdserverpb.Cluster/MemberPromote",
    ),
    unary::<etcd::AlarmRequest, etcd::AlarmResponse>(
        "/v3/maintenance/alarm",
        "/etcdserverpb.Maintenance/Alarm",
    ),
    unary::<etcd::StatusRequest, etcd::StatusResponse>(
        "/v3/maintenance/status",
        "/etcdserverpb.Maintenance/Status",
    ),
    unary::<etcd::DefragmentRequest, etcd::DefragmentResponse>(
        "/v3/maintenance/defragment",
        "/etcdserverpb.Maintenance/Defragment",
    ),
    unary::<etcd::HashRequest, etcd::HashResponse>(
        "/v3/maintenance/hash",
        "/etcdserverpb.Maintenance/Hash",
    ),
    unary::<etcd::HashKvRequest, etcd::HashKvResponse>(
        "/v3/maintenance/hashkv",
        "/etcdserverpb.Maintenance/HashKV",
    ),
    unary::<etcd::SnapshotRequest, etcd::SnapshotResponse>(
        "/v3/maintenance/snapshot",
        "/etcdserverpb.Maintenance/Snapshot",
    ),
    unary::<etcd::MoveLeaderRequest, etcd::MoveLeaderResponse>(
        "/v3/maintenance/transfer-leadership",
        "/etcdserverpb.Maintenance/MoveLeader",
    ),
    unary::<etcd::DowngradeRequest, etcd::DowngradeResponse>(
        "/v3/maintenance/downgrade",
        "/etcdserverpb.Maintenance/Downgrade",
    ),
    refused("/v3/auth/authenticate", "/etcdserverpb.Auth/Authenticate"),
    refused("/v3/auth/{*call}", "/etcdserverpb.Auth/AuthStatus"),
    refused("/v3/lock/{call}", "/v3lockpb.Lock/Lock"),
    refused("/v3/election/{call}", "/v3electionpb.Election/Leader"),
];

const fn call<Asked, Told>(path: &'static str, grpc: &'static str, kind: Kind) -> Call
where
    Asked: Message + Default + DeserializeOwned,
    Told: Message + Default + Serialize,
{
    Call {
        path,
        grpc,
        kind,
        writes: |_| false,
        read: read::<Asked>,
        write: write::<Told>,
    }
}

const fn unary<Asked, Told>(path: &'static str, grpc: &'static str) -> Call
where
    Asked: Message + Default + DeserializeOwned,
    Told: Message + Default + Serialize,
{
    call::<Asked, Told>(path, grpc, Kind::Unary)
}

const fn write_of<Asked, Told>(path: &'static str, grpc: &'static str) -> Call
where
    Asked: Message + Default + DeserializeOwned,
    Told: Message + Default + Serialize,
{
    Call {
        writes: |_| true,
        ..unary::<Asked, Told>(path, grpc)
    }
}

const fn stream<Asked, Told>(path: &'static str, grpc: &'static str) -> Call
where
    Asked: Message + Default + DeserializeOwned,
    Told: Message + Default + Serialize,
{
    call::<Asked, Told>(path, grpc, Kind::Stream)
}

const fn revoke(path: &'static str) -> Call {
    write_of::<etcd::LeaseRevokeRequest, etcd::LeaseRevokeResponse>(
        path,
        "/etcdserverpb.Lease/LeaseRevoke",
    )
}

const fn time_to_live(path: &'static str) -> Call {
    unary::<etcd::LeaseTimeToLiveRequest, etcd::LeaseTimeToLiveResponse>(
        path,
        "/etcdserverpb.Lease/LeaseTimeToLive",
    )
}

const fn leases(path: &'static str) -> Call {
    unary::<etcd::LeaseLeasesRequest, etcd::LeaseLeasesResponse>(
        path,
        "/etcdserverpb.Lease/LeaseLeases",
    )
}

/// A call that is always refused, whatever it asks: its messages are not known here, but for being JSON.
const fn refused(path: &'static str, grpc: &'static str) -> Call {
    Call {
        path,
        grpc,
        kind: Kind::Unary,
        writes: |_| false,
        read: |json| read::<Anything>(json).map(|_| Vec::new()),
        write: |_| Ok(b"{}".to_vec()),
    }
}

/// What a call asks of which nothing is known.
#[derive(Clone, PartialEq, Message)]
struct Anything {}

impl<'de> Deserialize<'de> for Anything {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        BTreeMap::<String, IgnoredAny>::deserialize(json).map(|_| Self {})
    }
}

fn txn_writes(asked: &[u8]) -> bool {
    fn writes(txn: &etcd::TxnRequest) -> bool {
        let mut ops = txn.success.iter().chain(&txn.failure);
        ops.any(|op| match &op.request {
            Some(Op::RequestPut(_) | Op::RequestDeleteRange(_)) => true,
            Some(Op::RequestTxn(txn)) => writes(txn),
            Some(Op::RequestRange(_)) | None => false,
        })
    }
    etcd::TxnRequest::decode(asked).is_ok_and(|txn| writes(&txn))
}

/// An empty body asks for what an empty object does, as in etcd.
fn read<Asked: Message + Default + DeserializeOwned>(json: &[u8]) -> Result<Vec<u8>, Status> {
    if json.iter().all(u8::is_ascii_whitespace) {
        return Ok(Asked::default().encode_to_vec());
    }
    let asked: Result<Asked, _> = serde_json::from_slice(json);
    let asked = asked.or_else(|error| without_nulls(json).ok_or(error));
    let asked = asked.map_err(|error| {
        let found = format!("found no request in the JSON: {error}");
        Fault::new(codes::INVALID_ARGUMENT, found)
            .with_next("compare it with etcd's rpc.proto: keys and values are in base64")
            .into_status(Code::InvalidArgument)
    })?;
    Ok(asked.encode_to_vec())
}

/// Values of a body in which null is looked for: each takes some hundred bytes for that, whatever it has itself.
const NULL_AMONG_MAX: usize = 32 << 10;

/// What is null is at its default, which the generated code knows of messages alone.
fn without_nulls<Asked: DeserializeOwned>(json: &[u8]) -> Option<Asked> {
    let values = json.iter().filter(|byte| b"{[,".contains(byte)).count();
    if values > NULL_AMONG_MAX || !json.windows(4).any(|four| four == b"null") {
        return None;
    }
    fn remove(value: &mut Value) {
        match value {
            Value::Object(members) => {
                members.retain(|_, member| !member.is_null());
                members.values_mut().for_each(remove);
            }
            Value::Array(values) => values.iter_mut().for_each(remove),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    let mut value: Value = serde_json::from_slice(json).ok()?;
    remove(&mut value);
    serde_json::from_value(value).ok()
}

fn write<Told: Message + Default + Serialize>(message: Bytes) -> Result<Vec<u8>, Status> {
    let told = Told::decode(message).map_err(|error| Status::internal(error.to_string()))?;
    let mut json = Json(Vec::new());
    match serde_json::to_writer(&mut json, &told) {
        Ok(()) => Ok(json.0),
        Err(error) if error.is_io() => Err(too_much(JSON_BYTES_MAX + 1)),
        Err(error) => Err(Status::internal(error.to_string())),
    }
}

/// Takes no more than an answer may have.
struct Json(Vec<u8>);

impl io::Write for Json {
    fn write(&mut self, more: &[u8]) -> io::Result<usize> {
        if self.0.len() + more.len() > JSON_BYTES_MAX {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.0.extend_from_slice(more);
        Ok(more.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
