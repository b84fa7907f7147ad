//! What happens to the member that is struck while an answer is lost, and how it is undone.

use std::fmt;

use anyhow::Result;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use crate::cluster::Cluster;

/// One way in which a member is lost to the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL, and a new start.
    Kill,
    /// SIGSTOP and SIGCONT.
    Pause,
    /// Nothing passes between it and the other members.
    Partition,
    /// Nothing passes from it to the other members.
    Mute,
    /// Nothing passes from the other members to it.
    Deaf,
    /// It hands leadership over; one that does not lead is given it.
    Transfer,
}

impl Fault {
    pub const ALL: [Self; 6] = [
        Self::Kill,
        Self::Pause,
        Self::Partition,
        Self::Mute,
        Self::Deaf,
        Self::Transfer,
    ];

    /// True when members need hosts of their own for it.
    pub fn needs_hosts(self) -> bool {
        matches!(self, Self::Partition | Self::Mute | Self::Deaf)
    }

    /// True when the member goes on as a part of the cluster.
    pub fn leaves_it_in(self) -> bool {
        self == Self::Transfer
    }

    /// Lets it happen to a member; `heir` takes over from one that leads.
    ///
    /// # Errors
    /// When the system or the cluster refuses.
    pub async fn strike(self, cluster: &mut Cluster, struck: &str, heir: &str) -> Result<()> {
        match self {
            Self::Kill => cluster.kill(struck),
            Self::Pause => cluster.pause(struck),
            Self::Partition => cluster.hosts()?.isolate(struck),
            Self::Mute => cluster.hosts()?.mute(struck),
            Self::Deaf => cluster.hosts()?.deafen(struck),
            Self::Transfer => {
                let leads = cluster.leader().await? == struck;
                cluster
                    .transfer_leader(if leads { heir } else { struck })
                    .await
            }
        }
    }

    /// Undoes it; does not wait for the member to come back.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn mend(self, cluster: &mut Cluster, struck: &str) -> Result<()> {
        match self {
            Self::Kill => cluster.launch(struck),
            Self::Pause => cluster.resume(struck),
            Self::Partition | Self::Mute | Self::Deaf => cluster.hosts()?.heal(),
            Self::Transfer => Ok(()),
        }
    }
}

/// Faults in an order that a seed gives: each comes once before one comes again, so that few rounds have
/// all of them.
#[derive(Debug)]
pub struct Deck {
    all: Vec<Fault>,
    left: Vec<Fault>,
}

impl Deck {
    /// Of at least one fault.
    pub fn of(faults: &[Fault]) -> Self {
        Self {
            all: faults.to_vec(),
            left: Vec::new(),
        }
    }

    /// The next one.
    pub fn draw(&mut self, random: &mut StdRng) -> Fault {
        if self.left.is_empty() {
            self.left.clone_from(&self.all);
            self.left.shuffle(random);
        }
        self.left.pop().unwrap_or(Fault::Kill)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kill => "killed",
            Self::Pause => "paused",
            Self::Partition => "cut off",
            Self::Mute => "muted",
            Self::Deaf => "deafened",
            Self::Transfer => "leadership transferred at",
        })
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    fn drawn(seed: u64, count: usize) -> Vec<Fault> {
        let mut random = StdRng::seed_from_u64(seed);
        let mut deck = Deck::of(&Fault::ALL);
        (0..count).map(|_| deck.draw(&mut random)).collect()
    }

    #[test]
    fn a_seed_gives_the_same_faults_and_every_fault_comes_early() {
        let some = drawn(7, 12);
        assert_eq!(some, drawn(7, 12));
        assert_ne!(some, drawn(8, 12));
        for fault in Fault::ALL {
            assert!(some[..6].contains(&fault), "{fault:?} is not in {some:?}");
        }
    }
}
