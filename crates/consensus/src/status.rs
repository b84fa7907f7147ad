//! What a replica knows of itself and of the cluster. Reading it never waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use openraft::ServerState;
use openraft::metrics::RaftMetrics;
use tally_model::{MemberId, Revision};

use crate::membership::Membership;
use crate::raft::TypeConfig;

/// A member's part in its cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    Follower,
    /// Seeks a majority; also a leader that has lost touch with its own.
    Candidate,
    Leader,
    /// Receives the log and does not vote.
    Learner,
    /// Does not take part: not started, or stopped.
    #[default]
    Stopped,
}

/// How far the state has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppliedMark {
    /// Index of the last applied entry; `None` before the first, whose index is 0.
    pub index: Option<u64>,
    /// The term in which it was appended; 0 before the first.
    pub term: u64,
    /// The store's revision after it.
    pub revision: Revision,
}

/// See the module. Log indices are `None` before the first entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    pub role: Role,
    pub term: u64,
    /// The leader that this member knows; none while there are no signs of it.
    pub leader: Option<MemberId>,
    pub last_log_index: Option<u64>,
    pub committed_index: Option<u64>,
    /// Last entry that the newest snapshot covers.
    pub snapshot_index: Option<u64>,
    /// Last entry that is gone from the log.
    pub purged_index: Option<u64>,
    pub membership: Arc<Membership>,
    /// Why the replica has stopped; `None` while it works.
    pub halted: Option<String>,
}

impl Status {
    pub(crate) fn of(metrics: &RaftMetrics<TypeConfig>, membership: Arc<Membership>) -> Self {
        let halted = metrics.running_state.as_ref().err();
        let mut status = Self {
            role: match metrics.state {
                ServerState::Learner => Role::Learner,
                ServerState::Follower => Role::Follower,
                ServerState::Candidate => Role::Candidate,
                ServerState::Leader => Role::Leader,
                ServerState::Shutdown => Role::Stopped,
            },
            term: metrics.current_term,
            leader: metrics.current_leader.map(MemberId),
            membership,
            halted: halted.map(ToString::to_string),
            ..Self::default()
        };
        status.take_indices(metrics);
        status
    }

    /// What changes with every entry.
    pub(crate) fn take_indices(&mut self, metrics: &RaftMetrics<TypeConfig>) {
        self.last_log_index = metrics.last_log_index;
        self.committed_index = metrics.local_committed.map(|id| id.index);
        self.snapshot_index = metrics.snapshot.map(|id| id.index);
        self.purged_index = metrics.purged.map(|id| id.index);
    }

    /// Where clients reach the leader.
    pub fn leader_address(&self) -> Option<String> {
        self.membership.client_address(self.leader?)
    }
}

/// A member that applied the same entries and came to another state. One of the two is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HashMismatch {
    /// The entry after which the states differed.
    pub index: u64,
    pub member: MemberId,
}

/// What a replica has done since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Commands that clients sent to this member, turned away or not.
    pub proposals: u64,
    /// Commands that this member passed on to a leader.
    pub forwarded: u64,
    /// Attempts made again: no leader yet, leadership moved, or a link broke.
    pub retried: u64,
    /// Commands that were sent again after an attempt whose outcome was unknown, and had been applied by it.
    pub recognised: u64,
    /// Commands that were turned away because too many were under way.
    pub overloaded: u64,
    /// Linearizable reads.
    pub reads: u64,
    /// Rounds that were to find the index for them.
    pub read_rounds: u64,
    /// Leaders to which the connection broke and whose process was found gone.
    pub leaders_gone: u64,
    /// Leaders to which the connection broke and that were left to the election timeout.
    pub leaders_spared: u64,
}

/// The counters while they count.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) proposals: AtomicU64,
    pub(crate) forwarded: AtomicU64,
    pub(crate) retried: AtomicU64,
    pub(crate) recognised: AtomicU64,
    pub(crate) overloaded: AtomicU64,
    pub(crate) reads: AtomicU64,
    pub(crate) read_rounds: AtomicU64,
    pub(crate) leaders_gone: AtomicU64,
    pub(crate) leaders_spared: AtomicU64,
}

pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Counts {
    pub(crate) fn read(&self) -> Counters {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counters {
            proposals: read(&self.proposals),
            forwarded: read(&self.forwarded),
            retried: read(&self.retried),
            recognised: read(&self.recognised),
            overloaded: read(&self.overloaded),
            reads: read(&self.reads),
            read_rounds: read(&self.read_rounds),
            leaders_gone: read(&self.leaders_gone),
            leaders_spared: read(&self.leaders_spared),
        }
    }
}
