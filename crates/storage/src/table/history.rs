//! `history/<revision>`: one registration, transition or claim. Written with the command that made
//! it; lives for ever.
//!
//! layout: [TAG][revision, u64 big-endian] -> tally.storage.v1.HistoryEntry

use tally_model::Revision;
pub(crate) use tally_proto::storage::HistoryEntry as Stored;

pub(crate) const TAG: u8 = 10;

pub(crate) fn key(revision: Revision) -> [u8; 9] {
    let mut key = [TAG; 9];
    key[1..].copy_from_slice(&revision.0.to_be_bytes());
    key
}
