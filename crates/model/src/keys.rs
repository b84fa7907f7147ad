//! Keys and their values, as etcd v3 knows them: each write makes a new version of its key, and every
//! version is kept until the revisions are compacted.
//!
//! Where a rule is not obvious it is that of etcd 3.5, whose clients must not notice a difference.

mod compaction;
mod draft;
mod range;
mod txn;
mod well_formed;
mod write;

use bytes::Bytes;

use crate::identifier::{LeaseId, Revision};

pub use compaction::RECLAIMED_AT_ONCE;
pub use draft::{ANSWER_BYTES_MAX, READ_BYTES_MAX, ROWS_MAX};
pub use range::{Bounds, Order, Range, RangeAnswer, RangeEnd, SortBy, walk};
pub use txn::{Compare, Comparison, Expected, Txn, read};
pub use well_formed::{DuplicateKey, check_distinct};
pub use write::{DeleteRange, LeaseOf, Put};

pub(crate) use compaction::{compact, reclaim, reclaimed_for};
pub(crate) use draft::KeysDraft;
pub(crate) use txn::run;
pub(crate) use write::next_version;

/// Keys that begin so are written by the state machine alone; everyone may read them.
///
/// A zero byte, so that they sort before whatever a person would type, and no prefix of such a name
/// contains them.
pub const RESERVED_PREFIX: &[u8] = b"\x00tally/";

/// True for a key that requests must not write.
pub fn is_reserved(key: &[u8]) -> bool {
    key.starts_with(RESERVED_PREFIX)
}

/// A key with one of its values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    /// Never empty.
    pub key: Bytes,
    pub value: Bytes,
    /// Revision of the put that made the key when there was none.
    pub created: Revision,
    /// Revision of the put that made this version.
    pub modified: Revision,
    /// Puts since the key was made, this one included.
    pub version: u64,
    /// The lease that the key ends with.
    pub lease: Option<LeaseId>,
}

/// Which keys a request is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyRange {
    /// This key.
    One(Bytes),
    /// From the first, up to but not including the second.
    Between(Bytes, Bytes),
    /// This key and every one after it.
    From(Bytes),
}

impl KeyRange {
    /// As etcd writes it: an `end` of one zero byte stands for the end of all keys, an empty one for
    /// `key` alone.
    pub fn new(key: Bytes, end: Bytes) -> Self {
        match end.as_ref() {
            [] => Self::One(key),
            [0] => Self::From(key),
            _ => Self::Between(key, end),
        }
    }

    /// The first key that may be in it.
    pub fn start(&self) -> &Bytes {
        match self {
            Self::One(key) | Self::Between(key, _) | Self::From(key) => key,
        }
    }

    /// What [`KeyRange::new`] was given as the end.
    pub fn end(&self) -> Bytes {
        match self {
            Self::One(_) => Bytes::new(),
            Self::Between(_, end) => end.clone(),
            Self::From(_) => Bytes::from_static(&[0]),
        }
    }

    pub fn contains(&self, key: &[u8]) -> bool {
        match self {
            Self::One(one) => one == key,
            Self::Between(from, until) => from <= key && key < until.as_ref(),
            Self::From(from) => from <= key,
        }
    }

    /// True when every key in it is reserved.
    pub(crate) fn is_reserved(&self) -> bool {
        match self {
            Self::One(key) => is_reserved(key),
            Self::Between(from, until) => {
                let last = RESERVED_PREFIX.len() - 1;
                is_reserved(from)
                    && until.len() > last
                    && until[..last] == RESERVED_PREFIX[..last]
                    && until[last] <= RESERVED_PREFIX[last] + 1
                    && (is_reserved(until) || until.len() == last + 1)
            }
            Self::From(_) => false,
        }
    }
}

/// Where an event stands: events of one revision are numbered from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct EventId {
    pub revision: Revision,
    pub number: u32,
}

impl EventId {
    /// Before every event.
    pub const NONE: Self = Self {
        revision: Revision(0),
        number: 0,
    };

    /// After every event of a revision.
    pub const fn last_of(revision: Revision) -> Self {
        Self {
            revision,
            number: u32::MAX,
        }
    }
}

/// That a key changed, without what it became.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyChanged {
    pub id: EventId,
    pub key: Bytes,
    pub deleted: bool,
}

