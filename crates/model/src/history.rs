//! The history: every registration, transition and claim, each hashed over the one before.

use sha2::{Digest, Sha256};

use crate::identifier::{Incarnation, Marker, NodeId, Revision, Tag};
use crate::node::SetBy;
use crate::storage_state::StorageState;

/// One line of the history. There is at most one for each revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryEntry {
    pub revision: Revision,
    pub unix_ms: u64,
    pub node: NodeId,
    pub actor: SetBy,
    pub tag: Tag,
    pub event: Event,
    pub reason: String,
    /// SHA-256 over the previous entry's hash and this entry's other fields.
    pub hash: [u8; 32],
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Registered {
        incarnation: Incarnation,
    },
    Transitioned {
        from: StorageState,
        to: StorageState,
        marker: Option<Marker>,
        forced: bool,
    },
    Claimed {
        marker: Option<Marker>,
    },
}

impl HistoryEntry {
    /// The same entry with its hash computed over `previous` and every other field. Each field is
    /// of fixed width or preceded by its length, so that no two entries have the same bytes.
    pub(crate) fn chained_to(self, previous: &[u8; 32]) -> Self {
        let hash = self.hash_after(previous);
        Self { hash, ..self }
    }

    /// The hash that this entry must have when `previous` is the hash of the entry before it.
    pub fn hash_after(&self, previous: &[u8; 32]) -> [u8; 32] {
        let mut hasher = Sha256::new();
        hasher.update(previous);
        hasher.update(self.revision.0.to_be_bytes());
        hasher.update(self.unix_ms.to_be_bytes());
        hasher.update(self.node.0.to_be_bytes());
        hasher.update([match self.actor {
            SetBy::Node => 1,
            SetBy::Operator => 2,
        }]);
        hasher.update(self.tag.session.0.to_be_bytes());
        hasher.update(self.tag.sequence.to_be_bytes());
        match &self.event {
            Event::Registered { incarnation } => {
                hasher.update([1]);
                hasher.update(incarnation.0.to_be_bytes());
            }
            Event::Transitioned {
                from,
                to,
                marker,
                forced,
            } => {
                hasher.update([2, u8::from(*forced)]);
                hash_text(&mut hasher, from.as_str());
                hash_text(&mut hasher, to.as_str());
                hash_marker(&mut hasher, *marker);
            }
            Event::Claimed { marker } => {
                hasher.update([3]);
                hash_marker(&mut hasher, *marker);
            }
        }
        hash_text(&mut hasher, &self.reason);
        hasher.finalize().into()
    }
}

fn hash_text(hasher: &mut Sha256, text: &str) {
    hasher.update((text.len() as u64).to_be_bytes());
    hasher.update(text.as_bytes());
}

fn hash_marker(hasher: &mut Sha256, marker: Option<Marker>) {
    match marker {
        None => hasher.update([0]),
        Some(marker) => {
            hasher.update([1]);
            hasher.update(marker.bits.to_be_bytes());
            hasher.update(marker.created_unix_ms.to_be_bytes());
        }
    }
}
