//! Watches the room on the disk, and makes the node read-only when there is none.

use std::path::PathBuf;
use std::time::Duration;

use tally_client::log_server::Identity;
use tally_client::{Answer, By, Error, Outcome, SetState, StorageState};
use tally_model::command::REASON_BYTES_MAX;
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::options::FreeBytes;
use crate::standing::{Ended, Shared};

/// Pause before the cluster is told again; the client itself has retried until its deadline.
const TELL_AGAIN_AFTER: Duration = Duration::from_millis(500);

/// Codes that say that this process is no longer the node.
const NOT_THE_NODE: [&str; 2] = ["T-310", "T-320"];

/// Asks the cluster to make the node read-only.
pub(crate) async fn make_read_only(identity: &Identity, reason: &str) -> Result<Answer, Error> {
    let ask = SetState {
        node: identity.node,
        to: StorageState::ReadOnly,
        by: By::Node {
            marker: identity.marker,
            incarnation: identity.incarnation,
        },
        // The system's text names a file, whose path may be long.
        reason: reason[..reason.floor_char_boundary(REASON_BYTES_MAX)].to_owned(),
    };
    match identity.client.set_state(ask).await {
        // Settled before it is asked anew, so that it cannot take effect late, after an operator has
        // made the node writable.
        Err(Error::Unknown { tag, .. }) => identity.client.resume(&tag).await,
        answered => answered,
    }
}

/// Looks after the disk.
pub(crate) struct DiskGuard {
    pub(crate) identity: Identity,
    pub(crate) data_dir: PathBuf,
    pub(crate) free_bytes_min: u64,
    pub(crate) every: Duration,
    pub(crate) free_bytes: FreeBytes,
    pub(crate) standing: Shared,
}

impl DiskGuard {
    /// Looks at the disk now and then, and whenever the standing changes: when an operator makes the
    /// node writable again, or a write found no room.
    pub(crate) async fn run(self) {
        let mut ticks = interval(self.every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut changes = self.standing.subscribe();
        loop {
            self.look().await;
            let standing = self.standing.get();
            if standing.ended.is_some() {
                return;
            }
            if let Some(found) = standing.disk_full
                && standing.state == StorageState::ReadWrite
            {
                self.tell(&found).await;
                continue;
            }
            tokio::select! {
                _ = ticks.tick() => {}
                changed = changes.changed() => if changed.is_err() { return },
            }
        }
    }

    async fn look(&self) {
        let (free_bytes, dir) = (self.free_bytes.clone(), self.data_dir.clone());
        let found = tokio::task::spawn_blocking(move || free_bytes(&dir)).await;
        let free = match found {
            Ok(Ok(free)) => free,
            Ok(Err(error)) => return tracing::warn!(%error, "free space is unknown"),
            Err(_) => return,
        };
        let least = self.free_bytes_min;
        if free < least {
            let found =
                format!("the disk is full: {free} bytes are free, at least {least} must be");
            self.standing.disk_is_full(&found);
        } else if self.standing.get().state != StorageState::ReadWrite {
            // Not before the cluster knows: else the node would change its mind unseen.
            self.standing.disk_has_room();
        }
    }

    /// Tells the cluster that the node is read-only. Never blocked by the cluster's rules.
    async fn tell(&self, reason: &str) {
        match make_read_only(&self.identity, reason).await {
            Ok(answer) => self.told(&answer).await,
            Err(error) => {
                tracing::warn!(%error, "the cluster does not know yet that the disk is full");
                sleep(TELL_AGAIN_AFTER).await;
            }
        }
    }

    async fn told(&self, answer: &Answer) {
        match &answer.outcome {
            Outcome::Applied { revision: at, .. } | Outcome::Replayed { since: at, .. } => {
                self.standing.moved(StorageState::ReadOnly, *at);
            }
            Outcome::Refused(refused) if NOT_THE_NODE.contains(&refused.code.as_str()) => {
                self.standing.end(Ended {
                    code: refused.code.clone(),
                    found: format!("fenced: {}", refused.found),
                });
            }
            // It has another state already, which the watch will tell, or the request was lost.
            Outcome::Refused(refused) => {
                tracing::warn!(%refused, "not made read-only");
                sleep(TELL_AGAIN_AFTER).await;
            }
        }
    }
}
