//! Leases: keys that end with their requester's signs of life.
//!
//! Time for leases is counted by the leader and passes through the log: a clock of its own, in the state,
//! that runs only while someone leads. No wall clock of any member has a part in it, and a lease has the
//! same time left whoever leads, and after any restart.

use crate::change::Change;
use crate::draft::Draft;
use crate::identifier::LeaseId;
use crate::keys::KeyEvent;
use crate::outcome::{Effect, Outcome};
use crate::refusal::Refusal;
use crate::view::View;

/// Shortest time to live, seconds; a shorter one that is asked for becomes this. As in etcd with its
/// usual election timeout.
pub const LEASE_TTL_S_MIN: u64 = 2;

/// Longest time to live that may be asked for, seconds. etcd's `MaxLeaseTTL`.
pub const LEASE_TTL_S_MAX: u64 = 9_000_000_000;

/// Most that one command may let pass, milliseconds: a leader that was paused does not make up for it.
pub const LEASE_TIME_PASSED_MS_MAX: u64 = 1_000;

/// Leases at a time.
pub const LEASES_MAX: u64 = 1_000_000;

/// Leases that end with one command, and keys after which no further one does.
const EXPIRED_AT_ONCE_MAX: usize = 1_000;

/// One lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    pub id: LeaseId,
    /// Seconds from a sign of life to its end.
    pub ttl_s: u64,
    /// When it ends, by the clock for leases, milliseconds.
    pub ends_ms: u64,
}

impl Lease {
    /// Time left at a moment of the clock for leases, milliseconds.
    pub fn left_ms(&self, now_ms: u64) -> u64 {
        let ends = self.ends_ms.saturating_sub(LEASE_TIME_PASSED_MS_MAX);
        ends.saturating_sub(now_ms)
    }
}

/// Asks for a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GrantLease {
    /// Drawn by whoever asks.
    pub lease: LeaseId,
    /// Seconds; at most [`LEASE_TTL_S_MAX`].
    pub ttl_s: u64,
}

/// A leader says that time has passed, and on what it counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PassLeaseTime {
    /// The term in which it leads.
    pub term: u64,
    /// Where the clock stood when it began to count.
    pub from_ms: u64,
    /// What has passed since by its own steady clock; more than [`LEASE_TIME_PASSED_MS_MAX`] counts as
    /// that.
    pub passed_ms: u64,
}

/// When a lease ends that shows a sign of life now. The clock in the state is behind by what has passed
/// since a leader last told it, which is at most the part that is added.
fn ends_ms(draft: &Draft<'_, impl View>, ttl_s: u64) -> u64 {
    let now = draft.globals.lease_clock_ms;
    now.saturating_add(ttl_s.saturating_mul(1_000))
        .saturating_add(LEASE_TIME_PASSED_MS_MAX)
}

fn applied(draft: &Draft<'_, impl View>, effect: Effect) -> Outcome {
    Outcome::Applied {
        revision: draft.globals.revision,
        effect,
    }
}

pub(crate) fn grant(draft: &mut Draft<'_, impl View>, ask: &GrantLease) -> Outcome {
    let lease = ask.lease;
    if draft.view.lease(lease).is_some() {
        return Outcome::Refused(Refusal::LeaseExists { lease });
    }
    let held = draft.globals.leases;
    if held >= LEASES_MAX {
        return Outcome::Refused(Refusal::TooManyLeases { held });
    }
    let ttl_s = ask.ttl_s.clamp(LEASE_TTL_S_MIN, LEASE_TTL_S_MAX);
    let ends_ms = ends_ms(draft, ttl_s);
    draft.globals.leases += 1;
    draft.push(Change::LeaseHeld {
        lease: Lease {
            id: lease,
            ttl_s,
            ends_ms,
        },
    });
    applied(draft, Effect::LeaseGranted { lease, ttl_s })
}

/// A sign of life. Doing it once more than it was asked for does no harm.
pub(crate) fn renew(draft: &mut Draft<'_, impl View>, id: LeaseId) -> Outcome {
    let Some(lease) = draft.view.lease(id) else {
        return Outcome::Refused(Refusal::LeaseNotFound { lease: id });
    };
    let ttl_s = lease.ttl_s;
    let ends_ms = ends_ms(draft, ttl_s);
    if ends_ms != lease.ends_ms {
        draft.push(Change::LeaseHeld {
            lease: Lease { ends_ms, ..lease },
        });
    }
    applied(draft, Effect::LeaseRenewed { lease: id, ttl_s })
}

pub(crate) fn revoke(draft: &mut Draft<'_, impl View>, id: LeaseId) -> Outcome {
    if draft.view.lease(id).is_none() {
        return Outcome::Refused(Refusal::LeaseNotFound { lease: id });
    }
    end(draft, id);
    applied(draft, Effect::LeaseRevoked)
}

/// Ends a lease and deletes its keys; gives their number.
fn end(draft: &mut Draft<'_, impl View>, id: LeaseId) -> usize {
    let keys = draft.view.lease_keys(id);
    let count = keys.len();
    for key in keys {
        draft.change_key(KeyEvent::Deleted { key }, Some(id));
    }
    draft.globals.leases -= 1;
    draft.push(Change::LeaseEnded { lease: id });
    count
}

/// Lets time pass, and ends leases whose time is over: as many as go into one entry.
///
/// A leader that was deposed, or counts from another moment than the one to which the clock has come,
/// is refused: what it counted may have been counted by another one.
pub(crate) fn pass_time(draft: &mut Draft<'_, impl View>, ask: &PassLeaseTime) -> Outcome {
    let (term, now_ms) = (draft.globals.lease_term, draft.globals.lease_clock_ms);
    if ask.term < term || ask.from_ms != now_ms {
        return Outcome::Refused(Refusal::LeaseTimeMoved { term, now_ms });
    }
    let now_ms = now_ms + ask.passed_ms.min(LEASE_TIME_PASSED_MS_MAX);
    draft.globals.lease_term = ask.term;
    draft.globals.lease_clock_ms = now_ms;
    let over = draft.view.leases_over(now_ms, EXPIRED_AT_ONCE_MAX);
    let mut all = over.len() < EXPIRED_AT_ONCE_MAX;
    let mut keys = 0;
    for id in over {
        if keys >= EXPIRED_AT_ONCE_MAX {
            all = false;
            break;
        }
        keys += end(draft, id);
    }
    applied(draft, Effect::LeaseTimePassed { all })
}
