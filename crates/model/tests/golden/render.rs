//! How outcomes and changes read in a golden script.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use tally_model::memory::MemoryState;
use tally_model::{
    Alarm, Answer, Change, Claim, Effect, Event, HistoryEntry, Marker, Node, Outcome, SessionId,
    SetBy, Tag, View,
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
        let actor = match entry.actor {
            SetBy::Node => "node",
            SetBy::Operator => "operator",
        };
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
