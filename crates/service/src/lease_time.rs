//! The leader's clock for leases: it tells the state machine that time has passed, by its own steady
//! clock, while there are leases.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tally_consensus::{Replica, Role};
use tally_model::lease::PassLeaseTime;
use tally_model::{Command, Effect, Globals, Outcome, Request, View};
use tokio::time::MissedTickBehavior;

use crate::member::Member;

/// Between two times that the clock is told. A lease may end later than it should by this, and by what
/// one command lets pass at most.
const TOLD_EVERY: Duration = Duration::from_millis(500);
const TOLD_WITHIN: Duration = Duration::from_secs(5);

/// Since when a leader counts.
#[derive(Clone, Copy)]
struct Counting {
    term: u64,
    from: Instant,
}

/// Runs until the member's replica has stopped, or never will run.
pub(crate) async fn run(member: Arc<Member>) -> Result<(), String> {
    let Some(replica) = member.running().await else {
        return Ok(());
    };
    let mut tick = tokio::time::interval(TOLD_EVERY);
    // What passed while nothing could be told is not made up for.
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut counting: Option<Counting> = None;
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = member.ending.leaving.cancelled() => return Ok(()),
        }
        let status = replica.status();
        if status.role != Role::Leader {
            counting = None;
            continue;
        }
        let now = Counting {
            term: status.term,
            from: Instant::now(),
        };
        // What passed before it led in this term is another leader's to count, or nobody's.
        let before = counting
            .replace(now)
            .filter(|before| before.term == now.term);
        let mut passed = before.map_or(Duration::ZERO, |before| now.from - before.from);
        // Once more for as long as there are more leases to end than go into one entry.
        while !tell(&replica, now.term, passed).await {
            passed = Duration::ZERO;
        }
    }
}

/// What counts of the time that has passed. As long as no time of this term was taken, what a leader before has counted may
/// still be on its way: both together would be more than has passed.
fn counted_ms(globals: &Globals, term: u64, passed: Duration) -> u64 {
    match globals.lease_term == term {
        true => passed.as_millis().try_into().unwrap_or(u64::MAX),
        false => 0,
    }
}

/// Tells what has passed, if anyone has to know. False when there is more to do.
async fn tell(replica: &Replica, term: u64, passed: Duration) -> bool {
    let state = &replica.stores().state;
    let globals = state.with_view(|view| view.globals());
    let Some(globals) = globals.ok().filter(|globals| globals.leases > 0) else {
        return true;
    };
    let told = Request {
        tagged: None,
        command: Command::PassLeaseTime(PassLeaseTime {
            term,
            from_ms: globals.lease_clock_ms,
            passed_ms: counted_ms(&globals, term, passed),
        }),
    };
    match replica.propose(told, Instant::now() + TOLD_WITHIN).await {
        Ok(answer) => !matches!(
            answer.outcome,
            Outcome::Applied {
                effect: Effect::LeaseTimePassed { all: false },
                ..
            }
        ),
        Err(error) => {
            tracing::debug!(%error, "time for leases stands still");
            true
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The leader before has counted a second that is not told yet. A lease that is granted now would end a second and a half
    /// early if this one counted from when it began to lead.
    #[test]
    fn a_leader_counts_nothing_before_time_of_its_term_was_taken() {
        let mut globals = Globals {
            lease_term: 5,
            ..Globals::default()
        };
        let passed = Duration::from_millis(500);
        assert_eq!(counted_ms(&globals, 6, passed), 0);
        globals.lease_term = 6;
        assert_eq!(counted_ms(&globals, 6, passed), 500);
    }
}
