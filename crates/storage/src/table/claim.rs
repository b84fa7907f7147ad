//! `claim/<node>/<marker>`: who asked for a node without showing its marker. Written by refused
//! register, activate and set-state; lives for ever, in bounded number for each node.
//!
//! layout: [TAG][node id, u32 big-endian][0] for a claimant without a marker, or [TAG][node id][1]
//! [bits, u128 big-endian][time of making, u64 big-endian] -> tally.storage.v1.Claim

use tally_model::{Marker, NodeId};
pub(crate) use tally_proto::storage::Claim as Stored;

pub(crate) const TAG: u8 = 6;

/// Begins the keys of all claims for a node.
pub(crate) fn prefix(node: NodeId) -> [u8; 5] {
    let mut prefix = [TAG; 5];
    prefix[1..].copy_from_slice(&node.0.to_be_bytes());
    prefix
}

pub(crate) fn key(node: NodeId, marker: Option<Marker>) -> Vec<u8> {
    let mut key = prefix(node).to_vec();
    match marker {
        None => key.push(0),
        Some(marker) => {
            key.push(1);
            key.extend_from_slice(&marker.bits.to_be_bytes());
            key.extend_from_slice(&marker.created_unix_ms.to_be_bytes());
        }
    }
    key
}
