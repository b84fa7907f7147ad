//! Values of the types for keys and leases.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use tally_model::keys::{
    Bounds, Compare, Comparison, DeleteRange, Expected, LeaseOf, Order, Put, Range, RangeAnswer,
    SortBy, Txn,
};
use tally_model::{KeyAnswer, KeyEvent, KeyOp, KeyRange, KeyValue, Lease, LeaseId, Revision};

/// As far as etcd's messages go, which have a sign.
fn unsigned() -> impl Strategy<Value = u64> {
    let signed = prop_oneof![1 => select(vec![0, 1, i64::MAX]), 3 => 0..i64::MAX];
    signed.prop_map(|number| number.unsigned_abs())
}

fn signed() -> impl Strategy<Value = i64> {
    prop_oneof![1 => select(vec![0, 1, -1, i64::MIN, i64::MAX]), 3 => any::<i64>()]
}

fn revision() -> impl Strategy<Value = Revision> {
    unsigned().prop_map(Revision)
}

fn bytes() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..6).prop_map(Bytes::from)
}

fn key() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 1..6).prop_map(Bytes::from)
}

fn key_range() -> impl Strategy<Value = KeyRange> {
    let end = prop_oneof![bytes(), Just(Bytes::from_static(&[0])), Just(Bytes::new())];
    (key(), end).prop_map(|(key, end)| KeyRange::new(key, end))
}

pub(crate) fn lease_id() -> impl Strategy<Value = LeaseId> {
    signed().prop_filter_map("stands for none", |id| (id != 0).then_some(LeaseId(id)))
}

pub(crate) fn lease() -> impl Strategy<Value = Lease> {
    (lease_id(), any::<u64>(), any::<u64>()).prop_map(|(id, ttl_s, ends_ms)| Lease {
        id,
        ttl_s,
        ends_ms,
    })
}

fn key_value() -> impl Strategy<Value = KeyValue> {
    let revisions = (revision(), revision(), unsigned());
    (key(), bytes(), revisions, option::of(lease_id())).prop_map(
        |(key, value, (created, modified, version), lease)| KeyValue {
            key,
            value,
            created,
            modified,
            version,
            lease,
        },
    )
}

pub(crate) fn key_event() -> impl Strategy<Value = KeyEvent> {
    prop_oneof![
        key_value().prop_map(KeyEvent::Put),
        key().prop_map(|key| KeyEvent::Deleted { key }),
    ]
}

fn bounds() -> impl Strategy<Value = Bounds> {
    let bound = || signed().prop_map(|bound| (bound != 0).then_some(bound));
    (bound(), bound()).prop_map(|(min, max)| Bounds { min, max })
}

fn range() -> impl Strategy<Value = Range> {
    let by = select(vec![
        SortBy::Key,
        SortBy::Version,
        SortBy::Created,
        SortBy::Modified,
        SortBy::Value,
    ]);
    let order =
        (by, option::of(any::<bool>())).prop_map(|(by, descending)| Order { by, descending });
    let positive = || option::of(unsigned().prop_map(|number| number.max(1)));
    let only = (any::<bool>(), any::<bool>());
    (
        key_range(),
        positive(),
        positive(),
        order,
        only,
        bounds(),
        bounds(),
    )
        .prop_map(
            |(keys, limit, at, order, (keys_only, count_only), modified, created)| Range {
                keys,
                limit,
                at: at.map(Revision),
                order,
                keys_only,
                count_only,
                modified,
                created,
            },
        )
}

fn put() -> impl Strategy<Value = Put> {
    let lease = prop_oneof![
        option::of(lease_id()).prop_map(LeaseOf::Given),
        Just(LeaseOf::Kept)
    ];
    (key(), option::of(bytes()), lease, any::<bool>()).prop_map(
        |(key, value, lease, want_previous)| Put {
            key,
            value,
            lease,
            want_previous,
        },
    )
}

fn compare() -> impl Strategy<Value = Compare> {
    let expected = prop_oneof![
        signed().prop_map(Expected::Version),
        signed().prop_map(Expected::Created),
        signed().prop_map(Expected::Modified),
        signed().prop_map(Expected::Lease),
        bytes().prop_map(Expected::Value),
    ];
    let comparison = select(vec![
        Comparison::Equal,
        Comparison::NotEqual,
        Comparison::Greater,
        Comparison::Less,
    ]);
    (key_range(), comparison, expected).prop_map(|(keys, comparison, expected)| Compare {
        keys,
        comparison,
        expected,
    })
}

pub(crate) fn key_op() -> impl Strategy<Value = KeyOp> {
    let delete = (key_range(), any::<bool>());
    let delete = delete.prop_map(|(keys, want_previous)| DeleteRange {
        keys,
        want_previous,
    });
    let simple = prop_oneof![
        range().prop_map(KeyOp::Range),
        put().prop_map(KeyOp::Put),
        delete.prop_map(KeyOp::Delete),
    ];
    simple.prop_recursive(3, 12, 3, |inner| {
        let branch = || vec(inner.clone(), 0..3);
        let txn = (vec(compare(), 0..3), branch(), branch());
        txn.prop_map(|(compare, success, failure)| {
            KeyOp::Txn(Txn {
                compare,
                success,
                failure,
            })
        })
    })
}

pub(crate) fn key_answer() -> impl Strategy<Value = KeyAnswer> {
    let range = (
        revision(),
        vec(key_value(), 0..3),
        any::<bool>(),
        unsigned(),
    );
    let range = range.prop_map(|(revision, found, more, count)| RangeAnswer {
        revision,
        found,
        more,
        count,
    });
    let put = (revision(), option::of(key_value()));
    let deleted = (revision(), unsigned(), vec(key_value(), 0..3));
    let simple = prop_oneof![
        range.prop_map(KeyAnswer::Range),
        put.prop_map(|(revision, previous)| KeyAnswer::Put { revision, previous }),
        deleted.prop_map(|(revision, count, previous)| KeyAnswer::Deleted {
            revision,
            count,
            previous
        }),
    ];
    simple.prop_recursive(3, 8, 3, |inner| {
        (any::<bool>(), vec(inner, 0..3))
            .prop_map(|(succeeded, answers)| KeyAnswer::Txn { succeeded, answers })
    })
}
