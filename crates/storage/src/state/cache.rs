//! The rows that entries look at again and again: those of busy sessions and nodes.

use quick_cache::Weighter;
use quick_cache::unsync::Cache;

use crate::table::{history, key_event, key_version, node_history};

/// Memory for the rows, [`ROW_OVERHEAD`] included.
const BYTES_MAX: u64 = 2 << 20;
/// What a row takes beyond its key and its value: pointers, lengths, and its place in the cache.
const ROW_OVERHEAD: usize = 128;
/// Rows that a cache of this size is made for; it may hold more.
const ROWS_EXPECTED: usize = 4_096;

/// A row's value.
#[derive(Debug)]
pub(super) struct Value {
    pub(super) bytes: Vec<u8>,
    /// What the row adds to the state hash, where that was computed.
    pub(super) hash: Option<u128>,
}

/// Rows by key as the last batch left them, `None` for one that does not stand. Holds what was looked
/// at, and the rows that were looked at most when that is too much.
pub(super) struct RowCache(Cache<Vec<u8>, Option<Value>, Bytes>);

#[derive(Clone)]
struct Bytes;

impl Weighter<Vec<u8>, Option<Value>> for Bytes {
    fn weight(&self, key: &Vec<u8>, value: &Option<Value>) -> u64 {
        let value = value.as_ref().map_or(0, |value| value.bytes.len());
        (key.len() + value + ROW_OVERHEAD) as u64
    }
}

/// True for rows that say what once was, at which entries seldom look.
fn is_history(key: &[u8]) -> bool {
    const TAGS: [u8; 4] = [
        history::TAG,
        node_history::TAG,
        key_event::TAG,
        key_version::TAG,
    ];
    key.first().is_some_and(|tag| TAGS.contains(tag))
}

impl Default for RowCache {
    fn default() -> Self {
        Self(Cache::with_weighter(ROWS_EXPECTED, BYTES_MAX, Bytes))
    }
}

impl RowCache {
    /// `None` when it is not known whether the row stands.
    pub(super) fn get(&self, key: &[u8]) -> Option<Option<&Value>> {
        self.0.get(key).map(Option::as_ref)
    }

    /// Keeps what was found when a row was looked at.
    pub(super) fn found(&mut self, key: &[u8], value: Option<&[u8]>) {
        let value = value.map(|value| Value {
            bytes: value.to_vec(),
            hash: None,
        });
        self.0.insert(key.to_vec(), value);
    }

    /// A row was written. One that was removed is not kept: most are never asked for again.
    pub(super) fn written(&mut self, key: Vec<u8>, value: Option<Value>) {
        match value {
            Some(value) => {
                if is_history(&key) {
                    // That it did not stand may be known from before.
                    drop(self.0.remove(&key));
                } else {
                    self.0.insert(key, Some(value));
                }
            }
            None => drop(self.0.remove(&key)),
        }
    }
}
