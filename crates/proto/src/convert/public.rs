//! The model as clients see it.

use std::collections::HashMap;

use tally_model::{
    Alarm, Answer, Claim, Effect, Event, HistoryEntry, Node, Outcome, Refusal, SetBy, StorageState,
};

use crate::v1;

impl From<&Answer> for v1::Answer {
    fn from(answer: &Answer) -> Self {
        let outcome = match &answer.outcome {
            Outcome::Applied { revision, effect } => v1::answer::Outcome::Applied(v1::Applied {
                revision: revision.0,
                effect: Some(effect.into()),
            }),
            Outcome::Replayed { since, effect } => v1::answer::Outcome::Replayed(v1::Replayed {
                since: since.0,
                effect: Some(effect.into()),
            }),
            Outcome::Refused(refusal) => v1::answer::Outcome::Refused(refusal.into()),
        };
        Self {
            outcome: Some(outcome),
            repeat: answer.repeat,
            now: answer
                .now
                .map_or(v1::StorageState::Unspecified, Into::into)
                .into(),
            revision: answer.revision.0,
        }
    }
}

impl From<&Refusal> for v1::Refused {
    fn from(refusal: &Refusal) -> Self {
        Self {
            code: refusal.code().to_owned(),
            found: refusal.to_string(),
            details: details(refusal),
        }
    }
}

/// Particulars by name, and under `next` the command that would resolve the refusal.
fn details(refusal: &Refusal) -> HashMap<String, String> {
    let mut details = HashMap::new();
    let mut put = |key: &str, value: String| {
        details.insert(key.to_owned(), value);
    };
    if let Some(node) = refusal.node() {
        put("node", node.to_string());
    }
    if let Some(next) = next(refusal) {
        put("next", next);
    }
    match refusal {
        Refusal::SessionExpired { session } | Refusal::SessionMarkerMismatch { session } => {
            put("session", session.to_string());
        }
        Refusal::AlreadyAcknowledged { acknowledged } => {
            put("acknowledged", acknowledged.to_string())
        }
        Refusal::TooManyUnacknowledged { held, allowed } => {
            put("held", held.to_string());
            put("allowed", allowed.to_string());
        }
        Refusal::MarkerMismatch {
            stored, offered, ..
        } => {
            put("stored", stored.short());
            put("offered", offered.short());
        }
        Refusal::MarkerMissing { stored, .. } => put("stored", stored.short()),
        Refusal::StaleIncarnation {
            current, offered, ..
        } => {
            put("current", current.to_string());
            put("offered", offered.to_string());
        }
        Refusal::NotProvisioning { state, .. } | Refusal::NotSetByNode { state, .. } => {
            put("state", state.to_string());
        }
        Refusal::NameRemoved { name, .. } | Refusal::ForceNotConfirmed { name, .. } => {
            put("name", name.to_string());
        }
        Refusal::TransitionNotAllowed {
            from, to, allowed, ..
        } => {
            put("from", from.to_string());
            put("to", to.to_string());
            let allowed: Vec<_> = allowed.iter().map(|state| state.as_str()).collect();
            put("allowed", allowed.join(", "));
        }
        Refusal::RevisionMismatch {
            current, expected, ..
        } => {
            put("current", current.0.to_string());
            if let Some(expected) = expected {
                put("expected", expected.0.to_string());
            }
        }
        Refusal::ReplicationUnsatisfied {
            needed, writable, ..
        } => {
            put("needed", needed.to_string());
            put("writable", writable.to_string());
        }
        Refusal::AlreadyFounded
        | Refusal::NotFounded
        | Refusal::TagExpected { .. }
        | Refusal::RequestReused { .. }
        | Refusal::Abandoned
        | Refusal::UnknownNode { .. }
        | Refusal::MarkerNotBound { .. }
        | Refusal::KeyNotFound
        | Refusal::KeyReserved
        | Refusal::TooMuchAtOnce => {}
        Refusal::LeaseNotFound { lease } | Refusal::LeaseExists { lease } => {
            put("lease", lease.to_string());
        }
        Refusal::LeaseTimeMoved { term, now_ms } => {
            put("term", term.to_string());
            put("now_ms", now_ms.to_string());
        }
        Refusal::TooManyLeases { held } => put("held", held.to_string()),
        Refusal::RevisionCompacted { asked, compacted } => {
            put("asked", asked.0.to_string());
            put("compacted", compacted.0.to_string());
        }
        Refusal::RevisionInFuture { asked, current } => {
            put("asked", asked.0.to_string());
            put("current", current.0.to_string());
        }
    }
    details
}

