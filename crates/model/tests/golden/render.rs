//! How outcomes and changes read in a golden script.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use tally_model::keys::is_reserved;
use tally_model::memory::MemoryState;
use tally_model::{
    Alarm, Answer, Change, Claim, Effect, Event, HistoryEntry, KeyAnswer, KeyEvent, KeyOp,
    KeyValue, Marker, Node, Outcome, SessionId, SetBy, Tag, View,
};

/// Gives sessions their names back.
pub(crate) struct Names<'a> {
    pub(crate) sessions: &'a BTreeMap<String, (SessionId, Marker)>,
}

impl Names<'_> {
    pub(crate) fn answer(&self, answer: &Answer, changes: &[Change]) -> String {
        let mut text = match &answer.outcome {
            Outcome::Applied { revision, effect } => {
                format!("applied {revision}: {}", self.effect(effect))
            }
            Outcome::Replayed { since, effect } => {
                format!("replayed {since}: {}", self.effect(effect))
            }
            Outcome::Refused(refusal) => format!(
                "refused {}: {}",
                refusal.code(),
                self.refusal(&refusal.to_string())
            ),
        };
        if answer.repeat {
            text.push_str(" (repeat)");
        }
        if let Some(now) = answer.now {
            write!(text, " [now {now}]").unwrap();
        }
        for change in changes {
            if let Some(change) = self.change(change) {
                write!(text, "\n  {change}").unwrap();
            }
        }
        text
    }

    /// What a read finds; it is no entry.
    pub(crate) fn read(&self, state: &MemoryState, op: &KeyOp) -> String {
        match tally_model::keys::read(state, op) {
            Outcome::Applied {
                effect: Effect::Keys(answer),
                ..
            } => key_answer(&answer),
            Outcome::Refused(refusal) => format!("refused {}: {refusal}", refusal.code()),
            other => format!("{other:?}"),
        }
    }

    pub(crate) fn state(&self, state: &MemoryState) -> String {
        let mut lines = vec![format!("revision {}", state.globals().revision)];
        for node in state.nodes() {
            lines.push(self.node(&node));
            lines.extend(
                state
                    .claims(node.id)
                    .iter()
                    .map(|claim| format!("  {}", self.claim(claim))),
            );
        }
        lines.join("\n")
    }

    pub(crate) fn history(&self, state: &MemoryState) -> String {
        let lines: Vec<_> = state
            .history()
            .iter()
            .map(|entry| self.entry(entry))
            .collect();
        lines.join("\n")
    }

    pub(crate) fn sessions(&self, state: &MemoryState) -> String {
        let mut lines = Vec::new();
        for (name, (id, _)) in self.sessions {
            lines.push(match state.session(*id) {
                None => format!("{name}: ended"),
                Some(session) => format!(
                    "{name}: acknowledged below {}, {} outcomes held, used at {} s",
                    session.acknowledged,
                    session.outcomes_held,
                    session.used_unix_ms / 1000
                ),
            });
        }
        lines.join("\n")
    }

    fn effect(&self, effect: &Effect) -> String {
        match effect {
            Effect::Founded => "founded".to_owned(),
            Effect::SessionOpened { session } => format!("session {}", self.session(*session)),
            Effect::SessionClosed => "session closed".to_owned(),
            Effect::NodeRegistered { node, incarnation } => {
                format!("node {node} incarnation {incarnation}")
            }
            Effect::NodeActivated { node, .. } => format!("node {node} provisioning -> read-write"),
            Effect::StorageStateSet {
                node,
                from,
                to,
                alarms,
            } => {
                let mut text = format!("node {node} {from} -> {to}");
                for Alarm::ReplicationUnsatisfied { needed, writable } in alarms {
                    write!(text, ", alarm: {writable} writable, {needed} needed").unwrap();
                }
                text
            }
            Effect::Keys(answer) => key_answer(answer),
            Effect::LeaseGranted { lease, ttl_s } => format!("lease {lease} granted for {ttl_s} s"),
            Effect::LeaseRevoked => "lease revoked".to_owned(),
            Effect::LeaseRenewed { lease, ttl_s } => format!("lease {lease} renewed for {ttl_s} s"),
            Effect::LeaseTimePassed { .. } => "time has passed".to_owned(),
            Effect::Compacted => "compacted".to_owned(),
            Effect::VersionsReclaimed { .. } => "some of what was compacted removed".to_owned(),
        }
    }

    fn change(&self, change: &Change) -> Option<String> {
        Some(match change {
            Change::NodeRegistered { node } => format!("registered: {}", self.node(node)),
            Change::StorageStateChanged { node } => format!("state changed: {}", self.node(node)),
            Change::ClaimRecorded { claim } => self.claim(claim),
            Change::ClaimDropped { node } => {
                format!("claim only counted: {} dropped", node.claims_dropped)
            }
            Change::HistoryAppended { entry } => format!("history: {}", self.entry(entry)),
            Change::SessionOpened { .. } => return None,
            Change::SessionUsed { .. } => return None,
            Change::SessionEnded { session } => {
                format!("session ended: {}", self.session(*session))
            }
            Change::OutcomeStored {
                session, sequence, ..
            } => {
                format!("outcome kept: {}/{sequence}", self.session(*session))
            }
            Change::OutcomeForgotten { session, sequence } => {
                format!("outcome forgotten: {}/{sequence}", self.session(*session))
            }
            Change::KeyChanged { id, event } => match event {
                // The record was told of above.
                KeyEvent::Put(made) if is_reserved(&made.key) => {
                    format!(
                        "shown as {}, version {}",
                        made.key.escape_ascii(),
                        made.version
                    )
                }
                KeyEvent::Put(made) => format!("{}: {}", id.revision, key_value(made)),
                KeyEvent::Deleted { key } => {
                    format!("{}: {} deleted", id.revision, key.escape_ascii())
                }
            },
            Change::LeaseHeld { lease } => {
                format!("lease {} ends at {} ms", lease.id, lease.ends_ms)
            }
            Change::LeaseEnded { lease } => format!("lease {lease} ended"),
            Change::LeaseAttached { lease, key } => {
                format!("{} ends with lease {lease}", key.escape_ascii())
            }
            Change::LeaseDetached { lease, key } => {
                format!(
                    "{} does not end with lease {lease} any more",
                    key.escape_ascii()
                )
            }
            Change::VersionForgotten { id, key } => {
                format!("{} of {} removed", id.revision, key.escape_ascii())
            }
            Change::GlobalsChanged { .. } => return None,
        })
    }

    fn node(&self, node: &Node) -> String {
        let mut text = format!("node {} {} {}", node.id, node.name, node.storage_state);
        if node.set_by == SetBy::Operator {
            text.push_str(" (operator)");
        }
        write!(text, " incarnation {}", node.incarnation).unwrap();
        if let Some(bound) = node.binding {
            write!(
                text,
                " marker {} since {}",
                letter(bound.marker),
                bound.since
            )
            .unwrap();
        }
        write!(text, " at {}", node.revision).unwrap();
        text
    }

    fn claim(&self, claim: &Claim) -> String {
        let marker = claim.marker.map_or("no marker".to_owned(), |marker| {
            format!("marker {}", letter(marker))
        });
        format!(
            "claim on node {}: {marker}, tag {}, {} to {}, {} attempts",
            claim.node,
            self.tag(claim.tag),
            claim.first_revision,
            claim.last_revision,
            claim.attempts
        )
    }

    fn entry(&self, entry: &HistoryEntry) -> String {
        let event = match &entry.event {
            Event::Registered { incarnation } => format!("registered, incarnation {incarnation}"),
            Event::Transitioned {
                from, to, forced, ..
            } => {
                format!("{from} -> {to}{}", if *forced { " (forced)" } else { "" })
            }
            Event::Claimed {
                marker: Some(marker),
            } => format!("claimed by marker {}", letter(*marker)),
            Event::Claimed { marker: None } => "claimed without a marker".to_owned(),
        };
        let actor = entry.actor.as_str();
        let mut text = format!(
            "{} node {} {event}, by {actor}, tag {}",
            entry.revision,
            entry.node,
            self.tag(entry.tag)
        );
        if !entry.reason.is_empty() {
            write!(text, ", reason {:?}", entry.reason).unwrap();
        }
        text
    }

    fn tag(&self, tag: Tag) -> String {
        format!("{}/{}", self.session(tag.session), tag.sequence)
    }

    fn session(&self, id: SessionId) -> String {
        let name = self
            .sessions
            .iter()
            .find(|(_, (known, _))| *known == id)
            .map(|(name, _)| name.clone());
        name.unwrap_or_else(|| id.to_string())
    }

    /// Refusals name markers by their digits; scripts name them by their letters.
    fn refusal(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for byte in b'A'..=b'Z' {
            let marker = Marker {
                bits: u128::from(byte),
                created_unix_ms: 0,
            };
            text = text.replace(&marker.short(), &char::from(byte).to_string());
        }
        text
    }
}

