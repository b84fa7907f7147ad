//! Rows of the replicated state.

use tally_model::{
    Binding, Claim, Event, EventId, Globals, HistoryEntry, Incarnation, KeyEvent, Lease, LeaseId,
    Location, Marker, Node, NodeId, NodeName, Revision, Session, SessionId, Tag,
};

use super::identifier::{cluster_id, hash_32, set_by};
use super::{DecodeError, required};
use crate::storage;
use storage::history_entry::Event as EventMessage;

impl From<&Node> for storage::Node {
    fn from(node: &Node) -> Self {
        Self {
            id: node.id.0,
            name: node.name.as_str().to_owned(),
            address: node.address.clone(),
            location: node.location.as_str().to_owned(),
            storage_state: storage::StorageState::from(node.storage_state).into(),
            incarnation: node.incarnation.0,
            binding: node.binding.map(|bound| storage::Binding {
                marker: Some(bound.marker.into()),
                since: bound.since.0,
            }),
            set_by: storage::SetBy::from(node.set_by).into(),
            created_revision: node.created_revision.0,
            revision: node.revision.0,
            state_revision: node.state_revision.0,
            state_unix_ms: node.state_unix_ms,
            claims_dropped: node.claims_dropped,
        }
    }
}

impl TryFrom<storage::Node> for Node {
    type Error = DecodeError;

    fn try_from(node: storage::Node) -> Result<Self, DecodeError> {
        let binding = match node.binding {
            None => None,
            Some(bound) => Some(Binding {
                marker: required("node.binding.marker", bound.marker)?.try_into()?,
                since: Revision(bound.since),
            }),
        };
        Ok(Self {
            id: NodeId(node.id),
            name: NodeName::new(node.name)?,
            address: node.address,
            location: Location::new(node.location)?,
            storage_state: storage::StorageState::decode_required(node.storage_state)?,
            incarnation: Incarnation(node.incarnation),
            binding,
            set_by: set_by(node.set_by)?,
            created_revision: Revision(node.created_revision),
            revision: Revision(node.revision),
            state_revision: Revision(node.state_revision),
            state_unix_ms: node.state_unix_ms,
            claims_dropped: node.claims_dropped,
        })
    }
}

impl From<&Claim> for storage::Claim {
    fn from(claim: &Claim) -> Self {
        Self {
            node: claim.node.0,
            marker: claim.marker.map(Into::into),
            session: claim.tag.session.0,
            sequence: claim.tag.sequence,
            first_revision: claim.first_revision.0,
            last_revision: claim.last_revision.0,
            last_unix_ms: claim.last_unix_ms,
            attempts: claim.attempts,
        }
    }
}

impl TryFrom<storage::Claim> for Claim {
    type Error = DecodeError;

    fn try_from(claim: storage::Claim) -> Result<Self, DecodeError> {
        Ok(Self {
            node: NodeId(claim.node),
            marker: claim.marker.map(Marker::try_from).transpose()?,
            tag: Tag {
                session: SessionId(claim.session),
                sequence: claim.sequence,
            },
            first_revision: Revision(claim.first_revision),
            last_revision: Revision(claim.last_revision),
            last_unix_ms: claim.last_unix_ms,
            attempts: claim.attempts,
        })
    }
}

impl From<&Session> for storage::Session {
    fn from(session: &Session) -> Self {
        Self {
            id: session.id.0,
            marker: Some(session.marker.into()),
            opened_unix_ms: session.opened_unix_ms,
            used_unix_ms: session.used_unix_ms,
            acknowledged: session.acknowledged,
            outcomes_held: session.outcomes_held,
        }
    }
}

impl TryFrom<storage::Session> for Session {
    type Error = DecodeError;

    fn try_from(session: storage::Session) -> Result<Self, DecodeError> {
        Ok(Self {
            id: SessionId(session.id),
            marker: required("session.marker", session.marker)?.try_into()?,
            opened_unix_ms: session.opened_unix_ms,
            used_unix_ms: session.used_unix_ms,
            acknowledged: session.acknowledged,
            outcomes_held: session.outcomes_held,
        })
    }
}

impl From<&HistoryEntry> for storage::HistoryEntry {
    fn from(entry: &HistoryEntry) -> Self {
        let event = match &entry.event {
            Event::Registered { incarnation } => EventMessage::Registered(storage::Registered {
                incarnation: incarnation.0,
            }),
            Event::Transitioned {
                from,
                to,
                marker,
                forced,
            } => EventMessage::Transitioned(storage::Transitioned {
                from: storage::StorageState::from(*from).into(),
                to: storage::StorageState::from(*to).into(),
                marker: marker.map(Into::into),
                forced: *forced,
            }),
            Event::Claimed { marker } => EventMessage::Claimed(storage::Claimed {
                marker: marker.map(Into::into),
            }),
        };
        Self {
            revision: entry.revision.0,
            unix_ms: entry.unix_ms,
            node: entry.node.0,
            actor: storage::SetBy::from(entry.actor).into(),
            session: entry.tag.session.0,
            sequence: entry.tag.sequence,
            event: Some(event),
            reason: entry.reason.clone(),
            hash: entry.hash.to_vec(),
        }
    }
}

