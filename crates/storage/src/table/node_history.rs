//! `node_history/<node>/<revision>`: which lines of the history are about a node. Written with the
//! line; lives for ever.
//!
//! layout: [TAG][node id, u32 big-endian][revision, u64 big-endian] -> []

use tally_model::{NodeId, Revision};

use super::last_u64;

pub(crate) const TAG: u8 = 11;

pub(crate) fn key(node: NodeId, revision: Revision) -> [u8; 13] {
    let mut key = [TAG; 13];
    key[1..5].copy_from_slice(&node.0.to_be_bytes());
    key[5..].copy_from_slice(&revision.0.to_be_bytes());
    key
}

pub(crate) fn decode_key(key: &[u8]) -> Result<Revision, String> {
    last_u64(key).map(Revision)
}
