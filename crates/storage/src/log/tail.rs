//! What stands in the log, and its newest entries in memory. Pure bookkeeping: no disk.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use tally_proto::storage::{LogEntry, LogId};

use super::LogBounds;
use super::entry::Record;

/// The bounds of the log and its newest entries. An entry that is not cached is on disk.
pub(super) struct Tail {
    purged: Option<LogId>,
    /// The last entry; the purged one when none stands.
    last: Option<LogId>,
    /// Index of the first entry; where the next one is expected when none stands.
    first: u64,
    /// Consecutive entries, the newest of the log.
    cached: VecDeque<Cached>,
    cached_bytes: usize,
    cached_bytes_max: usize,
    /// Operations up to this number are on disk.
    written: u64,
}

struct Cached {
    entry: Arc<LogEntry>,
    bytes: usize,
    /// Number of the operation that appends it.
    operation: u64,
}

impl Tail {
    /// A log with these bounds, nothing of it cached.
    pub(super) fn new(bounds: LogBounds, first: u64, cached_bytes_max: usize) -> Self {
        Self {
            purged: bounds.purged,
            last: bounds.last,
            first,
            cached: VecDeque::new(),
            cached_bytes: 0,
            cached_bytes_max,
            written: 0,
        }
    }

    pub(super) fn bounds(&self) -> LogBounds {
        LogBounds {
            purged: self.purged,
            last: self.last,
        }
    }

    fn end(&self) -> u64 {
        self.last
            .map_or(self.first, |last| (last.index + 1).max(self.first))
    }

    fn is_empty(&self) -> bool {
        self.first >= self.end()
    }

    /// The part of a range that stands.
    pub(super) fn clip(&self, range: Range<u64>) -> Range<u64> {
        range.start.max(self.first)..range.end.min(self.end())
    }

    /// Index of the first cached entry; the log's end when none is.
    pub(super) fn cached_from(&self) -> u64 {
        self.end() - self.cached.len() as u64
    }

    /// Cached entries of a range, in order: as many as `bytes_max` allows, and at least one.
    pub(super) fn cached(
        &self,
        range: Range<u64>,
        bytes_max: usize,
    ) -> Vec<(Arc<LogEntry>, usize)> {
        let from = self.cached_from();
        let skip = range.start.saturating_sub(from);
        let take = range.end.saturating_sub(range.start.max(from));
        let mut bytes = 0;
        let mut entries = Vec::new();
        let wanted = self.cached.iter().skip(skip as usize).take(take as usize);
        for cached in wanted {
            bytes += cached.bytes;
            if bytes > bytes_max && !entries.is_empty() {
                break;
            }
            entries.push((cached.entry.clone(), cached.bytes));
        }
        entries
    }

    /// The id of an entry, when it is known without reading.
    pub(super) fn id_at(&self, index: u64) -> Option<LogId> {
        if let Some(known) = [self.purged, self.last]
            .into_iter()
            .flatten()
            .find(|id| id.index == index)
        {
            return Some(known);
        }
        let position = index.checked_sub(self.cached_from())?;
        self.cached.get(usize::try_from(position).ok()?)?.entry.id
    }

    /// Adds entries; `records` are their rows, `operation` what will write them. Gives the index at
    /// which the log now begins when it was empty.
    pub(super) fn append(
        &mut self,
        entries: Vec<LogEntry>,
        records: &[Record],
        operation: u64,
    ) -> io::Result<Option<u64>> {
        let (Some(first), Some(last)) = (records.first(), records.last()) else {
            return Ok(None);
        };
        let may_begin_anywhere = self.is_empty() && self.purged.is_none();
        if first.id.index != self.end() && !may_begin_anywhere {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!(
                    "entry {} is appended where entry {} is expected",
                    first.id.index,
                    self.end()
                ),
            ));
        }
        let begins = self.is_empty().then_some(first.id.index);
        self.first = begins.unwrap_or(self.first);
        self.last = Some(last.id);
        for (entry, record) in entries.into_iter().zip(records) {
            self.cached_bytes += record.bytes.len();
            self.cached.push_back(Cached {
                entry: Arc::new(entry),
                bytes: record.bytes.len(),
                operation,
            });
        }
        self.evict();
        Ok(begins)
    }

    /// Keeps an entry that was read from disk while the log was opened, the newest so far.
    pub(super) fn keep_recovered(&mut self, entry: LogEntry, bytes: usize) {
        self.last = entry.id;
        self.cached_bytes += bytes;
        self.cached.push_back(Cached {
            entry: Arc::new(entry),
            bytes,
            operation: 0,
        });
        self.evict();
    }

    /// Removes what comes after `last`, which stands or is the purged one. False when nothing did.
    pub(super) fn truncate_to(&mut self, last: Option<LogId>) -> bool {
        let end = last.map_or(0, |last| last.index + 1);
        if self.is_empty() || self.end() <= end {
            return false;
        }
        let gone = (self.end() - end).min(self.cached.len() as u64);
        for cached in self.cached.drain(self.cached.len() - gone as usize..) {
            self.cached_bytes -= cached.bytes;
        }
        self.last = last.or(self.purged);
        true
    }

    /// Removes what comes up to `through`. False when it had gone already.
    pub(super) fn purge(&mut self, through: LogId) -> bool {
        if self
            .purged
            .is_some_and(|purged| purged.index >= through.index)
        {
            return false;
        }
        while self.cached_from() <= through.index {
            let Some(gone) = self.cached.pop_front() else {
                break;
            };
            self.cached_bytes -= gone.bytes;
        }
        self.purged = Some(through);
        self.first = self.first.max(through.index + 1);
        if self.last.is_none_or(|last| last.index < through.index) {
            self.last = Some(through);
        }
        true
    }

    /// Operations up to this number are on disk.
    pub(super) fn written(&mut self, operation: u64) {
        self.written = operation;
        self.evict();
    }

    /// Forgets the oldest cached entries until the rest fits; never one that is not on disk.
    fn evict(&mut self) {
        while self.cached_bytes > self.cached_bytes_max {
            match self.cached.front() {
                Some(oldest) if oldest.operation <= self.written => {
                    self.cached_bytes -= oldest.bytes;
                    self.cached.pop_front();
                }
                _ => break,
            }
        }
    }
}