impl TryFrom<storage::HistoryEntry> for HistoryEntry {
    type Error = DecodeError;

    fn try_from(entry: storage::HistoryEntry) -> Result<Self, DecodeError> {
        let event = match required("history.event", entry.event)? {
            EventMessage::Registered(registered) => Event::Registered {
                incarnation: Incarnation(registered.incarnation),
            },
            EventMessage::Transitioned(transitioned) => Event::Transitioned {
                from: storage::StorageState::decode_required(transitioned.from)?,
                to: storage::StorageState::decode_required(transitioned.to)?,
                marker: transitioned.marker.map(Marker::try_from).transpose()?,
                forced: transitioned.forced,
            },
            EventMessage::Claimed(claimed) => Event::Claimed {
                marker: claimed.marker.map(Marker::try_from).transpose()?,
            },
        };
        Ok(Self {
            revision: Revision(entry.revision),
            unix_ms: entry.unix_ms,
            node: NodeId(entry.node),
            actor: set_by(entry.actor)?,
            tag: Tag {
                session: SessionId(entry.session),
                sequence: entry.sequence,
            },
            event,
            reason: entry.reason,
            hash: hash_32("history.hash", &entry.hash)?,
        })
    }
}

impl From<&Globals> for storage::Globals {
    fn from(globals: &Globals) -> Self {
        let founded = globals.founded.as_ref();
        Self {
            cluster_id: founded
                .map(|(cluster, _)| cluster.0.to_be_bytes().to_vec())
                .unwrap_or_default(),
            settings: founded.map(|(_, settings)| settings.into()),
            revision: globals.revision.0,
            unix_ms: globals.unix_ms,
            last_node: globals.last_node.0,
            sessions: globals.sessions,
            history_hash: globals.history_hash.to_vec(),
            compacted: globals.compacted.0,
            reclaimed_revision: globals.reclaimed.revision.0,
            reclaimed_number: globals.reclaimed.number,
            leases: globals.leases,
            lease_clock_ms: globals.lease_clock_ms,
            lease_term: globals.lease_term,
        }
    }
}

impl TryFrom<storage::Globals> for Globals {
    type Error = DecodeError;

    fn try_from(globals: storage::Globals) -> Result<Self, DecodeError> {
        let founded = match cluster_id(&globals.cluster_id)? {
            None => None,
            Some(cluster) => Some((
                cluster,
                required("globals.settings", globals.settings)?.try_into()?,
            )),
        };
        Ok(Self {
            founded,
            revision: Revision(globals.revision),
            unix_ms: globals.unix_ms,
            last_node: NodeId(globals.last_node),
            sessions: globals.sessions,
            history_hash: hash_32("globals.history_hash", &globals.history_hash)?,
            compacted: Revision(globals.compacted),
            reclaimed: EventId {
                revision: Revision(globals.reclaimed_revision),
                number: globals.reclaimed_number,
            },
            leases: globals.leases,
            lease_clock_ms: globals.lease_clock_ms,
            lease_term: globals.lease_term,
        })
    }
}

impl From<&KeyEvent> for storage::KeyEvent {
    fn from(event: &KeyEvent) -> Self {
        use storage::key_event::Kind;
        let kind = match event {
            KeyEvent::Put(made) => Kind::Put(made.into()),
            KeyEvent::Deleted { key } => Kind::Deleted(key.clone()),
        };
        Self { kind: Some(kind) }
    }
}

impl TryFrom<storage::KeyEvent> for KeyEvent {
    type Error = DecodeError;

    fn try_from(event: storage::KeyEvent) -> Result<Self, DecodeError> {
        use storage::key_event::Kind;
        Ok(match required("key_event.kind", event.kind)? {
            Kind::Put(made) => Self::Put(made.try_into()?),
            Kind::Deleted(key) => Self::Deleted { key },
        })
    }
}

impl From<&Lease> for storage::Lease {
    fn from(lease: &Lease) -> Self {
        Self {
            id: lease.id.0,
            ttl_s: lease.ttl_s,
            ends_ms: lease.ends_ms,
        }
    }
}

impl TryFrom<storage::Lease> for Lease {
    type Error = DecodeError;

    fn try_from(lease: storage::Lease) -> Result<Self, DecodeError> {
        if lease.id == 0 {
            return Err(DecodeError::missing("lease.id"));
        }
        Ok(Self {
            id: LeaseId(lease.id),
            ttl_s: lease.ttl_s,
            ends_ms: lease.ends_ms,
        })
    }
}