/// How many [`KeyChanged`] there may be together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AtMost {
    /// So many.
    pub changes: usize,
    /// None comes after those whose keys have so many bytes together.
    pub key_bytes: usize,
}

impl AtMost {
    /// Without a bound.
    pub const ALL: Self = Self {
        changes: usize::MAX,
        key_bytes: usize::MAX,
    };

    /// True when no more may come after so many, whose keys have so many bytes together.
    pub fn is_reached(&self, changes: usize, key_bytes: usize) -> bool {
        changes >= self.changes || key_bytes >= self.key_bytes
    }

    /// True when no more may come after these.
    pub fn is_reached_by(&self, changed: &[KeyChanged]) -> bool {
        let key_bytes = changed.iter().map(|one| one.key.len()).sum();
        self.is_reached(changed.len(), key_bytes)
    }
}

/// One change of one key. A key may change twice in a revision, where two nested transactions of one
/// put it and delete it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyEvent {
    /// This version of the key was made.
    Put(KeyValue),
    /// The key was deleted.
    Deleted { key: Bytes },
}

impl KeyEvent {
    pub fn key(&self) -> &Bytes {
        match self {
            Self::Put(made) => &made.key,
            Self::Deleted { key } => key,
        }
    }
}

/// One request about keys, by itself or within a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyOp {
    Range(Range),
    Put(Put),
    Delete(DeleteRange),
    Txn(Txn),
}

impl KeyOp {
    /// True when it names a range of keys, wherever in it.
    pub(crate) fn may_be_about_many(&self) -> bool {
        let many = |keys: &KeyRange| !matches!(keys, KeyRange::One(_));
        match self {
            Self::Range(ask) => many(&ask.keys),
            Self::Put(_) => false,
            Self::Delete(ask) => many(&ask.keys),
            Self::Txn(txn) => {
                let mut both = txn.success.iter().chain(&txn.failure);
                txn.compare.iter().any(|compare| many(&compare.keys))
                    || both.any(Self::may_be_about_many)
            }
        }
    }

    /// True when it can change nothing, whatever it finds.
    pub fn is_read_only(&self) -> bool {
        match self {
            Self::Range(_) => true,
            Self::Put(_) | Self::Delete(_) => false,
            Self::Txn(txn) => txn.is_read_only(),
        }
    }
}

/// What became of a request about keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyAnswer {
    Range(RangeAnswer),
    Put {
        revision: Revision,
        /// The version before, where it was asked for.
        previous: Option<KeyValue>,
    },
    Deleted {
        revision: Revision,
        count: u64,
        /// What was deleted, where it was asked for.
        previous: Vec<KeyValue>,
    },
    Txn {
        succeeded: bool,
        /// One for each request of the branch that was taken.
        answers: Vec<KeyAnswer>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn between(from: &'static [u8], until: &'static [u8]) -> KeyRange {
        KeyRange::new(Bytes::from_static(from), Bytes::from_static(until))
    }

    #[test]
    fn ranges_are_read_as_etcd_writes_them() {
        assert!(between(b"b", b"").contains(b"b"));
        assert!(!between(b"b", b"").contains(b"ba"));
        assert!(between(b"b", b"c").contains(b"ba"));
        assert!(!between(b"b", b"c").contains(b"c"));
        assert!(between(b"b", b"\0").contains(b"\xff"));
        assert!(!between(b"b", b"\0").contains(b"a"));
        assert!(!between(b"b", b"a").contains(b"ab"));
    }

    #[test]
    fn only_what_lies_below_the_reserved_prefix_is_reserved() {
        for reserved in [
            between(b"\0tally/nodes/1", b""),
            between(b"\0tally/", b"\0tally0"),
            between(b"\0tally/a", b"\0tally/b"),
        ] {
            assert!(reserved.is_reserved(), "{reserved:?}");
        }
        for free in [
            between(b"\0", b"\0"),
            between(b"\0tally/", b"\0"),
            between(b"\0tally/", b"\0tally0a"),
            between(b"\0tally/", b"\0tally1"),
            between(b"\0tally", b"\0tally0"),
            between(b"tally/", b""),
            between(b"\0tally/", b"\x01"),
        ] {
            assert!(!free.is_reserved(), "{free:?}");
        }
    }
}
