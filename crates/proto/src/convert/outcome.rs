//! Answers, outcomes and effects, as they are stored and passed between members.

use tally_model::{
    Alarm, Answer, Effect, Incarnation, LeaseId, NodeId, Outcome, Revision, SessionId,
    StoredOutcome,
};

use super::identifier::bytes_16;
use super::{DecodeError, required};
use crate::storage;
use storage::alarm::Kind as AlarmKind;
use storage::effect::Kind as EffectKind;
use storage::outcome::Kind;

impl From<&Answer> for storage::Answer {
    fn from(answer: &Answer) -> Self {
        Self {
            outcome: Some((&answer.outcome).into()),
            repeat: answer.repeat,
            now: answer
                .now
                .map_or(storage::StorageState::Unspecified, Into::into)
                .into(),
            revision: answer.revision.0,
        }
    }
}

impl TryFrom<storage::Answer> for Answer {
    type Error = DecodeError;

    fn try_from(answer: storage::Answer) -> Result<Self, DecodeError> {
        Ok(Self {
            outcome: required("answer.outcome", answer.outcome)?.try_into()?,
            repeat: answer.repeat,
            now: storage::StorageState::decode_optional(answer.now)?,
            revision: Revision(answer.revision),
        })
    }
}

impl From<&StoredOutcome> for storage::StoredOutcome {
    fn from(stored: &StoredOutcome) -> Self {
        Self {
            digest: stored
                .digest
                .map(|digest| digest.to_be_bytes().to_vec())
                .unwrap_or_default(),
            outcome: Some((&stored.outcome).into()),
        }
    }
}

impl TryFrom<storage::StoredOutcome> for StoredOutcome {
    type Error = DecodeError;

    fn try_from(stored: storage::StoredOutcome) -> Result<Self, DecodeError> {
        let digest = if stored.digest.is_empty() {
            None
        } else {
            Some(bytes_16("stored_outcome.digest", &stored.digest)?)
        };
        Ok(Self {
            digest,
            outcome: required("stored_outcome.outcome", stored.outcome)?.try_into()?,
        })
    }
}

impl From<&Outcome> for storage::Outcome {
    fn from(outcome: &Outcome) -> Self {
        let took = |revision: &Revision, effect: &Effect| storage::Took {
            revision: revision.0,
            effect: Some(effect.into()),
        };
        let kind = match outcome {
            Outcome::Applied { revision, effect } => Kind::Applied(took(revision, effect)),
            Outcome::Replayed { since, effect } => Kind::Replayed(took(since, effect)),
            Outcome::Refused(refusal) => Kind::Refused(refusal.into()),
        };
        Self { kind: Some(kind) }
    }
}

impl TryFrom<storage::Outcome> for Outcome {
    type Error = DecodeError;

    fn try_from(outcome: storage::Outcome) -> Result<Self, DecodeError> {
        let took = |took: storage::Took| -> Result<(Revision, Effect), DecodeError> {
            Ok((
                Revision(took.revision),
                required("took.effect", took.effect)?.try_into()?,
            ))
        };
        Ok(match required("outcome.kind", outcome.kind)? {
            Kind::Applied(applied) => {
                let (revision, effect) = took(applied)?;
                Self::Applied { revision, effect }
            }
            Kind::Replayed(replayed) => {
                let (since, effect) = took(replayed)?;
                Self::Replayed { since, effect }
            }
            Kind::Refused(refusal) => Self::Refused(refusal.try_into()?),
        })
    }
}

