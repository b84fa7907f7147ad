//! Who leads, as far as this member may claim to know.
//!
//! openraft lets a leader without a majority go on in the hope that its majority comes back, and a
//! follower believe in a leader that it does not hear any more. Whoever asks this member must not
//! wait for either: here a leader counts only while there are signs of it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use openraft::Instant as _;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::metrics::RaftMetrics;
use tally_model::MemberId;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, sleep};

use crate::membership::Membership;
use crate::raft::{Raft, StoredMembership, TypeConfig};
use crate::status::{Role, Status};

/// Status that changes with every entry is told this long after a change at most. Whoever follows it would be
/// woken several times for each command.
const TOLD_WITHIN: Duration = Duration::from_millis(10);

/// When a leader was last heard. Clones share it.
#[derive(Clone)]
pub(crate) struct Heard(Arc<Mutex<Instant>>);

impl Default for Heard {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }
}

impl Heard {
    pub(crate) fn now(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn silence(&self) -> Duration {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .elapsed()
    }
}

/// What changes much less often than the status, which does with every entry. Who leads is told at once, that the
/// replica has halted within [`TOLD_WITHIN`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lead {
    pub(crate) role: Role,
    pub(crate) term: u64,
    pub(crate) leader: Option<MemberId>,
    pub(crate) halted: bool,
}

impl Lead {
    fn of(status: &Status) -> Self {
        Self {
            role: status.role,
            term: status.term,
            leader: status.leader,
            halted: status.halted.is_some(),
        }
    }
}

/// Translates openraft's metrics as they change and as time passes, until the replica is gone.
///
/// `membership` is what the stores hold: the metrics know none until openraft has begun to work.
pub(crate) fn follow(
    raft: &Raft,
    membership: Membership,
    patience: Duration,
    heard: Heard,
) -> (watch::Receiver<Status>, watch::Receiver<Lead>) {
    let mut metrics = raft.metrics();
    let mut of_server = raft.server_metrics();
    let mut leadership = Leadership {
        membership: Arc::new(membership),
        told: None,
        patience,
        heard,
        since: None,
    };
    let first = leadership.status(&metrics.borrow_watched());
    let (send_lead, lead) = watch::channel(Lead::of(&first));
    let (send, status) = watch::channel(first);
    tokio::spawn(async move {
        let mut ticks = tokio::time::interval(patience / 4);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                changed = metrics.changed() => if changed.is_err() {
                    return;
                },
                _ = ticks.tick() => {}
            }
            let now = leadership.status(&metrics.borrow_watched());
            let now_leads = Lead::of(&now);
            tell(&send, now);
            tell(&send_lead, now_leads);
            tokio::select! {
                // Also when there will be no more: the metrics tell why, and then end as well.
                _ = of_server.changed() => {}
                () = sleep(TOLD_WITHIN) => {}
            }
        }
    });
    (status, lead)
}

fn tell<T: PartialEq>(send: &watch::Sender<T>, now: T) {
    send.send_if_modified(|known| {
        let changed = *known != now;
        *known = now;
        changed
    });
}

struct Leadership {
    membership: Arc<Membership>,
    /// What openraft told when `membership` was made of it.
    told: Option<Arc<StoredMembership>>,
    patience: Duration,
    heard: Heard,
    /// Since when this member leads.
    since: Option<Instant>,
}

impl Leadership {
    /// Translated once for each change: the metrics change with every entry. While they tell of no
    /// member, what was known before stands.
    fn membership(&mut self, told: &Arc<StoredMembership>) -> Arc<Membership> {
        let known = self.told.as_ref();
        if known.is_none_or(|known| !Arc::ptr_eq(known, told)) {
            self.told = Some(told.clone());
            let now = Membership::of(told);
            if !now.members.is_empty() {
                self.membership = Arc::new(now);
            }
        }
        self.membership.clone()
    }

    fn status(&mut self, metrics: &RaftMetrics<TypeConfig>) -> Status {
        let mut status = Status::of(metrics, self.membership(&metrics.membership_config));
        if status.role != Role::Leader {
            self.since = None;
            if self.heard.silence() > self.patience {
                status.leader = None;
            }
            return status;
        }
        let since = *self.since.get_or_insert_with(Instant::now);
        let alone = status.membership.voters.len() == 1;
        let confirmed = metrics.last_quorum_acked.map(|at| at.elapsed());
        let silence = confirmed.unwrap_or(Duration::MAX).min(since.elapsed());
        if !alone && silence > self.patience {
            status.role = Role::Candidate;
            status.leader = None;
        }
        status
    }
}
