//! Transactions: comparisons, and what to do when they hold and when they do not.

use bytes::Bytes;
use tally_model::keys::{self, Compare, DeleteRange, LeaseOf, Put, Range};
use tally_model::{KeyAnswer, KeyOp, KeyRange, LeaseId};

use super::{Comparison, Expected, one};

/// A transaction as it is put together: what is compared, what is done when all of it holds, and what
/// is done otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Txn(keys::Txn);

/// What a transaction did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TxnAnswer {
    /// True when every comparison held.
    pub succeeded: bool,
    /// One for each operation of the branch that was taken, in order.
    pub answers: Vec<KeyAnswer>,
}

impl Default for Txn {
    fn default() -> Self {
        Self(keys::Txn {
            compare: Vec::new(),
            success: Vec::new(),
            failure: Vec::new(),
        })
    }
}

impl Txn {
    /// One that does nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks that a key has this; version and revisions of a key that is not there are 0.
    #[must_use]
    pub fn when(
        mut self,
        key: impl AsRef<[u8]>,
        comparison: Comparison,
        expected: Expected,
    ) -> Self {
        self.0.compare.push(Compare {
            keys: one(key),
            comparison,
            expected,
        });
        self
    }

    /// Does this when every comparison holds.
    #[must_use]
    pub fn then(mut self, op: KeyOp) -> Self {
        self.0.success.push(op);
        self
    }

    /// Does this when one does not.
    #[must_use]
    pub fn otherwise(mut self, op: KeyOp) -> Self {
        self.0.failure.push(op);
        self
    }

    pub(super) fn inner(&self) -> &keys::Txn {
        &self.0
    }
}

/// Reads keys within a transaction.
pub fn get(keys: KeyRange) -> KeyOp {
    KeyOp::Range(Range::of(keys))
}

/// Puts a value within a transaction, under a lease if one is named.
pub fn put(key: impl AsRef<[u8]>, value: impl AsRef<[u8]>, lease: Option<LeaseId>) -> KeyOp {
    KeyOp::Put(Put {
        key: Bytes::copy_from_slice(key.as_ref()),
        value: Some(Bytes::copy_from_slice(value.as_ref())),
        lease: LeaseOf::Given(lease),
        want_previous: false,
    })
}

/// Deletes keys within a transaction.
pub fn delete(keys: KeyRange) -> KeyOp {
    KeyOp::Delete(DeleteRange {
        keys,
        want_previous: false,
    })
}
