//! The log's decoders on arbitrary bytes; see [`crate::fuzzing`].

use tally_proto::storage::{LogEntry, LogId};

use super::entry;
use super::floor::{self, Level, SLOT_BYTES};

/// Bytes of an entry's key.
const KEY_BYTES: usize = 9;

/// A slot of `FLOOR`. Its fields cover every byte, so what was read is written the same; but a slot
/// may say that no entry follows and hold one all the same.
pub(crate) fn floor_slot(bytes: &[u8]) {
    let Some((slot, _)) = bytes.split_first_chunk::<SLOT_BYTES>() else {
        return;
    };
    if let Some((number, level)) = floor::decode(slot) {
        let again = floor::decode(&floor::encode(number, level));
        assert_eq!(again, Some((number, level)));
    }
}

/// A slot with the right checksum before these bytes.
pub(crate) fn checked_floor_slot(bytes: &[u8]) {
    if let Some((rest, _)) = bytes.split_first_chunk::<{ SLOT_BYTES - 4 }>() {
        floor_slot(&[&crc32c::crc32c(rest).to_be_bytes(), &rest[..]].concat());
    }
}

pub(crate) fn floor_seed(last: LogId, vote_term: u64) -> Vec<u8> {
    let last = Some(last);
    floor::encode(9, Level { last, vote_term }).to_vec()
}

/// An entry's row: its key, and then its value.
pub(crate) fn row(bytes: &[u8]) {
    let (key, value) = bytes.split_at(bytes.len().min(KEY_BYTES));
    let Ok((index, read)) = entry::decode(key, value) else {
        return;
    };
    assert_eq!(read.id.map(|id| id.index), Some(index));
    let Ok(written) = entry::encode_all(std::slice::from_ref(&read)) else {
        panic!("what was read cannot be written: {read:?}");
    };
    let again = entry::decode(&entry::key(index), &written[0].bytes);
    assert_eq!(again, Ok((index, read)));
}

/// A row with this index, the right checksum, and the rest as its message.
pub(crate) fn checked_row(bytes: &[u8]) {
    let Some((index, message)) = bytes.split_first_chunk::<8>() else {
        return;
    };
    let key = entry::key(u64::from_be_bytes(*index));
    let checksum = crc32c::crc32c_append(crc32c::crc32c(&key), message);
    row(&[&key[..], &checksum.to_be_bytes(), message].concat());
}

/// The row of an entry that has an id.
pub(crate) fn row_seed(entry: &LogEntry) -> Option<Vec<u8>> {
    let written = entry::encode_all(std::slice::from_ref(entry)).ok()?;
    let written = written.first()?;
    Some([&entry::key(written.id.index), written.bytes.as_slice()].concat())
}
