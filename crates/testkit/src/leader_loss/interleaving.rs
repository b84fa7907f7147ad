//! What may happen in a round, and who plays which part.

use std::fmt;

use anyhow::{Context, Result};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

/// Whom the first attempt is sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    Leader,
    Follower,
}

/// Who is struck by a fault once the answer is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Struck {
    Leader,
    /// A follower that does not get the retry.
    Bystander,
    Nobody,
}

/// When it is struck, or, if nobody is, when the request is sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Another member has applied the activation.
    AfterCommit,
    /// The request's bytes have passed the proxy; the activation may be committed or not.
    AfterSending,
}

/// Who gets the retry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retried {
    /// The leader of that moment.
    Leader,
    /// Whoever was a follower at the first attempt, and was not asked if there is a choice.
    Follower,
    /// The leader of the first attempt, brought back first if it was struck.
    OldLeader,
}

/// One way in which an answer is lost and asked for again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interleaving {
    pub asked: Asked,
    pub struck: Struck,
    pub moment: Moment,
    pub retried: Retried,
}

impl Interleaving {
    /// The story that the rounds are named after.
    pub const MAIN: Self = Self {
        asked: Asked::Leader,
        struck: Struck::Leader,
        moment: Moment::AfterCommit,
        retried: Retried::Follower,
    };

    /// Every interleaving once: [`Self::MAIN`] first, the others in random order, but so that every
    /// other one strikes the leader for as long as there are such.
    pub fn shuffled(random: &mut StdRng) -> Vec<Self> {
        let mut others = Self::all();
        others.retain(|other| *other != Self::MAIN);
        others.shuffle(random);
        let strikes = |one: &Self| one.struck == Struck::Leader;
        let (lethal, harmless): (Vec<_>, Vec<_>) = others.into_iter().partition(strikes);
        let (mut lethal, mut harmless) = (lethal.into_iter(), harmless.into_iter());
        let mut order = vec![Self::MAIN];
        loop {
            let before = order.len();
            order.extend(harmless.next());
            order.extend(lethal.next());
            if order.len() == before {
                return order;
            }
        }
    }

    fn all() -> Vec<Self> {
        let mut all = Vec::new();
        for asked in [Asked::Leader, Asked::Follower] {
            for struck in [Struck::Leader, Struck::Bystander, Struck::Nobody] {
                for moment in [Moment::AfterCommit, Moment::AfterSending] {
                    for retried in [Retried::Leader, Retried::Follower, Retried::OldLeader] {
                        all.push(Self {
                            asked,
                            struck,
                            moment,
                            retried,
                        });
                    }
                }
            }
        }
        all
    }

    /// Gives every part to a member.
    pub(super) fn cast(self, leader: &str, followers: &[String]) -> Result<Cast> {
        let [first, second, ..] = followers else {
            anyhow::bail!("two followers are needed, there are {followers:?}");
        };
        let asked = match self.asked {
            Asked::Leader => leader,
            Asked::Follower => first,
        };
        let struck = match self.struck {
            Struck::Leader => Some(leader),
            Struck::Bystander => Some(first.as_str()),
            Struck::Nobody => None,
        };
        let retried = match self.retried {
            Retried::Leader | Retried::OldLeader => leader,
            Retried::Follower => second,
        };
        let mut witnesses = [second, first].into_iter();
        let witness = witnesses
            .find(|name| Some(name.as_str()) != struck)
            .context("every follower is struck")?;
        Ok(Cast {
            asked: asked.to_owned(),
            struck: struck.map(str::to_owned),
            retried: retried.to_owned(),
            witness: witness.clone(),
        })
    }
}

/// Members by the part that they play.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cast {
    pub(super) asked: String,
    pub(super) struck: Option<String>,
    /// For [`Retried::Leader`] only known once the new leader is.
    pub(super) retried: String,
    /// A follower that lives on and tells when it has applied the activation.
    pub(super) witness: String,
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Leader => "leader",
            Self::Follower => "follower",
        })
    }
}

impl fmt::Display for Struck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Leader => "leader",
            Self::Bystander => "follower",
            Self::Nobody => "nobody",
        })
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AfterCommit => "committed and not answered",
            Self::AfterSending => "sent and not answered",
        })
    }
}

impl fmt::Display for Retried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Leader => "present leader",
            Self::Follower => "other follower",
            Self::OldLeader => "old leader",
        })
    }
}

impl fmt::Display for Interleaving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "asked the {}, {}, struck: {}, retried at the {}",
            self.asked, self.moment, self.struck, self.retried
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn a_seed_gives_one_order_that_begins_with_the_main_job() {
        let order = |seed| Interleaving::shuffled(&mut StdRng::seed_from_u64(seed));
        assert_eq!(order(7), order(7));
        assert_ne!(order(7), order(8));
        assert_eq!(order(7).len(), Interleaving::all().len());
        assert_eq!(order(7)[0], Interleaving::MAIN);
        let first = order(7).into_iter().take(20);
        let lethal = first.filter(|one| one.struck == Struck::Leader).count();
        assert_eq!(lethal, 10);
    }

    #[test]
    fn the_struck_are_neither_witnesses_nor_retried_unless_brought_back() -> Result<()> {
        let followers = ["n2".to_owned(), "n3".to_owned()];
        for interleaving in Interleaving::all() {
            let cast = interleaving.cast("n1", &followers)?;
            assert_ne!(cast.struck.as_ref(), Some(&cast.witness), "{interleaving}");
            if interleaving.retried == Retried::Follower {
                assert_ne!(cast.struck.as_ref(), Some(&cast.retried), "{interleaving}");
            }
        }
        Ok(())
    }
}
