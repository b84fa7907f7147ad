//! The bytes that etcd's clients and servers exchange, written by hand from etcd's field numbers, so
//! that a number that is wrong in `proto/etcd` is found without etcd.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fmt::Debug;

use prost::Message;
use tally_proto::ETCD_DESCRIPTORS;
use tally_proto::etcd::compare::{CompareResult, CompareTarget, TargetUnion};
use tally_proto::etcd::range_request::{SortOrder, SortTarget};
use tally_proto::etcd::request_op::Request;
use tally_proto::etcd::watch_create_request::FilterType;
use tally_proto::etcd::watch_request::RequestUnion;
use tally_proto::etcd::{
    AlarmMember, AlarmType, Compare, DeleteRangeRequest, LeaseGrantRequest, LeaseGrantResponse,
    LeaseTimeToLiveResponse, Member, PutRequest, RangeRequest, RangeResponse, RequestOp,
    ResponseHeader, StatusResponse, TxnRequest, WatchCreateRequest, WatchRequest, WatchResponse,
    cluster_server, kv_server, lease_server, maintenance_server, watch_server,
};
use tally_proto::mvcc::event::EventType;
use tally_proto::mvcc::{Event, KeyValue};

/// Reads the fields, written one after the other, and writes them again.
fn holds<M: Message + Default + PartialEq + Debug>(fields: &[&[u8]], message: &M) {
    let bytes = fields.concat();
    assert_eq!(&M::decode(bytes.as_slice()).unwrap(), message);
    assert_eq!(message.encode_to_vec(), bytes);
}

#[test]
fn a_put_is_read_as_etcd_writes_it() {
    holds(
        &[
            b"\x0a\x01k",
            b"\x12\x01v",
            b"\x18\x07",
            b"\x20\x01",
            b"\x28\x01",
            b"\x30\x01",
        ],
        &PutRequest {
            key: "k".into(),
            value: "v".into(),
            lease: 7,
            prev_kv: true,
            ignore_value: true,
            ignore_lease: true,
        },
    );
}

#[test]
fn a_range_is_read_as_etcd_writes_it() {
    holds(
        &[
            b"\x0a\x01a",
            b"\x12\x01\x00",
            b"\x18\x03",
            b"\x20\x04",
            b"\x28\x02",
            b"\x30\x04",
            b"\x38\x01",
            b"\x40\x01",
            b"\x48\x01",
            b"\x50\x0a",
            b"\x58\x0b",
            b"\x60\x0c",
            b"\x68\x0d",
        ],
        &RangeRequest {
            key: "a".into(),
            range_end: "\0".into(),
            limit: 3,
            revision: 4,
            sort_order: SortOrder::Descend.into(),
            sort_target: SortTarget::Value.into(),
            serializable: true,
            keys_only: true,
            count_only: true,
            min_mod_revision: 10,
            max_mod_revision: 11,
            min_create_revision: 12,
            max_create_revision: 13,
        },
    );
}

#[test]
fn the_answer_to_a_range_is_written_as_etcd_writes_it() {
    holds(
        &[
            b"\x0a\x09\x08\x01\x10\x02\x18\xac\x02\x20\x03",
            b"\x12\x0f\x0a\x01k\x10\x02\x18\xac\x02\x20\x04\x2a\x01v\x30\x05",
            b"\x18\x01",
            b"\x20\x09",
        ],
        &RangeResponse {
            header: Some(ResponseHeader {
                cluster_id: 1,
                member_id: 2,
                revision: 300,
                raft_term: 3,
            }),
            kvs: vec![KeyValue {
                key: "k".into(),
                create_revision: 2,
                mod_revision: 300,
                version: 4,
                value: "v".into(),
                lease: 5,
            }],
            more: true,
            count: 9,
        },
    );
}

#[test]
fn a_comparison_has_the_end_of_its_range_in_field_64() {
    let op = |request| RequestOp {
        request: Some(request),
    };
    holds(
        &[
            b"\x0a\x0d\x08\x03\x10\x04\x1a\x01a\x40\x09\x82\x04\x01b",
            b"\x12\x0a\x1a\x08\x0a\x01a\x12\x01b\x18\x01",
            b"\x12\x05\x12\x03\x0a\x01c",
            b"\x1a\x02\x22\x00",
            b"\x1a\x05\x0a\x03\x0a\x01d",
        ],
        &TxnRequest {
            compare: vec![Compare {
                result: CompareResult::NotEqual.into(),
                target: CompareTarget::Lease.into(),
                key: "a".into(),
                range_end: "b".into(),
                target_union: Some(TargetUnion::Lease(9)),
            }],
            success: vec![
                op(Request::RequestDeleteRange(DeleteRangeRequest {
                    key: "a".into(),
                    range_end: "b".into(),
                    prev_kv: true,
                })),
                op(Request::RequestPut(PutRequest {
                    key: "c".into(),
                    ..PutRequest::default()
                })),
            ],
            failure: vec![
                op(Request::RequestTxn(TxnRequest::default())),
                op(Request::RequestRange(RangeRequest {
                    key: "d".into(),
                    ..RangeRequest::default()
                })),
            ],
        },
    );
}

