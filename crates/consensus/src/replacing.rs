//! Putting a member in the place of another one: it is admitted as a learner, and votes once it has caught up. That
//! takes as long as it takes, so it goes on when its caller has given up waiting, as long as this member leads.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use openraft::{ChangeMembers, RaftMetrics};
use tally_model::MemberId;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use crate::manage::{ManageError, manage_error};
use crate::membership::{Member, Membership};
use crate::raft::{Node, TypeConfig};
use crate::replica::Replica;
use crate::status::Role;

/// Entries that a learner may be behind when it becomes a voter: those of a moment under load.
const BEHIND_MAX: u64 = 1_000;

/// The id that was removed; none when there was nobody to replace any more.
type Replaced = Result<Option<MemberId>, ManageError>;

/// The last replacement that was begun here.
#[derive(Debug, Default)]
pub(crate) struct Replacing(Mutex<Option<Begun>>);

#[derive(Debug)]
struct Begun {
    new: MemberId,
    replaced: watch::Receiver<Option<Replaced>>,
    /// Dropped, it ends what only waits; a change of the membership is never left half done.
    go_on: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

/// Who is in the place that a member is to have.
struct Place {
    voters: BTreeSet<MemberId>,
    /// Of the same name, but for the new one: a voter, and learners that never caught up.
    others: BTreeSet<MemberId>,
}

impl Place {
    fn old(&self) -> Option<MemberId> {
        self.others.intersection(&self.voters).next().copied()
    }

    fn learners(&self) -> BTreeSet<MemberId> {
        self.others.difference(&self.voters).copied().collect()
    }
}

fn numbers(ids: BTreeSet<MemberId>) -> BTreeSet<u64> {
    ids.into_iter().map(|id| id.0).collect()
}

impl Replica {
    /// Puts a member in the place of the one that has its name: admits it as a learner, waits until
    /// it has caught up, makes it a voter and removes the old one. Gives the removed id; none when it has the place already.
    ///
    /// Goes on after the deadline, as long as this member leads. Asked for again with the same new member, it waits for
    /// what was begun; with another one, that comes first.
    ///
    /// # Errors
    /// See [`ManageError`].
    pub async fn replace_member(
        &self,
        new: &Member,
        deadline: std::time::Instant,
    ) -> Result<Option<MemberId>, ManageError> {
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
            Ok(Err(_)) => Err(ManageError::Halted("it was shut down".to_owned())),
            Err(_) => Err(ManageError::Late("the replacement")),
        }
    }

    fn begin_to_replace(&self, new: &Member) -> watch::Receiver<Option<Replaced>> {
        let mut begun = self
            .replacing
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(begun) = begun.as_ref()
            && begun.new == new.id
            && begun.replaced.borrow().is_none()
            && !begun.task.is_finished()
        {
            return begun.replaced.clone();
        }
        let before = begun.take().map(|before| {
            drop(before.go_on);
            before.task
        });
        let (told, replaced) = watch::channel(None);
        let (go_on, stopped) = oneshot::channel();
        let (replica, member) = (self.clone(), new.clone());
        let task = tokio::spawn(async move {
            if let Some(before) = before {
                // One after the other; whatever became of it.
                let _ = before.await;
            }
            let replaced = replica.replace(&member, stopped).await;
            match &replaced {
                Ok(_) => tracing::info!(member = member.name, "it has its place"),
                Err(error) => tracing::warn!(member = member.name, %error, "not replaced"),
            }
            told.send_replace(Some(replaced));
        });
        *begun = Some(Begun {
            new: new.id,
            replaced: replaced.clone(),
            go_on,
            task,
        });
        replaced
    }

    async fn replace(&self, new: &Member, stopped: oneshot::Receiver<()>) -> Replaced {
        self.end_change().await?;
        let place = self.place(new).await?;
        let Some(old) = place.old() else {
            if !place.voters.contains(&new.id) {
                return Err(ManageError::UnknownMember(new.name.clone()));
            }
            let learners = place.learners();
            if !learners.is_empty() {
                let change = ChangeMembers::RemoveNodes(numbers(learners));
                self.change(change).await?;
            }
            return Ok(None);
        };
        let learner = self.raft.add_learner(new.id.0, new.into(), false).await;
        let admitted = learner.map_err(|error| manage_error(error, false))?.log_id;
        tokio::select! {
            caught_up = self.catches_up(new, admitted.index()) => caught_up?,
            _ = stopped => {
                let why = format!("{} has not caught up, and another replacement was asked for", new.name);
                return Err(ManageError::Impossible(why));
            }
        }
        // As it is now: much may have happened meanwhile.
        let place = self.place(new).await?;
        let learners = place.learners();
        let mut voters = place.voters;
        voters.retain(|voter| !place.others.contains(voter));
        voters.insert(new.id);
        let change = ChangeMembers::Batch(vec![
            ChangeMembers::ReplaceAllVoters(numbers(voters)),
            ChangeMembers::RemoveNodes(numbers(learners)),
        ]);
        self.change(change).await?;
        Ok(Some(old))
    }

    async fn place(&self, new: &Member) -> Result<Place, ManageError> {
        let membership = self.raft.with_raft_state(|state| {
            let effective = state.membership_state.effective();
            Membership::of(effective)
        });
        let membership = membership.await;
        let membership = membership.map_err(|fatal| ManageError::Halted(fatal.to_string()))?;
        let members = membership.members.values();
        let others = members.filter(|member| member.name == new.name && member.id != new.id);
        Ok(Place {
            others: others.map(|member| member.id).collect(),
            voters: membership.voters.clone(),
        })
    }

    /// Ends a change of the membership whose leader was lost in the middle of it.
    async fn end_change(&self) -> Result<(), ManageError> {
        let is_joint = self.raft.with_raft_state(|state| {
            let effective = state.membership_state.effective();
            effective.membership().get_joint_config().len() > 1
        });
        let is_joint = is_joint.await;
        match is_joint.map_err(|fatal| ManageError::Halted(fatal.to_string()))? {
            true => {
                self.change(ChangeMembers::AddVoterIds(BTreeSet::new()))
                    .await
            }
            false => Ok(()),
        }
    }

    async fn change(&self, change: ChangeMembers<u64, Node>) -> Result<(), ManageError> {
        let changed = self.raft.change_membership(change, false).await;
        changed.map(drop).map_err(|error| manage_error(error, true))
    }

    /// Waits until a learner has everything that there was when it was admitted, and is hardly behind what came since. openraft
    /// itself would take one that has nothing for one that has caught up, while the log is short.
    async fn catches_up(&self, learner: &Member, admitted: u64) -> Result<(), ManageError> {
        let is_removed = |metrics: &RaftMetrics<TypeConfig>| {
            let membership = &metrics.membership_config;
            let log_id = membership.log_id().as_ref();
            let knows = log_id.is_some_and(|id| id.index() >= admitted);
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
