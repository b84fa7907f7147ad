//! `node/<id>`: one log server. Written by register, activate, set-state; lives for ever: a removed
//! node stays as a tombstone, so that its id is never given out again.
//!
//! layout: [TAG][node id, u32 big-endian] -> tally.storage.v1.Node

use tally_model::NodeId;
pub(crate) use tally_proto::storage::Node as Stored;

pub(crate) const TAG: u8 = 4;

pub(crate) fn key(id: NodeId) -> [u8; 5] {
    let mut key = [TAG; 5];
    key[1..].copy_from_slice(&id.0.to_be_bytes());
    key
}
