//! What happens to the member that is struck while an answer is lost, and how it is undone.

use std::fmt;

use anyhow::Result;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

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

    /// The next one of a schedule.
    pub(super) fn draw(among: &[Self], random: &mut StdRng) -> Self {
        among.choose(random).copied().unwrap_or(Self::Kill)
    }

    /// True when the member goes on as a part of the cluster.
    pub(super) fn leaves_it_in(self) -> bool {
        self == Self::Transfer
    }

    /// Lets it happen to a member; `heir` takes over from one that leads.
    pub(super) async fn strike(
        self,
        cluster: &mut Cluster,
        struck: &str,
        heir: &str,
    ) -> Result<()> {
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
    pub(super) fn mend(self, cluster: &mut Cluster, struck: &str) -> Result<()> {
        match self {
            Self::Kill => cluster.launch(struck),
            Self::Pause => cluster.resume(struck),
            Self::Partition | Self::Mute | Self::Deaf => cluster.hosts()?.heal(),
            Self::Transfer => Ok(()),
        }
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
