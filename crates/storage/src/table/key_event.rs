//! `key_event/<revision>/<number>`: one change of one key. Written with it; removed when no revision
//! that can be read needs it any more.
//!
//! layout: [TAG][revision, u64 big-endian][number, u32 big-endian] -> tally.storage.v1.KeyEvent

use tally_model::{EventId, Revision};
pub(crate) use tally_proto::storage::KeyEvent as Stored;

pub(crate) const TAG: u8 = 13;

pub(crate) fn key(id: EventId) -> [u8; 13] {
    let mut key = [TAG; 13];
    key[1..9].copy_from_slice(&id.revision.0.to_be_bytes());
    key[9..].copy_from_slice(&id.number.to_be_bytes());
    key
}

pub(crate) fn decode_key(key: &[u8]) -> Result<EventId, String> {
    let parts = key.get(1..).and_then(<[u8]>::split_first_chunk::<8>);
    let parts = parts.and_then(|(revision, number)| Some((*revision, *number.as_array::<4>()?)));
    let (revision, number) = parts.ok_or_else(|| format!("the key {key:02x?} is no event's"))?;
    Ok(EventId {
        revision: Revision(u64::from_be_bytes(revision)),
        number: u32::from_be_bytes(number),
    })
}
