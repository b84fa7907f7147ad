//! What is asked of the store, at random: few keys, few leases and short times, so that requests meet.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use tally_model::command::Compact;
use tally_model::keys::{
    Bounds, Compare, Comparison, DeleteRange, Expected, LeaseOf, Order, Put, Range, SortBy, Txn,
    check_distinct,
};
use tally_model::lease::GrantLease;
use tally_model::{Command, KeyOp, KeyRange, LeaseId, Revision};

/// Every lease that may be granted. Comparisons draw these numbers too, and such as lie between.
pub(crate) const LEASES: [LeaseId; 3] = [LeaseId(-1), LeaseId(2), LeaseId(5)];

fn key() -> impl Strategy<Value = Bytes> {
    let names: [&[u8]; 9] = [
        b"a", b"aa", b"a\0", b"a\0\xff", b"b", b"b\xff", b"c", b"\0", b"\0\0",
    ];
    select(names.to_vec()).prop_map(Bytes::from_static)
}

fn value() -> impl Strategy<Value = Bytes> {
    let values: [&[u8]; 4] = [b"", b"1", b"2", b"10"];
    select(values.to_vec()).prop_map(Bytes::from_static)
}

fn key_range() -> impl Strategy<Value = KeyRange> {
    let ends: [&[u8]; 2] = [b"", b"\0"];
    let end = prop_oneof![select(ends.to_vec()).prop_map(Bytes::from_static), key()];
    (key(), end).prop_map(|(key, end)| KeyRange::new(key, end))
}

fn bounds() -> impl Strategy<Value = Bounds> {
    let bound = || option::weighted(0.1, select(vec![-1, 2, 3, 5, 9, 17]));
    (bound(), bound()).prop_map(|(min, max)| Bounds { min, max })
}

fn read() -> impl Strategy<Value = Range> {
    let targets = vec![
        SortBy::Key,
        SortBy::Version,
        SortBy::Created,
        SortBy::Modified,
        SortBy::Value,
    ];
    let order = (select(targets), option::of(any::<bool>()));
    let order = order.prop_map(|(by, descending)| Order { by, descending });
    let order = prop_oneof![3 => Just(Order::default()), 1 => order];
    let at = option::weighted(0.3, (1..20_u64).prop_map(Revision));
    (
        key_range(),
        option::weighted(0.4, 1..5_u64),
        at,
        order,
        any::<bool>(),
        prop::bool::weighted(0.2),
        (bounds(), bounds()),
    )
        .prop_map(
            |(keys, limit, at, order, keys_only, count_only, (modified, created))| Range {
                keys,
                limit,
                at,
                order,
                keys_only,
                count_only,
                modified,
                created,
            },
        )
}

fn lease() -> impl Strategy<Value = LeaseId> {
    select(LEASES.to_vec())
}

fn put() -> impl Strategy<Value = Put> {
    let lease = prop_oneof![
        4 => Just(LeaseOf::Given(None)),
        3 => lease().prop_map(|lease| LeaseOf::Given(Some(lease))),
        1 => Just(LeaseOf::Kept),
    ];
    (key(), option::weighted(0.9, value()), lease, any::<bool>()).prop_map(
        |(key, value, lease, want_previous)| Put {
            key,
            value,
            lease,
            want_previous,
        },
    )
}

fn delete() -> impl Strategy<Value = DeleteRange> {
    (key_range(), any::<bool>()).prop_map(|(keys, want_previous)| DeleteRange {
        keys,
        want_previous,
    })
}

fn compare() -> impl Strategy<Value = Compare> {
    let number = || select(vec![-1, 0, 1, 2, 5]);
    let expected = prop_oneof![
        number().prop_map(Expected::Version),
        number().prop_map(Expected::Created),
        number().prop_map(Expected::Modified),
        number().prop_map(Expected::Lease),
        value().prop_map(Expected::Value),
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

fn simple() -> impl Strategy<Value = KeyOp> {
    prop_oneof![
        2 => read().prop_map(KeyOp::Range),
        3 => put().prop_map(KeyOp::Put),
        1 => delete().prop_map(KeyOp::Delete),
    ]
}

fn txn(inner: impl Strategy<Value = KeyOp> + Clone) -> impl Strategy<Value = Txn> {
    let branch = || vec(inner.clone(), 0..4);
    (vec(compare(), 0..3), branch(), branch()).prop_map(|(compare, success, failure)| Txn {
        compare,
        success,
        failure,
    })
}

pub(crate) fn op() -> impl Strategy<Value = KeyOp> {
    let simple = simple().boxed();
    let deep = simple
        .clone()
        .prop_recursive(2, 12, 4, |inner| txn(inner).prop_map(KeyOp::Txn));
    let distinct = deep.prop_filter("a key is written twice", |op| match op {
        KeyOp::Txn(txn) => {
            check_distinct(&txn.success).is_ok() && check_distinct(&txn.failure).is_ok()
        }
        KeyOp::Range(_) | KeyOp::Put(_) | KeyOp::Delete(_) => true,
    });
    prop_oneof![2 => simple, 3 => distinct]
}

/// Times to live that are too short, too long and in between, seconds.
fn grant() -> impl Strategy<Value = GrantLease> {
    let ttl_s = prop_oneof![
        8 => 0..5_u64,
        1 => select(vec![9_000_000_000, 9_000_000_001, u64::MAX]),
    ];
    (lease(), ttl_s).prop_map(|(lease, ttl_s)| GrantLease { lease, ttl_s })
}

/// A command about keys and leases.
pub(crate) fn asked() -> impl Strategy<Value = Command> {
    let compact = (0..15_u64).prop_map(|revision| Compact {
        revision: Revision(revision),
    });
    prop_oneof![
        14 => op().prop_map(Command::Keys),
        1 => compact.prop_map(Command::Compact),
        2 => Just(Command::ReclaimVersions),
        4 => grant().prop_map(Command::GrantLease),
        2 => lease().prop_map(Command::RevokeLease),
        1 => lease().prop_map(Command::RenewLease),
    ]
}
