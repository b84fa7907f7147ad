//! Nodes, their history and their claims as JSON documents. Programs rely on these names.

use serde::Serialize;
use tally_client::v1;

use crate::output::{actor_name, hex, marker_text, state_name};

#[derive(Debug, Serialize)]
pub(crate) struct NodesDocument {
    pub(crate) nodes: Vec<NodeDocument>,
}

#[derive(Debug, Serialize)]
pub(crate) struct NodeDocument {
    id: u32,
    name: String,
    state: Option<&'static str>,
    /// The bound marker, 32 hexadecimal digits, `@`, milliseconds; null until activation.
    marker: Option<String>,
    /// Revision at which the marker was bound.
    bound_revision: Option<u64>,
    incarnation: u64,
    address: String,
    location: String,
    set_by: Option<&'static str>,
    created_revision: u64,
    revision: u64,
    state_revision: u64,
    state_unix_ms: u64,
    claims_dropped: u64,
}

impl From<&v1::Node> for NodeDocument {
    fn from(node: &v1::Node) -> Self {
        let binding = node.binding.as_ref();
        Self {
            id: node.id,
            name: node.name.clone(),
            state: state_name(node.state),
            marker: binding
                .and_then(|binding| binding.marker.as_ref())
                .map(marker_text),
            bound_revision: binding.map(|binding| binding.since),
            incarnation: node.incarnation,
            address: node.address.clone(),
            location: node.location.clone(),
            set_by: actor_name(node.set_by()),
            created_revision: node.created_revision,
            revision: node.revision,
            state_revision: node.state_revision,
            state_unix_ms: node.state_unix_ms,
            claims_dropped: node.claims_dropped,
        }
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct HistoryDocument {
    entries: Vec<EntryDocument>,
}

impl From<&[v1::HistoryEntry]> for HistoryDocument {
    fn from(entries: &[v1::HistoryEntry]) -> Self {
        Self {
            entries: entries.iter().map(EntryDocument::from).collect(),
        }
    }
}

#[derive(Debug, Serialize)]
struct EntryDocument {
    revision: u64,
    unix_ms: u64,
    node: u32,
    actor: Option<&'static str>,
    session: u64,
    sequence: u64,
    #[serde(flatten)]
    event: EventDocument,
    reason: String,
    hash: String,
}

#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum EventDocument {
    Registered {
        incarnation: u64,
    },
    Transitioned {
        from: Option<&'static str>,
        to: Option<&'static str>,
        marker: Option<String>,
        forced: bool,
    },
    Claimed {
        marker: Option<String>,
    },
    Unknown,
}

impl From<&v1::HistoryEntry> for EntryDocument {
    fn from(entry: &v1::HistoryEntry) -> Self {
        use v1::history_entry::Event;
        let event = match &entry.event {
            Some(Event::Registered(event)) => EventDocument::Registered {
                incarnation: event.incarnation,
            },
            Some(Event::Transitioned(event)) => EventDocument::Transitioned {
                from: state_name(event.from),
                to: state_name(event.to),
                marker: event.marker.as_ref().map(marker_text),
                forced: event.forced,
            },
            Some(Event::Claimed(event)) => EventDocument::Claimed {
                marker: event.marker.as_ref().map(marker_text),
            },
            None => EventDocument::Unknown,
        };
        Self {
            revision: entry.revision,
            unix_ms: entry.unix_ms,
            node: entry.node,
            actor: actor_name(entry.actor()),
            session: entry.session,
            sequence: entry.sequence,
            event,
            reason: entry.reason.clone(),
            hash: hex(&entry.hash),
        }
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct ClaimsDocument {
    pub(crate) claims: Vec<ClaimDocument>,
}

#[derive(Debug, Serialize)]
pub(crate) struct ClaimDocument {
    node: u32,
    /// Null when the claimant showed none.
    marker: Option<String>,
    session: u64,
    sequence: u64,
    first_revision: u64,
    last_revision: u64,
    last_unix_ms: u64,
    attempts: u64,
}

impl From<&v1::Claim> for ClaimDocument {
    fn from(claim: &v1::Claim) -> Self {
        Self {
            node: claim.node,
            marker: claim.marker.as_ref().map(marker_text),
            session: claim.session,
            sequence: claim.sequence,
            first_revision: claim.first_revision,
            last_revision: claim.last_revision,
            last_unix_ms: claim.last_unix_ms,
            attempts: claim.attempts,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_keeps_the_names_that_programs_read() {
        let node = v1::Node {
            id: 1,
            name: "ls1".to_owned(),
            state: v1::StorageState::ReadWrite.into(),
            binding: Some(v1::Binding {
                marker: Some(v1::Marker {
                    bits: vec![0x11; 16],
                    created_unix_ms: 5,
                }),
                since: 3,
            }),
            ..Default::default()
        };
        let document = serde_json::json!(NodeDocument::from(&node));
        assert_eq!(document["id"], 1);
        assert_eq!(document["state"], "read-write");
        assert_eq!(document["marker"], format!("{}@5", "11".repeat(16)));
        assert_eq!(document["bound_revision"], 3);
        assert_eq!(document["set_by"], serde_json::Value::Null);
    }

    #[test]
    fn an_entry_names_its_event_beside_the_rest() {
        let entry = v1::HistoryEntry {
            revision: 2,
            event: Some(v1::history_entry::Event::Transitioned(v1::Transitioned {
                from: v1::StorageState::Provisioning.into(),
                to: v1::StorageState::ReadWrite.into(),
                marker: None,
                forced: false,
            })),
            ..Default::default()
        };
        let document = serde_json::json!(HistoryDocument::from([entry].as_slice()));
        let entry = &document["entries"][0];
        assert_eq!(entry["event"], "transitioned");
        assert_eq!(entry["from"], "provisioning");
        assert_eq!(entry["to"], "read-write");
        assert_eq!(entry["revision"], 2);
    }
}
