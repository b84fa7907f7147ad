//! `node_name/<name>`: which node has the name. Written when the node registers; lives for ever,
//! because names are not given out again.
//!
//! layout: [TAG][name, UTF-8] -> [node id, u32 big-endian]

use tally_model::{NodeId, NodeName};

pub(crate) const TAG: u8 = 5;

pub(crate) fn key(name: &NodeName) -> Vec<u8> {
    let mut key = Vec::with_capacity(1 + name.as_str().len());
    key.push(TAG);
    key.extend_from_slice(name.as_str().as_bytes());
    key
}

pub(crate) fn encode(id: NodeId) -> [u8; 4] {
    id.0.to_be_bytes()
}

pub(crate) fn decode(value: &[u8]) -> Result<NodeId, String> {
    let bytes = value
        .try_into()
        .map_err(|_| format!("found {} bytes, expected 4", value.len()))?;
    Ok(NodeId(u32::from_be_bytes(bytes)))
}
