//! Requests about the cluster itself: who leads, who belongs to it, when to take a snapshot.

use std::time::Duration;

use openraft::Instant as _;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{ChangeMembershipError, ClientWriteError, RaftError};
use tally_model::MemberId;
use tokio::time::{Instant, timeout_at};

use crate::membership::Member;
use crate::raft::TypeConfig;
use crate::replica::Replica;
use crate::status::{Role, Status};

/// Why a request about the cluster itself was not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManageError {
    /// Only the leader can do it.
    #[error("this member does not lead")]
    NotLeader,
    /// There is no such member.
    #[error("there is no member {0} in the cluster")]
    UnknownMember(String),
    /// Nothing to do it with, or to do.
    #[error("{0}")]
    Impossible(String),
    /// It was begun and has not ended in time; it may still.
    #[error("{0} has not ended in time; it may still")]
    Late(&'static str),
    /// The replica has stopped.
    #[error("this member has stopped: {0}")]
    Halted(String),
}

impl Replica {
    /// Hands leadership to a voter by name, or to the one that has most of the log, and waits until
    /// this member knows that it leads.
    ///
    /// # Errors
    /// See [`ManageError`].
    pub async fn transfer_leader(
        &self,
        to: Option<&str>,
        deadline: std::time::Instant,
    ) -> Result<Member, ManageError> {
        let late = Err(ManageError::Late("the transfer"));
        timeout_at(Instant::from_std(deadline), self.transfer(to))
            .await
            .unwrap_or(late)
    }

    async fn transfer(&self, to: Option<&str>) -> Result<Member, ManageError> {
        let status = self.status();
        if status.role != Role::Leader {
            return Err(ManageError::NotLeader);
        }
        let target = match to {
            Some(name) => {
                let found = status.membership.by_name(name);
                let member = found.ok_or_else(|| ManageError::UnknownMember(name.to_owned()))?;
                if !status.membership.voters.contains(&member.id) {
                    return Err(ManageError::Impossible(format!(
                        "{name} is a learner and cannot lead"
                    )));
                }
                if member.id != self.options.member && !self.hears(member.id).await {
                    // openraft takes no commands from the moment it hands over.
                    return Err(ManageError::Impossible(format!(
                        "{name} cannot be reached and cannot lead"
                    )));
                }
                member.clone()
            }
            None => self.best_follower(&status).await.ok_or_else(|| {
                ManageError::Impossible("no other voter can be reached that could lead".to_owned())
            })?,
        };
        if target.id == self.options.member {
            return Ok(target);
        }
        let mut lead = self.lead.clone();
        loop {
            let asked = self.raft.trigger().transfer_leader(target.id.0).await;
            asked.map_err(|fatal| ManageError::Halted(fatal.to_string()))?;
            // The target refuses while it lacks entries; it is asked again a little later.
            let leads = lead.wait_for(|lead| lead.leader == Some(target.id));
            let again = Duration::from_millis(*self.options.election_ms.end());
            match tokio::time::timeout(again, leads).await {
                Ok(Ok(_)) => return Ok(target),
                Ok(Err(_)) => return Err(ManageError::Halted("it was shut down".to_owned())),
                Err(_) if self.status().role == Role::Leader => {}
                Err(_) => return Err(ManageError::Late("the transfer")),
            }
        }
    }

    /// As a leader: has another member answered lately? A leader that is new waits for the first
    /// answer.
    async fn hears(&self, id: MemberId) -> bool {
        let patience = self.options.patience();
        let mut metrics = self.raft.metrics();
        let answered = async {
            loop {
                let heard = {
                    let metrics = metrics.borrow_watched();
                    let all = metrics.heartbeat.as_ref();
                    all.and_then(|all| all.get(&id.0).cloned().flatten())
                };
                match heard {
                    Some(heard) => return heard.elapsed() < patience,
                    None if metrics.changed().await.is_err() => return false,
                    None => {}
                }
            }
        };
        tokio::time::timeout(patience, answered)
            .await
            .unwrap_or(false)
    }

    /// The other voter that has most of this leader's log, of those that can be reached.
    async fn best_follower(&self, status: &Status) -> Option<Member> {
        let others = status.membership.voters.iter();
        let others = others.filter(|&&id| id != self.options.member);
        let reached = others.map(async |&id| self.hears(id).await.then_some(id));
        let reached = futures::future::join_all(reached).await;
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let replication = metrics.replication.as_ref();
        let matching = |id: MemberId| replication.and_then(|all| all.get(&id.0).cloned().flatten());
        let reached = reached.into_iter().flatten();
        let best = reached.max_by_key(|&id| matching(id).map(|id| id.index))?;
        status.membership.members.get(&best).cloned()
    }

    /// Takes a snapshot and waits until it is on disk. Gives the last index that it covers.
    ///
    /// # Errors
    /// See [`ManageError`].
    pub async fn snapshot(&self, deadline: std::time::Instant) -> Result<u64, ManageError> {
        let applied = self.applied.borrow().index;
        let applied = applied.ok_or_else(|| {
            ManageError::Impossible(
                "nothing has been applied that a snapshot could hold".to_owned(),
            )
        })?;
        let asked = self.raft.trigger().snapshot().await;
        asked.map_err(|fatal| ManageError::Halted(fatal.to_string()))?;
        let mut status = self.status.clone();
        let taken = status.wait_for(|status| status.snapshot_index >= Some(applied));
        match timeout_at(Instant::from_std(deadline), taken).await {
            Ok(Ok(status)) => Ok(status.snapshot_index.unwrap_or(applied)),
            Ok(Err(_)) => Err(ManageError::Halted("it was shut down".to_owned())),
            Err(_) => Err(ManageError::Late("the snapshot")),
        }
    }
}

/// `begun`: an earlier step has been done.
pub(crate) fn manage_error(
    error: RaftError<TypeConfig, ClientWriteError<TypeConfig>>,
    begun: bool,
) -> ManageError {
    match error {
        RaftError::Fatal(fatal) => ManageError::Halted(fatal.to_string()),
        RaftError::APIError(ClientWriteError::ForwardToLeader(_)) if !begun => {
            ManageError::NotLeader
        }
        RaftError::APIError(
            ClientWriteError::ForwardToLeader(_) | ClientWriteError::LogEntryDiscarded(_),
        ) => ManageError::Late("the replacement"),
        RaftError::APIError(ClientWriteError::ChangeMembershipError(
            ChangeMembershipError::InProgress(_),
        )) => ManageError::Impossible("another change of the membership is under way".to_owned()),
        RaftError::APIError(error) => ManageError::Impossible(error.to_string()),
    }
}
