//! `entry/<index>`: one raft log entry. Written by append; lives until it is truncated or purged.
//!
//! layout: [ENTRY_TAG][index, u64 big-endian] -> [CRC32C over key and message, u32 big-endian]
//! [tally.storage.v1.LogEntry]

use std::io;
use std::ops::Range;

use prost::Message;
use rocksdb::{Direction, IteratorMode, Snapshot};
use tally_proto::storage::{LogEntry, LogId};

use super::row::ENTRY_TAG;
use crate::rocks;

const KEY_BYTES: usize = 9;
const CHECKSUM_BYTES: usize = 4;

/// An entry as it is written.
pub(super) struct Record {
    pub(super) id: LogId,
    /// The row's value.
    pub(super) bytes: Vec<u8>,
}

pub(super) fn key(index: u64) -> [u8; KEY_BYTES] {
    let mut key = [ENTRY_TAG; KEY_BYTES];
    key[1..].copy_from_slice(&index.to_be_bytes());
    key
}

/// Above every entry.
pub(super) fn end() -> [u8; 1] {
    [ENTRY_TAG + 1]
}

/// Encodes entries for writing. Each must have an id, one above the one before it.
pub(super) fn encode_all(entries: &[LogEntry]) -> io::Result<Vec<Record>> {
    let mut records: Vec<Record> = Vec::with_capacity(entries.len());
    for entry in entries {
        let id = entry
            .id
            .ok_or_else(|| invalid("an entry without an id cannot be appended".to_owned()))?;
        if let Some(previous) = records
            .last()
            .filter(|previous| previous.id.index + 1 != id.index)
        {
            return Err(invalid(format!(
                "entry {} cannot follow entry {}",
                id.index, previous.id.index
            )));
        }
        records.push(Record {
            id,
            bytes: encode(id.index, entry)?,
        });
    }
    Ok(records)
}

fn invalid(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what)
}

fn encode(index: u64, entry: &LogEntry) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(CHECKSUM_BYTES + entry.encoded_len());
    bytes.extend_from_slice(&[0; CHECKSUM_BYTES]);
    entry.encode(&mut bytes).map_err(io::Error::other)?;
    let checksum = checksum(&key(index), &bytes[CHECKSUM_BYTES..]);
    bytes[..CHECKSUM_BYTES].copy_from_slice(&checksum.to_be_bytes());
    Ok(bytes)
}

fn checksum(key: &[u8], message: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(key), message)
}

/// Checks a row and decodes it; the error says which entry is wrong and how.
pub(super) fn decode(key: &[u8], value: &[u8]) -> Result<(u64, LogEntry), String> {
    let index = key
        .strip_prefix(&[ENTRY_TAG])
        .and_then(|index| index.try_into().ok())
        .map(u64::from_be_bytes)
        .ok_or_else(|| format!("a key of the log is {key:02x?}, expected an index"))?;
    let Some((expected, message)) = value.split_first_chunk::<CHECKSUM_BYTES>() else {
        return Err(format!(
            "entry {index} has {} bytes, too few for its checksum",
            value.len()
        ));
    };
    let (found, expected) = (checksum(key, message), u32::from_be_bytes(*expected));
    if found != expected {
        return Err(format!(
            "entry {index} has checksum {found:08x}, expected {expected:08x}"
        ));
    }
    let entry = LogEntry::decode(message)
        .map_err(|error| format!("entry {index} cannot be decoded: {error}"))?;
    match entry.id {
        Some(id) if id.index == index => Ok((index, entry)),
        id => Err(format!("entry {index} says that its id is {id:?}")),
    }
}

/// Walks over the entries of a range as they stand, calling `visit` with each entry and the bytes
/// of its row until that answers `false`.
pub(super) fn visit(
    snapshot: &Snapshot<'_>,
    range: Range<u64>,
    mut visit: impl FnMut(u64, LogEntry, usize) -> Result<bool, String>,
) -> Result<(), String> {
    let from = key(range.start);
    let until = if range.end == u64::MAX {
        end().to_vec()
    } else {
        key(range.end).to_vec()
    };
    let mode = IteratorMode::From(&from, Direction::Forward);
    for row in snapshot.iterator_opt(mode, rocks::bounded_by(until)) {
        let (key, value) = row.map_err(|error| format!("the log cannot be read: {error}"))?;
        let (index, entry) = decode(&key, &value)?;
        if !visit(index, entry, value.len())? {
            break;
        }
    }
    Ok(())
}

/// Reads a range of entries that are known to stand, at least one and then as many as
/// `bytes_max` allows, and the bytes of their rows.
pub(super) fn read(
    snapshot: &Snapshot<'_>,
    range: Range<u64>,
    bytes_max: usize,
) -> Result<(Vec<LogEntry>, usize), String> {
    let mut entries = Vec::new();
    let mut bytes = 0;
    let mut expected = range.start;
    let mut full = false;
    visit(snapshot, range.clone(), |index, entry, size| {
        if index != expected {
            return Err(format!(
                "entry {expected} of the log has gone; the next one is {index}"
            ));
        }
        full = !entries.is_empty() && bytes + size > bytes_max;
        if !full {
            entries.push(entry);
            bytes += size;
            expected += 1;
        }
        Ok(!full)
    })?;
    if !full && expected != range.end {
        return Err(format!("entry {expected} of the log has gone"));
    }
    Ok((entries, bytes))
}
