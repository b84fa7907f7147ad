//! `outcome/<session>/<sequence>`: what became of one request. Written in the batch of its effect;
//! removed when the requester acknowledges it or its session ends.
//!
//! layout: [TAG][session id, u64 big-endian][sequence, u64 big-endian]
//! -> tally.storage.v1.StoredOutcome

use tally_model::{Sequence, SessionId};
pub(crate) use tally_proto::storage::StoredOutcome as Stored;

use super::last_u64;

pub(crate) const TAG: u8 = 9;

pub(crate) fn key(session: SessionId, sequence: Sequence) -> [u8; 17] {
    let mut key = [TAG; 17];
    key[1..9].copy_from_slice(&session.0.to_be_bytes());
    key[9..].copy_from_slice(&sequence.to_be_bytes());
    key
}

/// Begins every row of this session, and of no other one.
pub(crate) fn prefix(session: SessionId) -> [u8; 9] {
    let mut prefix = [TAG; 9];
    prefix[1..].copy_from_slice(&session.0.to_be_bytes());
    prefix
}

pub(crate) fn decode_key(key: &[u8]) -> Result<Sequence, String> {
    last_u64(key)
}
