//! `session/<id>`: one requester's numbered requests. Written when it is opened and used; removed
//! when it ends.
//!
//! layout: [TAG][session id, u64 big-endian] -> tally.storage.v1.Session

use tally_model::SessionId;
pub(crate) use tally_proto::storage::Session as Stored;

pub(crate) const TAG: u8 = 7;

pub(crate) fn key(id: SessionId) -> [u8; 9] {
    let mut key = [TAG; 9];
    key[1..].copy_from_slice(&id.0.to_be_bytes());
    key
}
