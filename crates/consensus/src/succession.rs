//! A leader whose process is gone is succeeded at once, not after an election timeout.
//!
//! A process that ends closes its connections, and its host refuses new ones. A member that sees both
//! gives up its lease on that leader, so that it may vote for another one, and in its turn asks the
//! others whether they would vote for it. They decide by what they have seen themselves: nobody is
//! deposed because one member cannot reach it. A leader that is slow, paused or cut off refuses no
//! connection and is left to the election timeout. ADR 8 says why this is safe.

use std::collections::BTreeSet;
use std::sync::Weak;
use std::time::Duration;

use openraft::raft::TransferLeaderRequest;
use tally_model::MemberId;
use tally_proto::storage;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use crate::link::Presence;
use crate::raft::{self, Vote};
use crate::replica::{Inner, Replica};
use crate::status::{Role, count};

/// Pauses before each look at the leader's address. A process that ends does not close everything in
/// the same moment; one that still listens after these is not gone.
const LOOKS_AFTER_MS: [u64; 5] = [0, 5, 20, 50, 100];

/// How much later than the one before it the next voter asks for votes. Two that asked together would
/// take each other's votes, and that would cost an election timeout.
const TURN: Duration = Duration::from_millis(50);

/// How long to wait before asking again: others may not have seen it yet.
const ASK_AGAIN: Duration = Duration::from_millis(15);

/// The leader whose replication ended last, by the vote that it leads under.
pub(crate) type Lost = watch::Sender<Option<storage::Vote>>;

/// Goes with one incoming stream of replication, and reports its leader lost when the stream ends or
/// is dropped.
pub(crate) struct Replication {
    lost: Lost,
    leader: Option<storage::Vote>,
}

impl Replication {
    pub(crate) fn new(lost: Lost) -> Self {
        Self { lost, leader: None }
    }

    /// Who sends in this stream.
    pub(crate) fn led_by(&mut self, vote: Option<&storage::Vote>) {
        self.leader = vote.copied();
    }
}

impl Drop for Replication {
    fn drop(&mut self) {
        if self.leader.is_some() {
            self.lost.send_replace(self.leader);
        }
    }
}

/// Looks after leaders that were lost, until the replica is gone.
pub(crate) async fn run(replica: Weak<Inner>, mut lost: watch::Receiver<Option<storage::Vote>>) {
    while lost.changed().await.is_ok() {
        let vote = *lost.borrow_and_update();
        let (Some(vote), Some(replica)) = (vote, replica.upgrade()) else {
            continue;
        };
        let replica = Replica::from(replica);
        let leader = MemberId(vote.candidate);
        // A member that stops closes its own streams.
        if leader == replica.member() || !replica.follows(&vote) {
            continue;
        }
        if replica.is_gone(leader, &vote).await {
            count(&replica.counts.leaders_gone);
            replica.succeed(leader, &vote).await;
        } else {
            count(&replica.counts.leaders_spared);
        }
    }
}

impl Replica {
    /// True while this member knows of nobody after the leader of that vote.
    fn follows(&self, vote: &storage::Vote) -> bool {
        let status = self.status.borrow();
        status.role == Role::Follower && status.term == vote.term && status.halted.is_none()
    }

    /// Does the leader's own host say that nobody listens there any more?
    async fn is_gone(&self, leader: MemberId, vote: &storage::Vote) -> bool {
        for pause in LOOKS_AFTER_MS {
            sleep(Duration::from_millis(pause)).await;
            let Some(link) = self.link(leader) else {
                return false;
            };
            if !self.follows(vote) {
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

    /// Votes for another leader from now on, and stands for election when its turn has come. Ends
    /// when there is a later term, and after an election timeout at the latest.
    async fn succeed(&self, leader: MemberId, vote: &storage::Vote) {
        let Some(turn) = turn(&self.status().membership.voters, leader, self.member()) else {
            return;
        };
        tracing::warn!(%leader, term = vote.term, "the leader's process is gone; not waiting for the election timeout");
        let begun = Instant::now();
        let stands_at = begun + TURN * turn;
        let ends_at = begun + Duration::from_millis(*self.options.election_ms.end());
        let held: Vote = raft::vote(vote);
        let mut status = self.status.clone();
        while Instant::now() < ends_at && self.follows(vote) {
            // To a member that is not the successor, a transfer of leadership means just this: the
            // lease on the leader of this vote has ended. Under any other vote it means nothing.
            let ended = TransferLeaderRequest::new(held, leader.0, None);
            if self.raft.handle_transfer_leader(ended).await.is_err() {
                return;
            }
            let stands = Instant::now() >= stands_at;
            if stands && self.raft.trigger().elect(true).await.is_err() {
                return;
            }
            let later = status.wait_for(|status| status.term != vote.term);
            // News or not, the loop looks again.
            let _ = timeout(ASK_AGAIN, later).await;
        }
    }
}

/// How many voters ask before this one; `None` for who does not vote.
fn turn(voters: &BTreeSet<MemberId>, leader: MemberId, me: MemberId) -> Option<u32> {
    let mut others = voters.iter().filter(|&&id| id != leader);
    let turn = others.position(|&id| id == me)?;
    u32::try_from(turn).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn voters_ask_one_after_the_other_and_learners_never() {
        let voters = BTreeSet::from([1, 2, 3].map(MemberId));
        assert_eq!(turn(&voters, MemberId(2), MemberId(1)), Some(0));
        assert_eq!(turn(&voters, MemberId(2), MemberId(3)), Some(1));
        assert_eq!(turn(&voters, MemberId(2), MemberId(9)), None);
    }

    #[test]
    fn a_stream_reports_the_leader_that_it_ended_with_and_an_empty_one_nobody() {
        let (lost, reported) = watch::channel(None);
        drop(Replication::new(lost.clone()));
        assert_eq!(*reported.borrow(), None);
        let vote = |term| storage::Vote {
            term,
            candidate: 7,
            committed: true,
        };
        let mut stream = Replication::new(lost);
        stream.led_by(Some(&vote(1)));
        stream.led_by(Some(&vote(2)));
        drop(stream);
        assert_eq!(*reported.borrow(), Some(vote(2)));
    }
}
