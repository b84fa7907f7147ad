//! Looking into an answer.

use tally_proto::v1;

/// What tests ask of an answer.
pub trait AnswerExt {
    /// The revision of an outcome that took effect now.
    fn applied(&self) -> Option<u64>;
    /// The revision of an outcome that took effect before.
    fn replayed(&self) -> Option<u64>;
    /// The code of a refusal.
    fn refused(&self) -> Option<&str>;
    /// The node and its incarnation, after a registration.
    fn registered(&self) -> Option<(u32, u64)>;
    /// The session, after one was opened.
    fn session(&self) -> Option<u64>;
    /// The revision at which it took effect, now or before.
    fn took_effect(&self) -> Option<u64> {
        self.applied().or(self.replayed())
    }
}

impl AnswerExt for v1::Answer {
    fn applied(&self) -> Option<u64> {
        match &self.outcome {
            Some(v1::answer::Outcome::Applied(applied)) => Some(applied.revision),
            _ => None,
        }
    }

    fn replayed(&self) -> Option<u64> {
        match &self.outcome {
            Some(v1::answer::Outcome::Replayed(replayed)) => Some(replayed.since),
            _ => None,
        }
    }

    fn refused(&self) -> Option<&str> {
        match &self.outcome {
            Some(v1::answer::Outcome::Refused(refused)) => Some(&refused.code),
            _ => None,
        }
    }

    fn registered(&self) -> Option<(u32, u64)> {
        match effect(self)? {
            v1::effect::Kind::NodeRegistered(node) => Some((node.node, node.incarnation)),
            _ => None,
        }
    }

    fn session(&self) -> Option<u64> {
        match effect(self)? {
            v1::effect::Kind::SessionOpened(opened) => Some(opened.session),
            _ => None,
        }
    }
}

fn effect(answer: &v1::Answer) -> Option<&v1::effect::Kind> {
    let effect = match answer.outcome.as_ref()? {
        v1::answer::Outcome::Applied(applied) => applied.effect.as_ref(),
        v1::answer::Outcome::Replayed(replayed) => replayed.effect.as_ref(),
        v1::answer::Outcome::Refused(_) => None,
    };
    effect?.kind.as_ref()
}
