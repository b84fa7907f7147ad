//! Keys through the etcd API: get, put, delete, transactions, compaction, leases, watches.
//!
//! Every write goes out under a tag of the client's session, and again under the same tag to the next
//! member until it is answered, so that it takes effect once; see [`Client::resume`] for one that was not
//! answered by the deadline. Reads, renewals of leases and watches do no harm when they are repeated.
//!
//! Any etcd client can do the same but for the tag; what etcd's calls mean is told in `docs/etcd.md`.

mod ask;
mod error;
mod lease;
mod refusal;
mod tag;
mod txn;
mod watch;

use bytes::Bytes;
use tally_model::Revision;
use tally_model::keys::{DeleteRange, LeaseOf};
use tally_proto::etcd;

use crate::client::{Client, read_with};
use crate::read::Consistency;

pub use error::KeyError;
pub use lease::{Lease, LeaseLeft};
pub use tally_model::keys::{
    Bounds, Comparison, Expected, KeyEvent, Order, Put, Range, RangeAnswer, SortBy,
};
pub use tally_model::{KeyAnswer, KeyOp, KeyRange, KeyValue, LeaseId};
pub use txn::{Txn, TxnAnswer, delete, get, put};
pub use watch::{KeyWatch, KeyWatchItem};

use ask::{Ask, Asked};

/// A write that took effect, or a transaction that only read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written<T> {
    /// The store's revision after it.
    pub revision: u64,
    /// True when an earlier attempt had taken effect, and this is the answer that was lost. A read has
    /// none.
    pub replayed: bool,
    /// What etcd answers to such a write.
    pub answer: T,
}

/// What a deletion found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deleted {
    /// How many keys.
    pub count: u64,
    /// The keys as they were; empty unless asked for.
    pub previous: Vec<KeyValue>,
}

/// The keys of a cluster. Clones share connections and session with the client.
#[derive(Clone, Debug)]
pub struct Keys {
    client: Client,
}

impl Client {
    /// The keys that the cluster keeps, under this client's session.
    pub fn keys(&self) -> Keys {
        Keys {
            client: self.clone(),
        }
    }
}

/// One key.
pub fn one(key: impl AsRef<[u8]>) -> KeyRange {
    KeyRange::One(Bytes::copy_from_slice(key.as_ref()))
}

/// From the first key up to but not including the second.
pub fn between(from: impl AsRef<[u8]>, until: impl AsRef<[u8]>) -> KeyRange {
    let copied = |key: &[u8]| Bytes::copy_from_slice(key);
    KeyRange::Between(copied(from.as_ref()), copied(until.as_ref()))
}

/// Every key that begins so; all keys when nothing is given.
pub fn prefix(start: impl AsRef<[u8]>) -> KeyRange {
    let start = start.as_ref();
    // The last byte that can be counted up ends the range; what follows it has no part in the order.
    let countable = start.iter().rposition(|byte| *byte < u8::MAX);
    match (start, countable) {
        // The smallest key there is.
        ([], _) => KeyRange::From(Bytes::from_static(&[0])),
        (_, None) => KeyRange::From(Bytes::copy_from_slice(start)),
        (_, Some(last)) => {
            let mut end = start[..=last].to_vec();
            end[last] += 1;
            KeyRange::Between(Bytes::copy_from_slice(start), end.into())
        }
    }
}

impl Keys {
    /// One key; `None` when there is none.
    ///
    /// # Errors
    /// When there was no answer, see [`KeyError`].
    pub async fn get(
        &self,
        key: impl AsRef<[u8]>,
        consistency: Consistency,
    ) -> Result<Option<KeyValue>, KeyError> {
        let found = self.range(&Range::of(one(key)), consistency).await?;
        Ok(found.found.into_iter().next())
    }

    /// Keys of a range. Ask for large ones with a limit: an answer is read as a whole, at most 256 MiB.
    ///
    /// # Errors
    /// [`KeyError::Compacted`] and [`KeyError::FutureRevision`] for an earlier or later revision that
    /// cannot be read, and when there was no answer.
    pub async fn range(
        &self,
        range: &Range,
        consistency: Consistency,
    ) -> Result<RangeAnswer, KeyError> {
        let ask = etcd::RangeRequest {
            serializable: consistency == Consistency::Stale,
            ..range.into()
        };
        Ok(self.read(ask).await?.answer)
    }

    /// Puts a value, under a lease if one is named.
    ///
    /// # Errors
    /// [`KeyError::LeaseNotFound`], [`KeyError::KeyReserved`], and when there was no answer.
    pub async fn put(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        lease: Option<LeaseId>,
    ) -> Result<Written<Option<KeyValue>>, KeyError> {
        let put = Put {
            key: Bytes::copy_from_slice(key.as_ref()),
            value: Some(Bytes::copy_from_slice(value.as_ref())),
            lease: LeaseOf::Given(lease),
            want_previous: false,
        };
        self.write(etcd::PutRequest::from(&put)).await
    }

    /// Deletes keys. Those that the cluster itself keeps among them stay.
    ///
    /// # Errors
    /// [`KeyError::KeyReserved`], and when there was no answer.
    pub async fn delete(&self, keys: KeyRange) -> Result<Written<Deleted>, KeyError> {
        let delete = DeleteRange {
            keys,
            want_previous: false,
        };
        self.write(etcd::DeleteRangeRequest::from(&delete)).await
    }

    /// Compares, and does one thing or the other. One that only reads goes out without a tag.
    ///
    /// # Errors
    /// Those of what it does, and when there was no answer. Comparisons that do not hold are an answer.
    pub async fn txn(&self, txn: &Txn) -> Result<Written<TxnAnswer>, KeyError> {
        let ask = etcd::TxnRequest::from(txn.inner());
        match txn.inner().is_read_only() {
            true => self.read(ask).await,
            false => self.write(ask).await,
        }
    }

    /// Gives up what keys were before a revision, for every reader and watcher.
    ///
    /// # Errors
    /// [`KeyError::Compacted`] when that was given up before, [`KeyError::FutureRevision`], and when there
    /// was no answer.
    pub async fn compact(&self, revision: Revision) -> Result<Written<()>, KeyError> {
        let compact = etcd::CompactionRequest {
            revision: revision.signed(),
            physical: false,
        };
        self.write(compact).await
    }

    /// Sends a write under the session's next tag until it is answered.
    async fn write<Q: Ask>(&self, ask: Q) -> Result<Written<Q::Answer>, KeyError> {
        Ok(self.client.tagged(Asked::new(ask)).await??)
    }

    /// Asks until answered; for what changes nothing.
    async fn read<Q: Ask>(&self, ask: Q) -> Result<Written<Q::Answer>, KeyError> {
        let mut attempts = self.client.attempts();
        Ok(read_with(&mut attempts, &Asked::new(ask)).await??)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_has_the_keys_that_begin_so_and_no_others() {
        let users = prefix("user/");
        assert_eq!(users, between("user/", "user0"));
        assert!(users.contains(b"user/") && users.contains(b"user/\xff\xff"));
        assert!(!users.contains(b"user0") && !users.contains(b"user"));
        assert_eq!(prefix(b"a\xff"), between(b"a\xff", b"b"));
        assert!(prefix(b"\xff").contains(b"\xff\xff"));
        assert!(prefix("").contains(b"\0") && prefix("").contains(b"\xff"));
    }
}