impl From<&Effect> for storage::Effect {
    fn from(effect: &Effect) -> Self {
        let kind = match effect {
            Effect::Founded => EffectKind::Founded(storage::Founded {}),
            Effect::SessionOpened { session } => {
                EffectKind::SessionOpened(storage::SessionOpened { session: session.0 })
            }
            Effect::SessionClosed => EffectKind::SessionClosed(storage::SessionClosed {}),
            Effect::NodeRegistered { node, incarnation } => {
                EffectKind::NodeRegistered(storage::NodeRegistered {
                    node: node.0,
                    incarnation: incarnation.0,
                })
            }
            Effect::NodeActivated { node, incarnation } => {
                EffectKind::NodeActivated(storage::NodeActivated {
                    node: node.0,
                    incarnation: incarnation.0,
                })
            }
            Effect::StorageStateSet {
                node,
                from,
                to,
                alarms,
            } => EffectKind::StorageStateSet(storage::StorageStateSet {
                node: node.0,
                from: storage::StorageState::from(*from).into(),
                to: storage::StorageState::from(*to).into(),
                alarms: alarms.iter().map(alarm_message).collect(),
            }),
            Effect::Keys(answer) => EffectKind::Keys(answer.into()),
            Effect::LeaseGranted { lease, ttl_s } => {
                EffectKind::LeaseGranted(lease_held(*lease, *ttl_s))
            }
            Effect::LeaseRevoked => EffectKind::LeaseRevoked(storage::LeaseRevoked {}),
            Effect::LeaseRenewed { lease, ttl_s } => {
                EffectKind::LeaseRenewed(lease_held(*lease, *ttl_s))
            }
            Effect::LeaseTimePassed { all } => {
                EffectKind::LeaseTimePassed(storage::LeaseTimePassed { all: *all })
            }
            Effect::Compacted => EffectKind::Compacted(storage::Compacted {}),
            Effect::VersionsReclaimed { all } => {
                EffectKind::VersionsReclaimed(storage::VersionsReclaimed { all: *all })
            }
        };
        Self { kind: Some(kind) }
    }
}

fn alarm_message(alarm: &Alarm) -> storage::Alarm {
    let kind = match *alarm {
        Alarm::ReplicationUnsatisfied { needed, writable } => {
            AlarmKind::ReplicationUnsatisfied(storage::ReplicationUnsatisfied { needed, writable })
        }
    };
    storage::Alarm { kind: Some(kind) }
}

fn lease_held(lease: LeaseId, ttl_s: u64) -> storage::LeaseHeld {
    storage::LeaseHeld {
        lease: lease.0,
        ttl_s,
    }
}

impl TryFrom<storage::Effect> for Effect {
    type Error = DecodeError;

    fn try_from(effect: storage::Effect) -> Result<Self, DecodeError> {
        Ok(match required("effect.kind", effect.kind)? {
            EffectKind::Founded(_) => Self::Founded,
            EffectKind::SessionOpened(opened) => Self::SessionOpened {
                session: SessionId(opened.session),
            },
            EffectKind::SessionClosed(_) => Self::SessionClosed,
            EffectKind::NodeRegistered(registered) => Self::NodeRegistered {
                node: NodeId(registered.node),
                incarnation: Incarnation(registered.incarnation),
            },
            EffectKind::NodeActivated(activated) => Self::NodeActivated {
                node: NodeId(activated.node),
                incarnation: Incarnation(activated.incarnation),
            },
            EffectKind::StorageStateSet(set) => Self::StorageStateSet {
                node: NodeId(set.node),
                from: storage::StorageState::decode_required(set.from)?,
                to: storage::StorageState::decode_required(set.to)?,
                alarms: set
                    .alarms
                    .into_iter()
                    .map(alarm)
                    .collect::<Result<_, _>>()?,
            },
            EffectKind::Keys(answer) => Self::Keys(answer.try_into()?),
            EffectKind::LeaseGranted(held) => Self::LeaseGranted {
                lease: LeaseId(held.lease),
                ttl_s: held.ttl_s,
            },
            EffectKind::LeaseRevoked(_) => Self::LeaseRevoked,
            EffectKind::LeaseRenewed(held) => Self::LeaseRenewed {
                lease: LeaseId(held.lease),
                ttl_s: held.ttl_s,
            },
            EffectKind::LeaseTimePassed(passed) => Self::LeaseTimePassed { all: passed.all },
            EffectKind::Compacted(_) => Self::Compacted,
            EffectKind::VersionsReclaimed(reclaimed) => {
                Self::VersionsReclaimed { all: reclaimed.all }
            }
        })
    }
}

fn alarm(alarm: storage::Alarm) -> Result<Alarm, DecodeError> {
    match required("alarm.kind", alarm.kind)? {
        AlarmKind::ReplicationUnsatisfied(storage::ReplicationUnsatisfied { needed, writable }) => {
            Ok(Alarm::ReplicationUnsatisfied { needed, writable })
        }
    }
}
