//! A leader whose process is gone is succeeded at once, not after an election timeout.
//!
//! A process that ends closes its connections, and its host refuses new ones. A member that sees both
//! gives up its lease on that leader, so that it may vote for another one, and asks the others whether
//! they would vote for it. They decide by what they have seen themselves: nobody is deposed because one
//! member cannot reach it. Their answers also tell which of them would be elected as well, so that only
//! one stands. A leader that is slow, paused or cut off refuses no connection and is left to the election
//! timeout. ADR 8 says why this is safe.

use std::collections::BTreeSet;
use std::sync::Weak;
use std::time::Duration;

use futures::stream::FuturesUnordered;
use futures::{StreamExt, stream};
use openraft::raft::{TransferLeaderRequest, VoteRequest};
use tally_model::MemberId;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::leadership::Lead;
use crate::link::Presence;
use crate::raft::{self, LogId, TypeConfig, Vote};
use crate::replica::{Inner, Replica};
use crate::status::{Role, count};

/// Pauses before each look at the leader's address. A process that ends does not close everything in
/// the same moment; one that still listens after these is not gone.
const LOOKS_AFTER_MS: [u64; 5] = [0, 5, 20, 50, 100];

/// How long voters may take to say whether they would vote once the first has said it. One that is silent must
/// not keep the others from electing somebody.
const OTHERS_WITHIN: Duration = Duration::from_millis(100);

/// How long to wait before asking again: others may not have seen it yet.
const ASK_AGAIN: Duration = Duration::from_millis(10);

/// How long to leave a leader alone to which no stream can be opened.
const ATTEND_AGAIN: Duration = Duration::from_millis(200);

/// Whom a member follows, and in which term.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Led {
    leader: MemberId,
    term: u64,
}

impl Led {
    /// `None` where there is nobody to be succeeded.
    fn by(lead: &Lead) -> Option<Self> {
        let leader = lead.leader.filter(|_| lead.role == Role::Follower)?;
        let term = lead.term;
        (!lead.halted).then_some(Self { leader, term })
    }
}

/// Attends to whoever leads, until the replica is gone.
pub(crate) async fn run(replica: Weak<Inner>) {
    let Some(mut lead) = replica.upgrade().map(|replica| replica.lead.clone()) else {
        return;
    };
    loop {
        let led = match lead.wait_for(|lead| Led::by(lead).is_some()).await {
            Ok(lead) => Led::by(&lead),
            Err(_) => return,
        };
        let (Some(led), Some(inner)) = (led, replica.upgrade()) else {
            continue;
        };
        let link = Replica::from(inner).link(led.leader);
        // A stream on which nothing is asked: it tells when the connection breaks.
        let attended = match &link {
            Some(link) => link.forward(stream::pending().boxed()).await.ok(),
            None => None,
        };
        let Some(mut attended) = attended else {
            sleep(ATTEND_AGAIN).await;
            continue;
        };
        tokio::select! {
            _ = attended.next() => {}
            moved = lead.wait_for(|lead| Led::by(lead) != Some(led)) => match moved {
                Ok(_) => continue,
                Err(_) => return,
            },
        }
        let Some(inner) = replica.upgrade() else {
            return;
        };
        let replica = Replica::from(inner);
        if replica.is_gone(led).await {
            count(&replica.counts.leaders_gone);
            replica.succeed(led).await;
        } else {
            count(&replica.counts.leaders_spared);
        }
    }
}

impl Replica {
    /// True while this member knows of nobody after that leader. It need not believe in it any more.
    fn follows(&self, led: Led) -> bool {
        let lead = self.lead.borrow();
        lead.role == Role::Follower && lead.term == led.term && !lead.halted
    }

    /// Does the leader's own host say that nobody listens there any more?
    async fn is_gone(&self, led: Led) -> bool {
        for pause in LOOKS_AFTER_MS {
            sleep(Duration::from_millis(pause)).await;
            let Some(link) = self.link(led.leader) else {
                return false;
            };
            if !self.follows(led) {
                return false;
            }
            match link.presence().await {
                Presence::Refused => return true,
                Presence::Listening => {}
                Presence::Unknown => return false,
            }
        }
        false
    }

