//! A member that was away is ready when it has applied everything that was answered before it came
//! back. Whoever restarts one member after the other waits for that, or the last ones would have to
//! wait for the first ones.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tally_consensus::Consistency;

use crate::member::Member;

/// One look; the leader is asked anew after that.
const LOOK_WITHIN: Duration = Duration::from_secs(5);
/// Pause after a look that found no leader.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Looks until the member has caught up, once.
pub(crate) async fn run(member: Arc<Member>) -> Result<(), String> {
    let leaving = member.ending.leaving.clone();
    leaving.run_until_cancelled(catch_up(&member)).await;
    Ok(())
}

async fn catch_up(member: &Member) {
    let Some(replica) = member.running().await else {
        return;
    };
    loop {
        let deadline = Instant::now() + LOOK_WITHIN;
        // A linearizable read waits for just that.
        match replica.read(Consistency::Linearizable, deadline).await {
            Ok(_) => return member.has_caught_up(),
            Err(error) => tracing::debug!(%error, "not caught up yet"),
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
