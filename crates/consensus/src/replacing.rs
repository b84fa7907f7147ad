//! Putting a member in the place of another one: it is admitted as a learner, and votes once it has caught up. That
//! takes as long as it takes, so it goes on when its caller has given up waiting, as long as this member leads.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use openraft::{ChangeMembers, RaftMetrics};
use tally_model::MemberId;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout_at};

use crate::manage::{ManageError, manage_error};
use crate::membership::Member;
use crate::raft::TypeConfig;
use crate::replica::Replica;
use crate::status::Role;

/// Entries that a learner may be behind when it becomes a voter: those of a moment under load.
const BEHIND_MAX: u64 = 1_000;

type Replaced = Option<Result<MemberId, ManageError>>;

/// The last replacement that was begun here.
#[derive(Debug, Default)]
pub(crate) struct Replacing(Mutex<Option<Begun>>);

#[derive(Debug)]
struct Begun {
    new: MemberId,
    replaced: watch::Receiver<Replaced>,
    task: AbortHandle,
}

impl Replica {
    /// Puts a member in the place of the one that has its name: admits it as a learner, waits until
    /// it has caught up, makes it a voter and removes the old one. Gives the removed id.
    ///
    /// Goes on after the deadline, as long as this member leads. Asked for again with the same new member, it waits for
    /// what was begun; with another one, that one takes the place.
    ///
    /// # Errors
    /// See [`ManageError`].
    pub async fn replace_member(
        &self,
        new: &Member,
        deadline: std::time::Instant,
    ) -> Result<MemberId, ManageError> {
        if self.status().role != Role::Leader {
            return Err(ManageError::NotLeader);
        }
        let mut replaced = self.begin_to_replace(new);
        let waited = replaced.wait_for(Option::is_some);
        match timeout_at(Instant::from_std(deadline), waited).await {
            Ok(Ok(replaced)) => match &*replaced {
                Some(replaced) => replaced.clone(),
                None => Err(ManageError::Late("the replacement")),
            },
            Ok(Err(_)) => Err(ManageError::Impossible(
                "another member is to take the place".to_owned(),
            )),
            Err(_) => Err(ManageError::Late("the replacement")),
        }
    }

    fn begin_to_replace(&self, new: &Member) -> watch::Receiver<Replaced> {
        let mut begun = self
            .replacing
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(begun) = begun.as_ref() {
            if begun.new == new.id && begun.replaced.borrow().is_none() && !begun.task.is_finished()
            {
                return begun.replaced.clone();
            }
            begun.task.abort();
        }
        let (told, replaced) = watch::channel(None);
        let (replica, new) = (self.clone(), new.clone());
        let id = new.id;
        let task = tokio::spawn(async move {
            let replaced = replica.replace(&new).await;
            match &replaced {
                Ok(old) => tracing::info!(member = new.name, %old, "a member was replaced"),
                Err(error) => {
                    tracing::warn!(member = new.name, %error, "a member was not replaced")
                }
            }
            told.send_replace(Some(replaced));
        });
        *begun = Some(Begun {
            new: id,
            replaced: replaced.clone(),
            task: task.abort_handle(),
        });
        replaced
    }

    async fn replace(&self, new: &Member) -> Result<MemberId, ManageError> {
        self.others_of_its_name(new)?;
        let learner = self.raft.add_learner(new.id.0, new.into(), false).await;
        let admitted = learner.map_err(|error| manage_error(error, false))?.log_id;
        self.catches_up(new, admitted.index()).await?;
        // As it is now: another member may have been replaced meanwhile.
        let (old, others) = self.others_of_its_name(new)?;
        let mut voters = self.status().membership.voters.clone();
        voters.retain(|voter| !others.contains(voter));
        voters.insert(new.id);
        let numbers = |ids: BTreeSet<MemberId>| ids.into_iter().map(|id| id.0).collect();
        let learners = others
            .iter()
            .filter(|id| !self.is_voter(**id))
            .copied()
            .collect();
        let change = ChangeMembers::Batch(vec![
            ChangeMembers::ReplaceAllVoters(numbers(voters)),
            ChangeMembers::RemoveNodes(numbers(learners)),
        ]);
        let changed = self.raft.change_membership(change, false).await;
        changed.map_err(|error| manage_error(error, true))?;
        Ok(old)
    }

    fn is_voter(&self, id: MemberId) -> bool {
        self.status.borrow().membership.voters.contains(&id)
    }

    /// The voter in whose place a member comes, and all that have its name: a change that was begun may have left two voters, and
    /// one that never ended a learner.
    fn others_of_its_name(
        &self,
        new: &Member,
    ) -> Result<(MemberId, BTreeSet<MemberId>), ManageError> {
        let membership = self.status().membership;
        let others = membership.members.values();
        let others = others.filter(|member| member.name == new.name && member.id != new.id);
        let others: BTreeSet<MemberId> = others.map(|member| member.id).collect();
        let mut voters = others.iter().filter(|id| membership.voters.contains(id));
        match voters.next() {
            Some(old) => Ok((*old, others.clone())),
            None => Err(ManageError::UnknownMember(new.name.clone())),
        }
    }

    /// Waits until a learner has everything that there was when it was admitted, and is hardly behind what came since. openraft
    /// itself would take one that has nothing for one that has caught up, while the log is short.
    async fn catches_up(&self, learner: &Member, admitted: u64) -> Result<(), ManageError> {
        let is_removed = |metrics: &RaftMetrics<TypeConfig>| {
            let membership = &metrics.membership_config;
            let knows = membership
                .log_id()
                .as_ref()
                .is_some_and(|id| id.index() >= admitted);
            knows && membership.membership().get_node(&learner.id.0).is_none()
        };
        let wait = self.raft.wait(None);
        let waited = wait.metrics(
            |metrics| {
                let Some(replication) = &metrics.replication else {
                    // It does not lead any more, and the next step says so.
                    return true;
                };
                let matched = replication.get(&learner.id.0).cloned().flatten();
                let matched = matched.map_or(0, |id| id.index());
                let behind = metrics.last_log_index.unwrap_or(0).saturating_sub(matched);
                (matched >= admitted && behind <= BEHIND_MAX) || is_removed(metrics)
            },
            "a learner has caught up",
        );
        let metrics = waited.await;
        let metrics = metrics.map_err(|why| ManageError::Halted(why.to_string()))?;
        match is_removed(&metrics) {
            true => Err(ManageError::Impossible(format!(
                "{} was removed before it had caught up",
                learner.name
            ))),
            false => Ok(()),
        }
    }
}