    /// Votes for another leader from now on, and stands for election when that is for this member to do.
    /// Ends when there is a later term, and after an election timeout at the latest.
    async fn succeed(&self, led: Led) {
        let Led { leader, term } = led;
        if !self.status().membership.voters.contains(&self.member()) {
            return;
        }
        tracing::warn!(%leader, term, "the leader's process is gone; not waiting for the election timeout");
        let ends_at = Instant::now() + Duration::from_millis(*self.options.election_ms.end());
        let vote = Vote::new_committed(term, leader.0);
        // To a member that is not the successor, a transfer of leadership means just that the lease on
        // the leader of this vote has ended; the successor stands. Under any other vote it means nothing:
        // who has voted in a later term meanwhile does not stand in the one after that.
        let transfer = |to: MemberId| TransferLeaderRequest::new(vote, to.0, None);
        let mut lead = self.lead.clone();
        while Instant::now() < ends_at && self.follows(led) {
            if self
                .raft
                .handle_transfer_leader(transfer(leader))
                .await
                .is_err()
            {
                return;
            }
            if self.is_next(led).await {
                let stands = self.raft.handle_transfer_leader(transfer(self.member()));
                if stands.await.is_err() {
                    return;
                }
            }
            let later = lead.wait_for(|lead| lead.term != term);
            // News or not, the loop looks again.
            let _ = timeout(ASK_AGAIN, later).await;
        }
    }

    /// Asks the voters whether they would vote for this member in the next term. True when it would be elected
    /// and none of those that would vote for it should stand instead.
    async fn is_next(&self, led: Led) -> bool {
        let last_log = self
            .raft
            .with_raft_state(|state| state.log_ids.last().copied());
        let Ok(last_log) = last_log.await else {
            return false;
        };
        let me = self.member();
        let request = VoteRequest::new(Vote::new(led.term + 1, me.0), last_log);
        let membership = self.status().membership;
        let voters = membership.voters.len();
        let me = Candidate { last_log, id: me };
        let others = membership.voters.iter().copied();
        let others = others.filter(|&id| id != me.id && id != led.leader);
        let mut not_heard: BTreeSet<_> = others.collect();
        let mut asked: FuturesUnordered<_> = not_heard
            .iter()
            .map(|&id| {
                let request = &request;
                async move { (id, self.would_vote(id, request).await) }
            })
            .collect();
        let mut willing = Vec::new();
        let first = Duration::from_millis(*self.options.election_ms.start());
        let mut until = Instant::now() + first;
        while let Ok(Some((id, candidate))) = timeout_at(until, asked.next()).await {
            not_heard.remove(&id);
            willing.extend(candidate);
            // Of those that are left none comes before this member.
            let rest_comes_after = not_heard.first().is_none_or(|&next| next > me.id);
            if rest_comes_after && me.is_chosen(&willing, voters) {
                return true;
            }
            until = until.min(Instant::now() + OTHERS_WITHIN);
        }
        me.is_chosen(&willing, voters)
    }

    /// The voter as a candidate, if it would vote for another one.
    async fn would_vote(
        &self,
        id: MemberId,
        request: &VoteRequest<TypeConfig>,
    ) -> Option<Candidate> {
        let link = self.link(id)?;
        let answer = raft::pre_vote(&*link, request).await?;
        let candidate = Candidate {
            last_log: answer.last_log_id,
            id,
        };
        answer.vote_granted.then_some(candidate)
    }
}

/// Who could stand for election.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    last_log: Option<LogId>,
    id: MemberId,
}

impl Candidate {
    /// True with a majority, when none of it knows as much and comes before this one: each of them decides
    /// in the same way, so that one stands.
    fn is_chosen(self, willing: &[Self], voters: usize) -> bool {
        let comes_before = |other: &Self| other.last_log >= self.last_log && other.id < self.id;
        1 + willing.len() > voters / 2 && !willing.iter().any(comes_before)
    }
}

#[cfg(test)]
mod tests {
    use openraft::vote::RaftLeaderId;

    use super::*;
    use crate::raft::LeaderId;

    fn candidate(id: u64, index: u64) -> Candidate {
        let last_log = LogId::new(LeaderId::new(1, 1).to_committed(), index);
        Candidate {
            last_log: Some(last_log),
            id: MemberId(id),
        }
    }

    #[test]
    fn one_of_those_who_know_the_same_stands() {
        let (second, third) = (candidate(2, 7), candidate(3, 7));
        assert!(second.is_chosen(&[third], 3));
        assert!(!third.is_chosen(&[second], 3));
    }

    #[test]
    fn who_knows_more_stands_whatever_its_id() {
        let (second, third) = (candidate(2, 6), candidate(3, 7));
        assert!(third.is_chosen(&[second], 3));
        assert!(!second.is_chosen(&[], 3), "refused by one that knows more");
    }

    #[test]
    fn one_that_would_not_vote_yet_is_not_waited_for_by_a_majority_without_it() {
        let (fourth, fifth) = (candidate(4, 7), candidate(5, 7));
        assert!(candidate(3, 7).is_chosen(&[fourth, fifth], 5));
        assert!(!fourth.is_chosen(&[fifth], 5), "two of five");
    }
}
