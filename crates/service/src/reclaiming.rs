//! The leader's care for what was compacted: it asks for a little more to be removed until nothing is
//! left, with commands that go their way among all others.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tally_consensus::{Replica, Role};
use tally_model::{Command, Request, View};

use crate::member::Member;

/// How often a leader looks whether there is something to do.
const LOOK_EVERY: Duration = Duration::from_millis(250);
const STEP_WITHIN: Duration = Duration::from_secs(5);

/// Runs until the member's replica has stopped, or never will run.
pub(crate) async fn run(member: Arc<Member>) -> Result<(), String> {
    let Some(replica) = member.running().await else {
        return Ok(());
    };
    loop {
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            () = member.ending.leaving.cancelled() => return Ok(()),
        }
        while replica.status().role == Role::Leader && is_reclaiming(&replica) {
            let step = Request {
                tagged: None,
                command: Command::ReclaimVersions,
            };
            // Whoever leads then asks again.
            if let Err(error) = replica.propose(step, Instant::now() + STEP_WITHIN).await {
                tracing::debug!(%error, "compacted revisions are not removed yet");
                break;
            }
        }
    }
}

fn is_reclaiming(replica: &Replica) -> bool {
    let state = &replica.stores().state;
    let globals = state.with_view(|view| view.globals());
    globals.is_ok_and(|globals| globals.is_reclaiming())
}
