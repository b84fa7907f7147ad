//! How far the store has come, for those that asked to be told.

use std::time::Duration;

use tally_model::Revision;
use tokio::time::Instant;

use super::{Ended, NO_WATCH, Source, Stream};
use crate::etcd::watch::answer::WatchResponse;

/// Watchers are looked at so often while they wait to be told how far the store has come.
const LOOKS_AT_QUIET_ONES: u32 = 20;

impl Stream {
    /// Tells those that are to know it how far the store has come. Everything before was told.
    pub(super) async fn progress(&mut self, through: Revision) -> Result<(), Ended> {
        let due = self.watchers.iter_mut();
        let due = due.filter(|(_, watcher)| {
            let tells_nothing_old = watcher.not_before.max(Revision(watcher.from.0 - 1)) <= through;
            let in_hub = matches!(watcher.source, Source::Hub { .. });
            watcher.progress_due && in_hub && tells_nothing_old
        });
        let due = due.map(|(id, watcher)| {
            watcher.progress_due = false;
            watcher.quiet_since = Instant::now();
            *id
        });
        let mut told: Vec<i64> = due.collect();
        // While one has not caught up it is not true of all, and the client may have been told of more meanwhile; it is
        // asked again when the last one has caught up.
        if self.progress_asked && self.behind.is_empty() && through >= self.told {
            self.progress_asked = false;
            // Nor is it true of one whose first revision is still to come. As in etcd, the client is not answered; nor is
            // one whose watchers are gone by now.
            let mut watchers = self.watchers.values();
            if !self.watchers.is_empty() && watchers.all(|watcher| watcher.not_before <= through) {
                told.push(NO_WATCH);
            }
        }
        for id in told {
            let progress = WatchResponse {
                watch_id: id,
                ..self.answer(through)
            };
            self.send(progress).await?;
        }
        Ok(())
    }

    /// Finds those that asked to be told how far the store has come, and have heard nothing for long.
    pub(super) fn look_for_quiet_ones(&mut self) {
        let mut any = false;
        let progress_every = self.progress_every();
        for watcher in self.watchers.values_mut() {
            if watcher.progress && watcher.quiet_since.elapsed() >= progress_every {
                watcher.progress_due = true;
                any = true;
            }
        }
        if any {
            self.ask_progress();
        }
    }

    pub(super) fn ask_progress(&self) {
        self.hub.ask_progress(&self.way, self.told);
    }

    /// How often quiet ones are looked for.
    pub(super) fn look_every(&self) -> Duration {
        self.progress_every() / LOOKS_AT_QUIET_ONES
    }

    /// After so long without an event, a watcher that asked for it is told how far the store has come.
    fn progress_every(&self) -> Duration {
        Duration::from_millis(self.member.config.tuning.progress_notify_ms)
    }
}
