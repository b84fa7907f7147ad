//! The members that are measured: Tally's, or those of another store with the same API.

use std::fmt;

use anyhow::{Context, Result, ensure};

use super::etcd::Etcd;
use super::usage::Usage;
use crate::cluster::Cluster;

/// Whose members they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    Tally,
    Etcd,
}

impl fmt::Display for Whose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Tally => "tally",
            Self::Etcd => "etcd",
        })
    }
}

/// Three members that serve.
#[derive(Debug)]
pub enum Store {
    Tally(Cluster),
    Etcd(Etcd),
}

impl Store {
    pub(super) fn whose(&self) -> Whose {
        match self {
            Self::Tally(_) => Whose::Tally,
            Self::Etcd(_) => Whose::Etcd,
        }
    }

    /// Where clients reach the members, the leader before the others.
    pub(super) async fn leader_first(&self) -> Result<Vec<String>> {
        let cluster = match self {
            Self::Tally(cluster) => cluster,
            Self::Etcd(etcd) => return etcd.leader_first().await,
        };
        let leader = cluster.leader().await?;
        let mut names = cluster.started();
        names.sort_by_key(|name| *name != leader);
        let addresses = names.iter().map(|name| cluster.address(name));
        addresses.collect()
    }

    /// Waits until every member has applied the same; of Tally's the states are compared too.
    ///
    /// # Errors
    /// When they have not after a minute, or the states differ.
    pub async fn settled(&self) -> Result<()> {
        match self {
            Self::Tally(cluster) => cluster.state_hashes_agree().await.map(|_| ()),
            Self::Etcd(etcd) => etcd.settled().await,
        }
    }

    /// What every member has used.
    pub(super) async fn usage(&self) -> Result<Vec<Usage>> {
        let cluster = match self {
            Self::Tally(cluster) => cluster,
            Self::Etcd(etcd) => return etcd.usage().await,
        };
        let mut all = Vec::new();
        for name in cluster.started() {
            let usage = Usage::of(cluster.member(&name)?).await;
            all.push(usage.with_context(|| format!("what {name} has used"))?);
        }
        ensure!(!all.is_empty(), "no member runs");
        Ok(all)
    }

    /// Ends every member.
    ///
    /// # Errors
    /// When one does not end as it should.
    pub async fn stop(self) -> Result<()> {
        match self {
            Self::Tally(cluster) => cluster.stop().await,
            Self::Etcd(etcd) => etcd.stop().await,
        }
    }
}
