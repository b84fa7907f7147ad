//! Records on disk: one RocksDB, one row for each record.
//!
//! layout: [log, u64 big-endian][offset, u64 big-endian] -> the record's bytes. Rows are written once
//! and never change; the first offset of a log is 1, and offsets have no gaps.

use std::collections::BTreeMap;
use std::path::Path;

use rocksdb::{
    DB, DBCompressionType, Direction, IteratorMode, Options, ReadOptions, WriteBatch, WriteOptions,
};

use crate::error::RecordsError;

/// Longest record in bytes.
pub const DATA_BYTES_MAX: usize = 1 << 20;

/// Most records in one answer.
pub const READ_RECORDS_MAX: usize = 1000;

/// Most bytes of data in one answer, past the first record: below gRPC's usual bound of 4 MiB.
pub const READ_BYTES_MAX: usize = 3 << 20;

/// RocksDB's own log files that are kept.
const INFO_LOGS_MAX: usize = 2;
const WRITE_BUFFER_BYTES: usize = 16 << 20;
const WAL_BYTES_MAX: u64 = 64 << 20;

/// One record to append.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Append {
    pub(crate) log: u64,
    pub(crate) data: Vec<u8>,
}

/// The records of every log.
#[derive(Debug)]
pub(crate) struct Records {
    db: DB,
}

impl Records {
    /// Opens or makes them. Fails when another process has them open.
    pub(crate) fn open(dir: &Path) -> Result<Self, rocksdb::Error> {
        let mut options = Options::default();
        options.create_if_missing(true);
        options.set_compression_type(DBCompressionType::Lz4);
        options.set_write_buffer_size(WRITE_BUFFER_BYTES);
        options.set_max_total_wal_size(WAL_BYTES_MAX);
        options.set_keep_log_file_num(INFO_LOGS_MAX);
        options.set_paranoid_checks(true);
        let db = DB::open(&options, dir)?;
        Ok(Self { db })
    }

    /// Appends in order, all in one synced write, and returns the offsets. For one thread at a time.
    pub(crate) fn append(&self, appends: &[Append]) -> Result<Vec<u64>, RecordsError> {
        let mut last_of = BTreeMap::new();
        let mut batch = WriteBatch::default();
        let mut offsets = Vec::with_capacity(appends.len());
        for append in appends {
            let last = match last_of.get(&append.log) {
                Some(last) => *last,
                None => self.last_offset(append.log)?,
            };
            let offset = last + 1;
            batch.put(key(append.log, offset), &append.data);
            last_of.insert(append.log, offset);
            offsets.push(offset);
        }
        let mut synced = WriteOptions::default();
        synced.set_sync(true);
        self.db.write_opt(batch, &synced)?;
        Ok(offsets)
    }

    /// Records from an offset on, ascending: at most `limit` and [`READ_BYTES_MAX`], but one if there
    /// is one.
    pub(crate) fn read(
        &self,
        log: u64,
        from: u64,
        limit: usize,
    ) -> Result<Vec<(u64, Vec<u8>)>, RecordsError> {
        let mut records = Vec::new();
        let mut bytes = 0;
        let from = key(log, from.max(1));
        let mut only_this_log = ReadOptions::default();
        only_this_log.set_iterate_upper_bound(key(log, u64::MAX).to_vec());
        let from = IteratorMode::From(&from, Direction::Forward);
        for row in self.db.iterator_opt(from, only_this_log).take(limit) {
            let (key, data) = row?;
            bytes += data.len();
            if bytes > READ_BYTES_MAX && !records.is_empty() {
                break;
            }
            records.push((offset_of(&key)?, data.into_vec()));
        }
        Ok(records)
    }

    /// The last record's offset; 0 when the log is empty.
    pub(crate) fn last_offset(&self, log: u64) -> Result<u64, RecordsError> {
        let end = key(log, u64::MAX);
        let mut rows = self
            .db
            .iterator(IteratorMode::From(&end, Direction::Reverse));
        match rows.next().transpose()? {
            Some((key, _)) if key.starts_with(&log.to_be_bytes()) => offset_of(&key),
            _ => Ok(0),
        }
    }
}

fn key(log: u64, offset: u64) -> [u8; 16] {
    let key = (u128::from(log) << 64) | u128::from(offset);
    key.to_be_bytes()
}

fn offset_of(key: &[u8]) -> Result<u64, RecordsError> {
    let offset = key.get(8..).and_then(|offset| offset.try_into().ok());
    offset.map(u64::from_be_bytes).ok_or_else(|| {
        RecordsError::Failed(format!("found a key of {} bytes, expected 16", key.len()))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn append(log: u64, data: &[u8]) -> Append {
        Append {
            log,
            data: data.to_vec(),
        }
    }

    #[test]
    fn records_and_offsets_are_there_after_a_reopen() {
        let dir = tempfile::tempdir().unwrap();
        {
            let records = Records::open(dir.path()).unwrap();
            let batch = [append(1, b"a"), append(2, b"x"), append(1, b"b")];
            assert_eq!(records.append(&batch), Ok(vec![1, 1, 2]));
            assert_eq!(records.append(&[append(1, b"c")]), Ok(vec![3]));
        }
        let records = Records::open(dir.path()).unwrap();
        let expected = vec![(1, b"a".to_vec()), (2, b"b".to_vec()), (3, b"c".to_vec())];
        assert_eq!(records.read(1, 0, 10), Ok(expected.clone()));
        assert_eq!(records.read(1, 2, 1), Ok(vec![expected[1].clone()]));
        assert_eq!(records.read(1, 4, 10), Ok(vec![]));
        assert_eq!(records.read(2, 1, 10), Ok(vec![(1, b"x".to_vec())]));
        assert_eq!(records.read(3, 1, 10), Ok(vec![]));
        assert_eq!(
            records.append(&[append(1, b"d"), append(0, b"")]),
            Ok(vec![4, 1])
        );
    }

    #[test]
    fn the_largest_log_number_is_a_log_like_any_other() {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::open(dir.path()).unwrap();
        records
            .append(&[append(u64::MAX, b"z"), append(u64::MAX - 1, b"y")])
            .unwrap();
        assert_eq!(records.last_offset(u64::MAX), Ok(1));
        assert_eq!(records.read(u64::MAX, 1, 10), Ok(vec![(1, b"z".to_vec())]));
        assert_eq!(records.last_offset(5), Ok(0));
    }

    #[test]
    fn an_answer_is_bounded_in_bytes_and_never_empty_for_that() {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::open(dir.path()).unwrap();
        let large = append(1, &vec![7; DATA_BYTES_MAX]);
        records.append(&vec![large; 5]).unwrap();
        assert_eq!(records.read(1, 1, 10).unwrap().len(), 3);
    }

    #[test]
    fn records_are_open_in_one_process_only() {
        let dir = tempfile::tempdir().unwrap();
        let _open = Records::open(dir.path()).unwrap();
        assert!(Records::open(dir.path()).is_err());
    }
}
