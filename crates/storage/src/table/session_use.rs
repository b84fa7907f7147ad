//! `session_use/<time>/<id>`: sessions in the order of their last use, the one unused for longest
//! first. Kept in step with `session`.
//!
//! layout: [TAG][time of last use, milliseconds, u64 big-endian][session id, u64 big-endian] -> []

use tally_model::{Session, SessionId};

use super::last_u64;

pub(crate) const TAG: u8 = 8;

pub(crate) fn key(session: &Session) -> [u8; 17] {
    let mut key = [TAG; 17];
    key[1..9].copy_from_slice(&session.used_unix_ms.to_be_bytes());
    key[9..].copy_from_slice(&session.id.0.to_be_bytes());
    key
}

pub(crate) fn decode_key(key: &[u8]) -> Result<SessionId, String> {
    last_u64(key).map(SessionId)
}