/// The command that would resolve the refusal, where there is one.
fn next(refusal: &Refusal) -> Option<String> {
    Some(match refusal {
        Refusal::NotFounded => "tally cluster status".to_owned(),
        Refusal::UnknownNode { .. } => "tally node list".to_owned(),
        Refusal::MarkerMismatch { node, .. } => format!("tally node claims {node}"),
        Refusal::MarkerMissing { node, .. } => {
            format!("mount the old data directory, or: tally node set-state {node} data-loss")
        }
        Refusal::StaleIncarnation { node, .. } | Refusal::NotProvisioning { node, .. } => {
            format!("tally node history {node}")
        }
        Refusal::RevisionMismatch { node, .. } => format!("tally node show {node}"),
        Refusal::NotSetByNode { node, .. } => format!("tally node set-state {node} read-write"),
        // No force helps here.
        Refusal::TransitionNotAllowed { node, from, to, .. }
            if from == to || *from == StorageState::Removed =>
        {
            format!("tally node show {node}")
        }
        Refusal::TransitionNotAllowed { node, to, .. } => {
            format!("tally node set-state {node} {to} --force --confirm NAME --reason TEXT")
        }
        Refusal::ForceNotConfirmed { name, .. } => {
            format!("--force --confirm {name} --reason TEXT")
        }
        Refusal::ReplicationUnsatisfied { .. } => {
            "bring another node back first: tally node set-state NAME read-write".to_owned()
        }
        Refusal::NameRemoved { .. } => "choose another name".to_owned(),
        Refusal::AlreadyFounded
        | Refusal::TagExpected { .. }
        | Refusal::SessionExpired { .. }
        | Refusal::RequestReused { .. }
        | Refusal::AlreadyAcknowledged { .. }
        | Refusal::TooManyUnacknowledged { .. }
        | Refusal::SessionMarkerMismatch { .. }
        | Refusal::Abandoned
        | Refusal::MarkerNotBound { .. }
        | Refusal::KeyNotFound
        | Refusal::LeaseNotFound { .. }
        | Refusal::RevisionCompacted { .. }
        | Refusal::RevisionInFuture { .. }
        | Refusal::KeyReserved
        | Refusal::LeaseExists { .. }
        | Refusal::LeaseTimeMoved { .. }
        | Refusal::TooManyLeases { .. }
        | Refusal::TooMuchAtOnce => return None,
    })
}

impl From<&Effect> for v1::Effect {
    fn from(effect: &Effect) -> Self {
        use v1::effect::Kind;
        let kind = match effect {
            Effect::Founded => Kind::Founded(v1::Founded {}),
            Effect::SessionOpened { session } => {
                Kind::SessionOpened(v1::SessionOpened { session: session.0 })
            }
            Effect::SessionClosed => Kind::SessionClosed(v1::SessionClosed {}),
            Effect::NodeRegistered { node, incarnation } => {
                Kind::NodeRegistered(v1::NodeRegistered {
                    node: node.0,
                    incarnation: incarnation.0,
                })
            }
            Effect::NodeActivated { node, incarnation } => Kind::NodeActivated(v1::NodeActivated {
                node: node.0,
                incarnation: incarnation.0,
            }),
            Effect::StorageStateSet {
                node,
                from,
                to,
                alarms,
            } => Kind::StorageStateSet(v1::StorageStateSet {
                node: node.0,
                from: v1::StorageState::from(*from).into(),
                to: v1::StorageState::from(*to).into(),
                alarms: alarms.iter().map(alarm).collect(),
            }),
            Effect::Keys(answer) => Kind::Keys(answer.into()),
            Effect::LeaseGranted { lease, ttl_s } => Kind::LeaseGranted(v1::LeaseHeld {
                lease: lease.0,
                ttl_s: *ttl_s,
            }),
            Effect::LeaseRevoked => Kind::LeaseRevoked(v1::LeaseRevoked {}),
            Effect::LeaseRenewed { lease, ttl_s } => Kind::LeaseRenewed(v1::LeaseHeld {
                lease: lease.0,
                ttl_s: *ttl_s,
            }),
            Effect::LeaseTimePassed { all } => {
                Kind::LeaseTimePassed(v1::LeaseTimePassed { all: *all })
            }
            Effect::Compacted => Kind::Compacted(v1::Compacted {}),
            Effect::VersionsReclaimed { all } => {
                Kind::VersionsReclaimed(v1::VersionsReclaimed { all: *all })
            }
        };
        Self { kind: Some(kind) }
    }
}

fn alarm(alarm: &Alarm) -> v1::Alarm {
    let kind = match *alarm {
        Alarm::ReplicationUnsatisfied { needed, writable } => {
            v1::alarm::Kind::ReplicationUnsatisfied(v1::ReplicationUnsatisfied { needed, writable })
        }
    };
    v1::Alarm { kind: Some(kind) }
}

fn actor(by: SetBy) -> i32 {
    match by {
        SetBy::Node => v1::Actor::Node.into(),
        SetBy::Operator => v1::Actor::Operator.into(),
    }
}

impl From<&Node> for v1::Node {
    fn from(node: &Node) -> Self {
        Self {
            id: node.id.0,
            name: node.name.as_str().to_owned(),
            address: node.address.clone(),
            location: node.location.as_str().to_owned(),
            state: v1::StorageState::from(node.storage_state).into(),
            incarnation: node.incarnation.0,
            binding: node.binding.map(|bound| v1::Binding {
                marker: Some(bound.marker.into()),
                since: bound.since.0,
            }),
            set_by: actor(node.set_by),
            created_revision: node.created_revision.0,
            revision: node.revision.0,
            state_revision: node.state_revision.0,
            state_unix_ms: node.state_unix_ms,
            claims_dropped: node.claims_dropped,
        }
    }
}

impl From<&Claim> for v1::Claim {
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

impl From<&HistoryEntry> for v1::HistoryEntry {
    fn from(entry: &HistoryEntry) -> Self {
        use v1::history_entry::Event as Message;
        let event = match &entry.event {
            Event::Registered { incarnation } => Message::Registered(v1::Registered {
                incarnation: incarnation.0,
            }),
            Event::Transitioned {
                from,
                to,
                marker,
                forced,
            } => Message::Transitioned(v1::Transitioned {
                from: v1::StorageState::from(*from).into(),
                to: v1::StorageState::from(*to).into(),
                marker: marker.map(Into::into),
                forced: *forced,
            }),
            Event::Claimed { marker } => Message::Claimed(v1::Claimed {
                marker: marker.map(Into::into),
            }),
        };
        Self {
            revision: entry.revision.0,
            unix_ms: entry.unix_ms,
            node: entry.node.0,
            actor: actor(entry.actor),
            session: entry.tag.session.0,
            sequence: entry.tag.sequence,
            event: Some(event),
            reason: entry.reason.clone(),
            hash: entry.hash.to_vec(),
        }
    }
}
