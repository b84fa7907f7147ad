//! What the cluster decided about a command.

use std::collections::BTreeMap;
use std::fmt;

use tally_model::{Alarm, Effect, Incarnation, LeaseId, NodeId, SessionId, StorageState};
use tally_proto::v1;
use tonic::Status;

/// Codes of the two refusals that say "this node belongs to another marker".
const MARKER_CONFLICTS: [&str; 2] = ["T-310", "T-311"];

/// What the cluster decided. A refusal is an answer like any other: stored, and the same when asked
/// for again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Applied, replayed or refused.
    pub outcome: Outcome,
    /// True when this tag was answered before and the outcome is the one of that time.
    pub repeat: bool,
    /// State, after the command, of the node that it names; `None` when it names none.
    pub now: Option<StorageState>,
    /// The store's revision after the command.
    pub revision: u64,
}

/// Applied, replayed or refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It took effect.
    Applied {
        /// The revision at which it did.
        revision: u64,
        /// What took effect.
        effect: Effect,
    },
    /// It had taken effect before; nothing changed now.
    Replayed {
        /// The revision at which it did.
        since: u64,
        /// What took effect then.
        effect: Effect,
    },
    /// It did not take effect and will not under this tag.
    Refused(Refused),
}

/// Why a command did not take effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Stable code, for example `T-310`; `tally explain CODE` says more.
    pub code: String,
    /// What was found, in one line.
    pub found: String,
    /// Particulars by name, for programs.
    pub details: BTreeMap<String, String>,
}

impl Refused {
    /// The command that would resolve it, where there is one.
    pub fn next(&self) -> Option<&str> {
        self.details.get("next").map(String::as_str)
    }

    /// True for the two refusals that say "this node belongs to another marker", T-310 and T-311.
    pub fn is_marker_conflict(&self) -> bool {
        MARKER_CONFLICTS.contains(&self.code.as_str())
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.found)
    }
}

impl Answer {
    /// The refusal, when it is one.
    pub fn refused(&self) -> Option<&Refused> {
        match &self.outcome {
            Outcome::Refused(refused) => Some(refused),
            Outcome::Applied { .. } | Outcome::Replayed { .. } => None,
        }
    }

    /// What took effect, now or before.
    pub fn effect(&self) -> Option<&Effect> {
        match &self.outcome {
            Outcome::Applied { effect, .. } | Outcome::Replayed { effect, .. } => Some(effect),
            Outcome::Refused(_) => None,
        }
    }

    /// The revision at which it took effect, now or before.
    pub fn took_effect_at(&self) -> Option<u64> {
        match self.outcome {
            Outcome::Applied { revision: at, .. } | Outcome::Replayed { since: at, .. } => Some(at),
            Outcome::Refused(_) => None,
        }
    }
}

/// Reads an answer from the wire.
///
/// An answer that cannot be read says nothing of what happened, so the error is a status without a
/// code of Tally's, and the request goes out again under its tag.
pub(crate) fn read(answer: Option<v1::Answer>) -> Result<Answer, Status> {
    let answer = answer.ok_or_else(|| unreadable("answer"))?;
    let outcome = match answer.outcome.ok_or_else(|| unreadable("answer.outcome"))? {
        v1::answer::Outcome::Applied(applied) => Outcome::Applied {
            revision: applied.revision,
            effect: effect(applied.effect)?,
        },
        v1::answer::Outcome::Replayed(replayed) => Outcome::Replayed {
            since: replayed.since,
            effect: effect(replayed.effect)?,
        },
        v1::answer::Outcome::Refused(refused) => Outcome::Refused(Refused {
            code: refused.code,
            found: refused.found,
            details: refused.details.into_iter().collect(),
        }),
    };
    Ok(Answer {
        outcome,
        repeat: answer.repeat,
        now: v1::StorageState::decode_optional(answer.now).map_err(|_| unreadable("answer.now"))?,
        revision: answer.revision,
    })
}

fn unreadable(field: &str) -> Status {
    Status::data_loss(format!("the answer cannot be read: {field}"))
}

fn effect(effect: Option<v1::Effect>) -> Result<Effect, Status> {
    use v1::effect::Kind;
    let kind = effect.and_then(|effect| effect.kind);
    Ok(match kind.ok_or_else(|| unreadable("effect"))? {
        Kind::Founded(_) => Effect::Founded,
        Kind::SessionOpened(opened) => Effect::SessionOpened {
            session: SessionId(opened.session),
        },
        Kind::SessionClosed(_) => Effect::SessionClosed,
        Kind::NodeRegistered(registered) => Effect::NodeRegistered {
            node: NodeId(registered.node),
            incarnation: Incarnation(registered.incarnation),
        },
        Kind::NodeActivated(activated) => Effect::NodeActivated {
            node: NodeId(activated.node),
            incarnation: Incarnation(activated.incarnation),
        },
        Kind::StorageStateSet(set) => Effect::StorageStateSet {
            node: NodeId(set.node),
            from: state(set.from)?,
            to: state(set.to)?,
            alarms: set.alarms.into_iter().filter_map(alarm).collect(),
        },
        Kind::Keys(answer) => {
            Effect::Keys(answer.try_into().map_err(|_| unreadable("effect.keys"))?)
        }
        Kind::LeaseGranted(held) => Effect::LeaseGranted {
            lease: LeaseId(held.lease),
            ttl_s: held.ttl_s,
        },
        Kind::LeaseRevoked(_) => Effect::LeaseRevoked,
        Kind::LeaseRenewed(held) => Effect::LeaseRenewed {
            lease: LeaseId(held.lease),
            ttl_s: held.ttl_s,
        },
        Kind::LeaseTimePassed(passed) => Effect::LeaseTimePassed { all: passed.all },
        Kind::Compacted(_) => Effect::Compacted,
        Kind::VersionsReclaimed(reclaimed) => Effect::VersionsReclaimed { all: reclaimed.all },
    })
}

fn state(number: i32) -> Result<StorageState, Status> {
    v1::StorageState::decode_required(number).map_err(|_| unreadable("effect.state"))
}

/// `None` for a kind that a newer server knows: an alarm changes nothing about the outcome.
fn alarm(alarm: v1::Alarm) -> Option<Alarm> {
    match alarm.kind? {
        v1::alarm::Kind::ReplicationUnsatisfied(found) => Some(Alarm::ReplicationUnsatisfied {
            needed: found.needed,
            writable: found.writable,
        }),
    }
}
