//! Node records and claims as keys that every client may read and watch, and nobody may write.
//!
//! `\x00tally/nodes/5` holds node 5, `\x00tally/nodes/5/claims/7f3a…@1700000000000` a claim for it, both
//! as JSON with the names that `tally node show` and `tally node claims` print.

use bytes::Bytes;
use serde::Serialize;

use crate::claim::Claim;
use crate::identifier::{Marker, NodeId};
use crate::keys::KeyRange;
use crate::node::Node;

/// What all of these keys begin with. Lies below [`crate::keys::RESERVED_PREFIX`].
pub const NODES_PREFIX: &[u8] = b"\x00tally/nodes/";

/// The last part of a claim's key when the claimant showed no marker.
const NO_MARKER: &str = "none";

/// The key of a node's record.
pub fn node_key(node: NodeId) -> Bytes {
    [NODES_PREFIX, node.to_string().as_bytes()].concat().into()
}

/// The key of a claim for a node.
pub fn claim_key(node: NodeId, marker: Option<Marker>) -> Bytes {
    let marker = marker.map_or_else(|| NO_MARKER.to_owned(), |marker| marker.to_string());
    let place = format!("{node}/claims/{marker}");
    [NODES_PREFIX, place.as_bytes()].concat().into()
}

/// The keys of one node and of the claims for it; those of every node for `None`.
pub fn keys_of(node: Option<NodeId>) -> KeyRange {
    // A slash sorts right before the digit 0: node 50 comes after everything of node 5.
    match node {
        Some(node) => {
            let from = node_key(node);
            let until = [&from[..], b"0"].concat();
            KeyRange::Between(from, until.into())
        }
        None => KeyRange::Between(
            Bytes::from_static(NODES_PREFIX),
            Bytes::from_static(b"\x00tally/nodes0"),
        ),
    }
}

#[derive(Serialize)]
struct NodeRecord<'a> {
    id: u32,
    name: &'a str,
    state: &'static str,
    marker: Option<String>,
    bound_revision: Option<u64>,
    incarnation: u64,
    address: &'a str,
    location: &'a str,
    set_by: &'static str,
    created_revision: u64,
    revision: u64,
    state_revision: u64,
    state_unix_ms: u64,
    claims_dropped: u64,
}

#[derive(Serialize)]
struct ClaimRecord {
    node: u32,
    marker: Option<String>,
    session: u64,
    sequence: u64,
    first_revision: u64,
    last_revision: u64,
    last_unix_ms: u64,
    attempts: u64,
}

/// What a node's key holds.
pub(crate) fn node_value(node: &Node) -> Bytes {
    json(&NodeRecord {
        id: node.id.0,
        name: node.name.as_str(),
        state: node.storage_state.as_str(),
        marker: node.binding.map(|bound| bound.marker.to_string()),
        bound_revision: node.binding.map(|bound| bound.since.0),
        incarnation: node.incarnation.0,
        address: &node.address,
        location: node.location.as_str(),
        set_by: node.set_by.as_str(),
        created_revision: node.created_revision.0,
        revision: node.revision.0,
        state_revision: node.state_revision.0,
        state_unix_ms: node.state_unix_ms,
        claims_dropped: node.claims_dropped,
    })
}

/// What a claim's key holds.
pub(crate) fn claim_value(claim: &Claim) -> Bytes {
    json(&ClaimRecord {
        node: claim.node.0,
        marker: claim.marker.map(|marker| marker.to_string()),
        session: claim.tag.session.0,
        sequence: claim.tag.sequence,
        first_revision: claim.first_revision.0,
        last_revision: claim.last_revision.0,
        last_unix_ms: claim.last_unix_ms,
        attempts: claim.attempts,
    })
}

/// Fields in their order, no blanks: the same bytes on every member.
fn json(record: &impl Serialize) -> Bytes {
    // Our records have string keys and no fallible serializers.
    serde_json::to_vec(record).unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keys_of_a_node_are_its_own_and_no_other_nodes() {
        let five = keys_of(Some(NodeId(5)));
        let marker = Marker {
            bits: 7,
            created_unix_ms: 1_700_000_000_000,
        };
        assert!(five.contains(&node_key(NodeId(5))));
        assert!(five.contains(&claim_key(NodeId(5), None)));
        assert!(five.contains(&claim_key(NodeId(5), Some(marker))));
        for other in [4, 6, 50, 51, 500, 59] {
            assert!(!five.contains(&node_key(NodeId(other))), "{other}");
            assert!(!five.contains(&claim_key(NodeId(other), None)), "{other}");
            assert!(keys_of(None).contains(&claim_key(NodeId(other), None)));
        }
    }

    #[test]
    fn every_record_lies_below_the_reserved_prefix() {
        assert!(keys_of(None).is_reserved());
        assert!(keys_of(Some(NodeId(9))).is_reserved());
    }
}
