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

use futures::{StreamExt, stream};
use openraft::raft::TransferLeaderRequest;
use tally_model::MemberId;
use tokio::time::{Instant, sleep, timeout};

use crate::link::Presence;
use crate::raft::Vote;
use crate::replica::{Inner, Replica};
use crate::status::{Role, Status, count};

/// Pauses before each look at the leader's address. A process that ends does not close everything in
/// the same moment; one that still listens after these is not gone.
const LOOKS_AFTER_MS: [u64; 5] = [0, 5, 20, 50, 100];

/// How much later than the one before it the next voter asks for votes. Two that asked together would
/// take each other's votes, and that would cost another election. Long enough for a pre-vote, a vote and its
/// fsync on a machine that is busy with something else.
const TURN: Duration = Duration::from_millis(150);

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
    fn by(status: &Status) -> Option<Self> {
        let leader = status.leader.filter(|_| status.role == Role::Follower)?;
        let term = status.term;
        status.halted.is_none().then_some(Self { leader, term })
    }
}

/// Attends to whoever leads, until the replica is gone.
pub(crate) async fn run(replica: Weak<Inner>) {
    let Some(mut status) = replica.upgrade().map(|replica| replica.status.clone()) else {
        return;
    };
    loop {
        let led = match status.wait_for(|status| Led::by(status).is_some()).await {
            Ok(status) => Led::by(&status),
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
            moved = status.wait_for(|status| Led::by(status) != Some(led)) => match moved {
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
        let status = self.status.borrow();
        status.role == Role::Follower && status.term == led.term && status.halted.is_none()
    }

    /// True while this member has not voted in a later term, for itself or another one: as openraft knows it,
    /// of which the status tells a little later. Who stands already must not stand again.
    async fn may_stand(&self, led: Led) -> bool {
        let asked = self
            .raft
            .with_raft_state(move |state| state.vote_ref().leader_id.term == led.term);
        // An error: openraft has stopped, which the status tells as well.
        asked.await.unwrap_or(false)
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

    /// Votes for another leader from now on, and stands for election when its turn has come. Ends
    /// when there is a later term, and after an election timeout at the latest.
    async fn succeed(&self, led: Led) {
        let Led { leader, term } = led;
        let Some(turn) = turn(&self.status().membership.voters, leader, self.member()) else {
            return;
        };
        tracing::warn!(%leader, term, "the leader's process is gone; not waiting for the election timeout");
        let begun = Instant::now();
        let stands_at = begun + TURN * turn;
        let ends_at = begun + Duration::from_millis(*self.options.election_ms.end());
        let vote = Vote::new_committed(term, leader.0);
        let mut status = self.status.clone();
        while Instant::now() < ends_at && self.follows(led) {
            // To a member that is not the successor, a transfer of leadership means just this: the
            // lease on the leader of this vote has ended. Under any other vote it means nothing.
            let ended = TransferLeaderRequest::new(vote, leader.0, None);
            if self.raft.handle_transfer_leader(ended).await.is_err() {
                return;
            }
            let stands = Instant::now() >= stands_at && self.may_stand(led).await;
            if stands && self.raft.trigger().elect(true).await.is_err() {
                return;
            }
            let later = status.wait_for(|status| status.term != term);
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
}
