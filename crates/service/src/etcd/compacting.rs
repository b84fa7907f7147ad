//! The leader's care for the history: it gives up revisions that are older than what is to be kept. What only they
//! needed is then removed as after any compaction.

use std::sync::Arc;
use std::time::Duration;

use tally_consensus::Role;
use tally_model::command::Compact;
use tally_model::{Command, Revision, View};

use super::writer::Writer;
use crate::deadline;
use crate::member::Member;

/// How often a leader looks whether there is something to do.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// One part in so many more than what is kept may be there, so that not every write is followed by a compaction.
const SLACK: u64 = 10;

/// Runs until the member leaves, or at once when it is to keep everything.
pub(super) async fn run(member: Arc<Member>, writer: Arc<Writer>) {
    let kept = member.config.tuning.keep_revisions;
    if kept == 0 {
        return;
    }
    loop {
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            () = member.ending.leaving.cancelled() => return,
        }
        let Some(revision) = due(&member, kept) else {
            continue;
        };
        let compact = Command::Compact(Compact { revision });
        // Whoever leads then looks again. A client that has compacted further meanwhile is no harm.
        match writer.append(None, deadline::usual(), compact).await {
            Ok(_) => tracing::debug!(%revision, "older revisions are given up"),
            Err(status) => tracing::debug!(%status, "older revisions are not given up yet"),
        }
    }
}

/// The revision to compact at, when this member leads and enough has come together.
fn due(member: &Member, kept: u64) -> Option<Revision> {
    let replica = member.may_serve().ok()?;
    if replica.status().role != Role::Leader {
        return None;
    }
    let state = &replica.stores().state;
    let globals = state.with_view(|view| view.globals()).ok()?;
    target(globals.revision, globals.compacted, kept)
}

fn target(now: Revision, compacted: Revision, kept: u64) -> Option<Revision> {
    let target = now.0.checked_sub(kept)?;
    let due = target.checked_sub(compacted.0)?;
    (due > kept / SLACK).then_some(Revision(target))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_never_given_up() {
        let at = |now, compacted| target(Revision(now), Revision(compacted), 100).map(|at| at.0);
        assert_eq!(at(1, 0), None);
        assert_eq!(at(110, 0), None);
        assert_eq!(at(111, 0), Some(11));
        assert_eq!(at(1_000, 890), None);
        assert_eq!(at(1_000, 889), Some(900));
        // A client has compacted further.
        assert_eq!(at(1_000, 1_000), None);
        assert_eq!(target(Revision(u64::MAX), Revision(0), u64::MAX), None);
    }
}