#[test]
fn each_target_of_a_comparison_has_its_number() {
    for (field, target) in [
        (b"\x20\x01".as_slice(), TargetUnion::Version(1)),
        (b"\x28\x01", TargetUnion::CreateRevision(1)),
        (b"\x30\x01", TargetUnion::ModRevision(1)),
        (b"\x3a\x01v", TargetUnion::Value("v".into())),
        (b"\x40\x01", TargetUnion::Lease(1)),
    ] {
        let compare = Compare {
            target_union: Some(target),
            ..Compare::default()
        };
        holds(&[field], &compare);
    }
}

#[test]
fn a_watch_is_created_as_etcd_does_it() {
    holds(
        &[
            b"\x0a\x14",
            b"\x0a\x01a",
            b"\x12\x01b",
            b"\x18\x03",
            b"\x20\x01",
            b"\x2a\x02\x00\x01",
            b"\x30\x01",
            b"\x38\x07",
            b"\x40\x01",
        ],
        &WatchRequest {
            request_union: Some(RequestUnion::CreateRequest(WatchCreateRequest {
                key: "a".into(),
                range_end: "b".into(),
                start_revision: 3,
                progress_notify: true,
                filters: vec![FilterType::Noput.into(), FilterType::Nodelete.into()],
                prev_kv: true,
                watch_id: 7,
                fragment: true,
            })),
        },
    );
}

#[test]
fn a_watcher_is_told_events_in_field_11() {
    holds(
        &[
            b"\x0a\x02\x18\x08",
            b"\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
            b"\x18\x01",
            b"\x20\x01",
            b"\x28\x05",
            b"\x32\x01x",
            b"\x38\x01",
            b"\x5a\x0e\x08\x01\x12\x05\x0a\x01k\x18\x08\x1a\x03\x0a\x01k",
        ],
        &WatchResponse {
            header: Some(ResponseHeader {
                revision: 8,
                ..ResponseHeader::default()
            }),
            watch_id: -1,
            created: true,
            canceled: true,
            compact_revision: 5,
            cancel_reason: "x".into(),
            fragment: true,
            events: vec![Event {
                r#type: EventType::Delete.into(),
                kv: Some(KeyValue {
                    key: "k".into(),
                    mod_revision: 8,
                    ..KeyValue::default()
                }),
                prev_kv: Some(KeyValue {
                    key: "k".into(),
                    ..KeyValue::default()
                }),
            }],
        },
    );
}

#[test]
fn a_lease_has_its_life_and_its_id_where_etcd_has_them() {
    holds(
        &[b"\x08\x3c", b"\x10\x07"],
        &LeaseGrantRequest { ttl: 60, id: 7 },
    );
    holds(
        &[b"\x10\x07", b"\x18\x3c", b"\x22\x01x"],
        &LeaseGrantResponse {
            header: None,
            id: 7,
            ttl: 60,
            error: "x".into(),
        },
    );
    holds(
        &[b"\x10\x07", b"\x18\x3b", b"\x20\x3c", b"\x2a\x01k"],
        &LeaseTimeToLiveResponse {
            header: None,
            id: 7,
            ttl: 59,
            granted_ttl: 60,
            keys: vec![b"k".to_vec()],
        },
    );
}

#[test]
fn members_and_their_state_are_told_as_etcd_does_it() {
    holds(
        &[
            b"\x08\x01",
            b"\x12\x01n",
            b"\x1a\x01p",
            b"\x22\x01c",
            b"\x28\x01",
        ],
        &Member {
            id: 1,
            name: "n".into(),
            peer_ur_ls: vec!["p".into()],
            client_ur_ls: vec!["c".into()],
            is_learner: true,
        },
    );
    holds(
        &[
            b"\x12\x053.5.0",
            b"\x18\x03",
            b"\x20\x04",
            b"\x28\x05",
            b"\x30\x06",
            b"\x38\x07",
            b"\x42\x01e",
            b"\x48\x09",
            b"\x50\x01",
        ],
        &StatusResponse {
            header: None,
            version: "3.5.0".into(),
            db_size: 3,
            leader: 4,
            raft_index: 5,
            raft_term: 6,
            raft_applied_index: 7,
            errors: vec!["e".into()],
            db_size_in_use: 9,
            is_learner: true,
        },
    );
    holds(
        &[b"\x08\x01", b"\x10\x02"],
        &AlarmMember {
            member_id: 1,
            alarm: AlarmType::Corrupt.into(),
        },
    );
}

#[test]
fn services_have_the_names_that_clients_call_and_reflection_knows_them() {
    for (name, known) in [
        ("etcdserverpb.KV", kv_server::SERVICE_NAME),
        ("etcdserverpb.Watch", watch_server::SERVICE_NAME),
        ("etcdserverpb.Lease", lease_server::SERVICE_NAME),
        ("etcdserverpb.Cluster", cluster_server::SERVICE_NAME),
        ("etcdserverpb.Maintenance", maintenance_server::SERVICE_NAME),
    ] {
        assert_eq!(known, name);
        // A service in a descriptor: its name, then its first method.
        let short = name.split('.').next_back().unwrap().as_bytes();
        let length = u8::try_from(short.len()).unwrap();
        let service = [&[0x0a, length], short, &[0x12]].concat();
        assert!(
            ETCD_DESCRIPTORS
                .windows(service.len())
                .any(|found| found == service),
            "{name} is not in the descriptors"
        );
    }
}
