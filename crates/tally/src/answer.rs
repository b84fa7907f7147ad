//! What the state machine answered, for people and programs.

use std::collections::BTreeMap;

use serde::Serialize;
use tally_client::{Alarm, Answer, Effect, KeyAnswer, Outcome, Refused};

use crate::exit::Failure;
use crate::output::Output;

/// An answer as a document.
#[derive(Debug, Serialize)]
pub(crate) struct AnswerDocument {
    /// `applied`, `replayed` or `refused`.
    outcome: &'static str,
    /// The revision at which it took effect, now or before.
    took_effect_at: Option<u64>,
    /// True when the tag was answered before.
    repeat: bool,
    /// The node's storage state after the command.
    now: Option<&'static str>,
    /// The store's revision after the command.
    revision: u64,
    alarms: Vec<String>,
    refused: Option<RefusedDocument>,
}

#[derive(Debug, Serialize)]
struct RefusedDocument {
    code: String,
    found: String,
    details: BTreeMap<String, String>,
}

impl From<&Answer> for AnswerDocument {
    fn from(answer: &Answer) -> Self {
        let outcome = match &answer.outcome {
            Outcome::Applied { .. } => "applied",
            Outcome::Replayed { .. } => "replayed",
            Outcome::Refused(_) => "refused",
        };
        Self {
            outcome,
            took_effect_at: answer.took_effect_at(),
            repeat: answer.repeat,
            now: answer.now.map(tally_client::StorageState::as_str),
            revision: answer.revision,
            alarms: alarms(answer),
            refused: answer.refused().map(|refused| RefusedDocument {
                code: refused.code.clone(),
                found: refused.found.clone(),
                details: refused.details.clone(),
            }),
        }
    }
}

/// Prints an answer to `asked`. A refusal is printed as a document only, and is the failure that ends
/// the command.
pub(crate) fn report(output: Output, answer: &Answer, asked: &str) -> Result<(), Failure> {
    if let Some(refused) = answer.refused() {
        let document = AnswerDocument::from(answer);
        let printed = output == Output::Json && output.print(&document, String::new).is_ok();
        return Err(refusal(refused).asked(asked).documented(printed));
    }
    output.print(&AnswerDocument::from(answer), || text(answer, asked))
}

/// A refusal as the end of a command. The cluster names the command that would resolve it.
pub(crate) fn refusal(refused: &Refused) -> Failure {
    let explained = format!("tally explain {}", refused.code);
    let next = refused.next().map_or(explained, str::to_owned);
    Failure::refusal(&refused.code, &refused.found).next(next)
}

fn text(answer: &Answer, asked: &str) -> String {
    let now = answer
        .now
        .map_or(String::new(), |state| format!(" (now {state})"));
    let mut lines = Vec::new();
    match &answer.outcome {
        Outcome::Applied { revision, .. } => {
            lines.push(format!("applied r{revision}: {asked}{now}"))
        }
        Outcome::Replayed { since, .. } => lines.push(format!("replayed r{since}: {asked}{now}")),
        Outcome::Refused(refused) => lines.push(format!("refused {refused}")),
    }
    lines.extend(
        alarms(answer)
            .into_iter()
            .map(|alarm| format!("  alarm     {alarm}")),
    );
    lines.join("\n")
}

/// Conditions that an operator should look at although nothing was refused.
fn alarms(answer: &Answer) -> Vec<String> {
    let Some(Effect::StorageStateSet { alarms, .. }) = answer.effect() else {
        return Vec::new();
    };
    let told = alarms.iter().map(|alarm| match alarm {
        Alarm::ReplicationUnsatisfied { needed, writable } => {
            format!("writable places: {writable}, the cluster's replication needs {needed}")
        }
    });
    told.collect()
}

/// What an effect did, in a few words.
pub(crate) fn effect_text(effect: &Effect) -> String {
    match effect {
        Effect::Founded => "the cluster was founded".to_owned(),
        Effect::SessionOpened { session } => format!("session {session} was opened"),
        Effect::SessionClosed => "the session was closed".to_owned(),
        Effect::NodeRegistered { node, incarnation } => {
            format!("node {node} was registered, incarnation {incarnation}")
        }
        Effect::NodeActivated { node, .. } => {
            format!("node {node} moved provisioning -> read-write")
        }
        Effect::StorageStateSet { node, from, to, .. } => {
            format!("node {node} moved {from} -> {to}")
        }
        Effect::Keys(KeyAnswer::Range(answer)) => format!("{} keys were read", answer.count),
        Effect::Keys(KeyAnswer::Put { .. }) => "the key was put".to_owned(),
        Effect::Keys(KeyAnswer::Deleted { count, .. }) => format!("{count} keys were deleted"),
        Effect::Keys(KeyAnswer::Txn { succeeded, .. }) => {
            let branch = if *succeeded { "success" } else { "failure" };
            format!("the transaction took its {branch} branch")
        }
        Effect::LeaseGranted { lease, ttl_s } => {
            format!("lease {lease} was granted for {ttl_s} s")
        }
        Effect::LeaseRevoked => "the lease was revoked".to_owned(),
        Effect::LeaseRenewed { lease, ttl_s } => {
            format!("lease {lease} was renewed for {ttl_s} s")
        }
        Effect::LeaseTimePassed { .. } => "time has passed for leases".to_owned(),
        Effect::Compacted => "earlier revisions were given up".to_owned(),
        Effect::VersionsReclaimed { .. } => "some of what was compacted was removed".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tally_client::{NodeId, StorageState};

    fn set(outcome: Outcome) -> Answer {
        Answer {
            outcome,
            repeat: false,
            now: Some(StorageState::ReadOnly),
            revision: 7,
        }
    }

    fn effect() -> Effect {
        Effect::StorageStateSet {
            node: NodeId(1),
            from: StorageState::ReadWrite,
            to: StorageState::ReadOnly,
            alarms: vec![Alarm::ReplicationUnsatisfied {
                needed: 2,
                writable: 1,
            }],
        }
    }

    #[test]
    fn an_answer_tells_its_revision_its_state_and_its_alarms() {
        let answer = set(Outcome::Applied {
            revision: 7,
            effect: effect(),
        });
        assert_eq!(
            text(&answer, "ls1 read-write -> read-only"),
            "applied r7: ls1 read-write -> read-only (now read-only)\n  \
             alarm     writable places: 1, the cluster's replication needs 2"
        );
        let document = serde_json::json!(AnswerDocument::from(&answer));
        assert_eq!(document["outcome"], "applied");
        assert_eq!(document["took_effect_at"], 7);
        assert_eq!(document["now"], "read-only");
        assert_eq!(
            effect_text(&effect()),
            "node 1 moved read-write -> read-only"
        );
    }

    #[test]
    fn a_refusal_ends_the_command_with_what_was_asked() {
        let refused = Refused {
            code: "T-310".to_owned(),
            found: "marker mismatch".to_owned(),
            details: [("next".to_owned(), "tally node claims 1".to_owned())].into(),
        };
        let answer = set(Outcome::Refused(refused));
        let failure = report(Output::Table, &answer, "ls1 to start").expect_err("refused");
        assert_eq!(failure.exit.code(), 4);
        let said = failure.to_string();
        assert!(said.contains("asked     ls1 to start"), "{said}");
        assert!(said.contains("next      tally node claims 1"), "{said}");
    }
}
