//! Rows of the log's RocksDB that stand beside the entries. One byte of tag begins every key.
//!
//! | tag | row | value | lives |
//! |---|---|---|---|
//! | 1 | an entry, see `entry` | | until truncated or purged |
//! | 2 | the vote | tally.storage.v1.Vote | for ever |
//! | 3 | how far the log is committed | tally.storage.v1.LogId | for ever |
//! | 4 | how far the log is purged | tally.storage.v1.LogId | for ever |
//! | 5 | index at which the log begins, unless it follows the purged entry | u64, big-endian | for ever |

use prost::Message;
use rocksdb::DB;

pub(super) const ENTRY_TAG: u8 = 1;
pub(super) const VOTE: [u8; 1] = [2];
pub(super) const COMMITTED: [u8; 1] = [3];
pub(super) const PURGED: [u8; 1] = [4];
pub(super) const BEGINS: [u8; 1] = [5];

/// Reads a row that holds one message. The error says what is wrong with it.
pub(super) fn message<M: Message + Default>(
    db: &DB,
    key: [u8; 1],
    what: &str,
) -> Result<Option<M>, String> {
    let Some(bytes) = db.get(key).map_err(|error| format!("{what}: {error}"))? else {
        return Ok(None);
    };
    M::decode(bytes.as_slice())
        .map(Some)
        .map_err(|error| format!("{what} cannot be decoded: {error}"))
}

/// Reads the row that says where the log begins.
pub(super) fn begins(db: &DB) -> Result<Option<u64>, String> {
    let Some(bytes) = db
        .get(BEGINS)
        .map_err(|error| format!("beginning of the log: {error}"))?
    else {
        return Ok(None);
    };
    let bytes: [u8; 8] = bytes.as_slice().try_into().map_err(|_| {
        format!(
            "beginning of the log: found {} bytes, expected 8",
            bytes.len()
        )
    })?;
    Ok(Some(u64::from_be_bytes(bytes)))
}
