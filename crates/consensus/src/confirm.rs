//! Whether this member still leads, as a majority of the voters says it now.
//!
//! openraft tells by the answers to replication when its followers last knew the leader, and takes an answer to
//! one request for an answer to every later one that ends at the same entry. A leader that is paused and resumed
//! finds answers from before in its sockets, sends requests that end there, and would have itself confirmed by
//! voters that have elected another one meanwhile. So they are asked here, and what they answered before does
//! not count.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use openraft::errors::Fatal;
use openraft::raft::VoteRequest;
use tally_model::MemberId;
use tokio::sync::mpsc;

use crate::link::PeerLink;
use crate::raft::{self, TypeConfig, Vote};
use crate::replica::Replica;

/// Held while a member is asked: a silent one is asked once, and not again for each read.
#[derive(Default)]
pub(crate) struct Asking(Mutex<BTreeMap<MemberId, Arc<tokio::sync::Mutex<()>>>>);

impl Asking {
    fn of(&self, id: MemberId) -> Arc<tokio::sync::Mutex<()>> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.entry(id).or_default().clone()
    }
}

impl Replica {
    /// The vote by which this member leads; `None` when it does not.
    pub(crate) async fn leads_by(&self) -> Result<Option<Vote>, Fatal<TypeConfig>> {
        let me = self.member();
        let vote = self.raft.with_raft_state(|state| *state.vote_ref()).await?;
        Ok(Some(vote).filter(|vote| vote.committed && vote.leader_id.voted_for == me.0))
    }

    /// True when a majority of the voters says, after this was called, that it has voted for nobody after the
    /// leader of this vote, which is this member.
    pub(crate) async fn still_leads_by(&self, vote: Vote) -> Result<bool, Fatal<TypeConfig>> {
        let sets = self.raft.with_raft_state(|state| {
            let effective = state.membership_state.effective();
            effective.membership().get_joint_config().clone()
        });
        let sets: Vec<BTreeSet<u64>> = sets.await?;
        let mut agree = BTreeSet::from([self.member().0]);
        let others: BTreeSet<u64> = sets.iter().flatten().copied().collect();
        let others = others.difference(&agree).copied();
        let (answers, mut answered) =
            mpsc::channel(sets.iter().map(BTreeSet::len).sum::<usize>().max(1));
        for id in others.map(MemberId) {
            let Some(link) = self.link(id) else {
                continue;
            };
            let (asking, answers) = (self.asking.of(id), answers.clone());
            tokio::spawn(async move {
                let _one = tokio::select! {
                    one = asking.lock() => one,
                    () = answers.closed() => return,
                };
                if agrees(&*link, vote).await {
                    // Nobody waits for it when others were enough.
                    let _ = answers.send(id.0).await;
                }
            });
        }
        drop(answers);
        loop {
            let is_majority =
                |set: &BTreeSet<u64>| 2 * set.intersection(&agree).count() > set.len();
            if sets.iter().all(is_majority) {
                return Ok(true);
            }
            match answered.recv().await {
                Some(id) => agree.insert(id),
                None => return Ok(false),
            };
        }
    }
}

/// Has the other member voted for nobody after the leader of this vote? Would it vote for it, it is asked, which
/// changes nothing there; its answer has its vote.
async fn agrees(link: &dyn PeerLink, vote: Vote) -> bool {
    let answer = raft::pre_vote(link, &VoteRequest::new(vote, None)).await;
    answer.is_some_and(|answer| answer.vote.leader_id == vote.leader_id)
}
