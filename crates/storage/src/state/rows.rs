//! Rows in their order: those of the snapshot, with those laid over it in their places.

use std::collections::{BTreeMap, btree_map};
use std::ops::{Bound, ControlFlow};

use rocksdb::{DB, DBRawIteratorWithThreadMode};

use super::cache::Value;
use super::view::{StateView, describe};
use crate::rocks;

/// A row laid over the snapshot; `None` hides one.
type Over<'v> = (&'v Vec<u8>, &'v Option<Value>);

/// Stands at one row after the other.
pub(super) struct Cursor<'v> {
    stored: DBRawIteratorWithThreadMode<'v, DB>,
    /// The next of those that wait to be written.
    over: Option<Over<'v>>,
    waiting: btree_map::Range<'v, Vec<u8>, Option<Value>>,
    /// All of them, and the end.
    all_waiting: &'v BTreeMap<Vec<u8>, Option<Value>>,
    until: Vec<u8>,
}

impl Cursor<'_> {
    /// The row that it stands at; `None` at the end, and where reading failed.
    pub(super) fn row(&self) -> Option<(&[u8], &[u8])> {
        match self.over_now() {
            Some((key, Some(value))) => Some((key, &value.bytes)),
            Some((_, None)) | None => self.stored.item(),
        }
    }

    /// Goes on to the next row.
    pub(super) fn next(&mut self) {
        self.pass();
        self.pass_hidden();
    }

    /// Goes on to the first row from `from` on, which is not before the one that it stands at.
    pub(super) fn seek(&mut self, from: &[u8]) {
        let from = from.min(&self.until);
        self.stored.seek(from);
        let bounds = (
            Bound::Included(from),
            Bound::Excluded(self.until.as_slice()),
        );
        self.waiting = self.all_waiting.range::<[u8], _>(bounds);
        self.over = self.waiting.next();
        self.pass_hidden();
    }

    /// What is laid over, where that comes before the next stored row or takes its place.
    fn over_now(&self) -> Option<Over<'_>> {
        let (key, value) = self.over?;
        let stored = self.stored.key();
        let comes_now = stored.is_none_or(|stored| key.as_slice() <= stored);
        comes_now.then_some((key, value))
    }

    fn pass(&mut self) {
        match self.over_now() {
            Some((key, _)) => {
                if self.stored.key() == Some(key) {
                    self.stored.next();
                }
                self.over = self.waiting.next();
            }
            None => self.stored.next(),
        }
    }

    fn pass_hidden(&mut self) {
        while let Some((_, None)) = self.over_now() {
            self.pass();
        }
    }
}

impl StateView<'_> {
    /// Stands at the first row from `from` up to but not including `until`; `None` when no row can be there.
    /// Whoever has come to its end asks [`StateView::has_read`] whether it is one.
    pub(super) fn cursor(&self, from: Vec<u8>, until: Vec<u8>) -> Option<Cursor<'_>> {
        if from >= until {
            return None;
        }
        let options = rocks::bounded_by(until.clone());
        let all_waiting = self.waiting();
        let mut cursor = Cursor {
            stored: self.snapshot().raw_iterator_opt(options),
            over: None,
            waiting: all_waiting.range(until.clone()..),
            all_waiting,
            until,
        };
        cursor.seek(&from);
        Some(cursor)
    }

    /// Marks the view when a cursor has ended because reading failed.
    pub(super) fn has_read(&self, cursor: &Cursor<'_>) {
        if let Err(error) = cursor.stored.status() {
            self.break_off("the state", error.as_ref());
        }
    }

    /// Rows from `from` up to but not including `until`, at most `limit`.
    pub(super) fn rows<T>(
        &self,
        from: Vec<u8>,
        until: Vec<u8>,
        limit: usize,
        mut decode: impl FnMut(&[u8], &[u8]) -> Result<T, String>,
    ) -> Vec<T> {
        let mut found = Vec::new();
        if limit == 0 {
            return found;
        }
        self.each_row(from, until, |key, value| {
            found.push(decode(key, value)?);
            Ok(match found.len() < limit {
                true => ControlFlow::Continue(()),
                false => ControlFlow::Break(()),
            })
        });
        found
    }

    /// Shows rows from `from` up to but not including `until`, until told to stop.
    pub(super) fn each_row(
        &self,
        from: Vec<u8>,
        until: Vec<u8>,
        mut visit: impl FnMut(&[u8], &[u8]) -> Result<ControlFlow<()>, String>,
    ) {
        let Some(mut cursor) = self.cursor(from, until) else {
            return;
        };
        while let Some((key, value)) = cursor.row() {
            match visit(key, value) {
                Ok(ControlFlow::Continue(())) => cursor.next(),
                Ok(ControlFlow::Break(())) => return,
                Err(error) => return self.break_off(&describe(key), &error),
            }
        }
        self.has_read(&cursor);
    }

    /// The last row from `from` up to but not including `until`.
    pub(super) fn last_row<T>(
        &self,
        from: Vec<u8>,
        until: Vec<u8>,
        decode: impl FnOnce(&[u8], &[u8]) -> Result<T, String>,
    ) -> Option<T> {
        let mut options = rocks::bounded_by(until.clone());
        options.set_iterate_lower_bound(from.clone());
        let mut stored = self.snapshot().raw_iterator_opt(options);
        stored.seek_to_last();
        let mut waiting = self.waiting().range(from..until).rev().peekable();
        let decoded = |key: &[u8], value: &[u8]| {
            let decoded = decode(key, value);
            decoded
                .map_err(|error| self.break_off(&describe(key), &error))
                .ok()
        };
        loop {
            let next = stored.item();
            let over =
                waiting.next_if(|(key, _)| next.is_none_or(|(next, _)| key.as_slice() >= next));
            match (over, next) {
                (Some((key, Some(value))), _) => return decoded(key, &value.bytes),
                // Removed: the one before it, if it stands.
                (Some((key, None)), Some((stored_key, _))) if key == stored_key => stored.prev(),
                (Some((_, None)), _) => {}
                (None, Some((key, value))) => return decoded(key, value),
                (None, None) => break,
            }
        }
        if let Err(error) = stored.status() {
            self.break_off("the state", error.as_ref());
        }
        None
    }
}