fn letter(marker: Marker) -> String {
    u8::try_from(marker.bits).map_or_else(|_| marker.short(), |byte| char::from(byte).to_string())
}

fn key_value(found: &KeyValue) -> String {
    format!(
        "{} = {}, version {}, created {}",
        found.key.escape_ascii(),
        found.value.escape_ascii(),
        found.version,
        found.created
    )
}

fn key_answer(answer: &KeyAnswer) -> String {
    let previous = |previous: &[KeyValue]| {
        let were = previous
            .iter()
            .map(|one| format!(", was {}", one.value.escape_ascii()));
        were.collect::<String>()
    };
    match answer {
        KeyAnswer::Range(answer) => {
            let found = answer.found.iter().map(key_value).collect::<Vec<_>>();
            match found.as_slice() {
                [] => format!("{} found", answer.count),
                found => format!("{} found: {}", answer.count, found.join("; ")),
            }
        }
        KeyAnswer::Put { previous: was, .. } => format!("put{}", previous(was.as_slice())),
        KeyAnswer::Deleted {
            count,
            previous: were,
            ..
        } => format!("{count} deleted{}", previous(were)),
        KeyAnswer::Txn { succeeded, answers } => {
            let answers = answers.iter().map(key_answer).collect::<Vec<_>>();
            let branch = if *succeeded { "success" } else { "failure" };
            format!("{branch}: {}", answers.join("; "))
        }
    }
}
