//! What the log server may do now: what the cluster says, and what it found out itself.

use tally_client::StorageState;
use tally_model::explanation::codes;
use tally_proto::fault::Fault;
use tokio::sync::watch;
use tonic::{Code, Status};

/// A newer incarnation has registered.
const FENCED: &str = "T-320";

/// A snapshot of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    /// As the cluster says.
    pub(crate) state: StorageState,
    /// Revision of the transition to it.
    pub(crate) revision: u64,
    /// There is no room on the disk, whatever the cluster says.
    pub(crate) disk_full: Option<String>,
    /// A write found no room and may have left a part behind, so there is no other before a restart.
    pub(crate) write_failed: bool,
    /// Why it must not serve any more.
    pub(crate) ended: Option<Ended>,
}

/// Why a log server cannot go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Stable code: T-320 when a newer incarnation has fenced it, T-310 when the node turned out to be
    /// another marker's, else T-008.
    pub code: String,
    /// What was found, in one line.
    pub found: String,
}

impl Ended {
    pub(crate) fn halted(found: impl Into<String>) -> Self {
        Self {
            code: codes::HALTED.to_owned(),
            found: found.into(),
        }
    }

    pub(crate) fn fenced(found: impl Into<String>) -> Self {
        Self {
            code: FENCED.to_owned(),
            found: found.into(),
        }
    }
}

impl Standing {
    /// Appends are accepted in `read-write` only, with room on the disk.
    pub(crate) fn check_append(&self) -> Result<(), Status> {
        self.check_not_ended()?;
        if !self.state.permits().write {
            return Err(self.not_permitted("appends"));
        }
        match &self.disk_full {
            None => Ok(()),
            Some(found) => Err(disk_full(found, self.write_failed)),
        }
    }

    /// Reads are answered in every state that permits them.
    pub(crate) fn check_read(&self) -> Result<(), Status> {
        self.check_not_ended()?;
        if self.state.permits().read {
            Ok(())
        } else {
            Err(self.not_permitted("reads"))
        }
    }

    fn check_not_ended(&self) -> Result<(), Status> {
        match &self.ended {
            None => Ok(()),
            Some(Ended { code, found }) => {
                let found = format!("the log server has stopped: {found}");
                Err(Fault::new(code, found).into_status(Code::FailedPrecondition))
            }
        }
    }

    fn not_permitted(&self, what: &str) -> Status {
        let found = format!("the log server is {}, which permits no {what}", self.state);
        Fault::new(codes::NOT_PERMITTED, found)
            .with_next("tally node show NAME")
            .into_status(Code::FailedPrecondition)
    }
}

/// What an append is told while there is no room.
pub(crate) fn disk_full(found: &str, write_failed: bool) -> Status {
    let next = if write_failed {
        "make room and start the log server again, then: tally node set-state NAME read-write"
    } else {
        "make room, then: tally node set-state NAME read-write"
    };
    Fault::new(codes::NOT_PERMITTED, found)
        .with_next(next)
        .into_status(Code::FailedPrecondition)
}

/// Where everyone reads and writes it.
#[derive(Clone, Debug)]
pub(crate) struct Shared(watch::Sender<Standing>);

impl Shared {
    pub(crate) fn new(state: StorageState, revision: u64) -> Self {
        Self(watch::Sender::new(Standing {
            state,
            revision,
            disk_full: None,
            write_failed: false,
            ended: None,
        }))
    }

    pub(crate) fn get(&self) -> Standing {
        self.0.borrow().clone()
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<Standing> {
        self.0.subscribe()
    }

    /// The cluster moved the node. What is older than what is known changes nothing.
    pub(crate) fn moved(&self, state: StorageState, revision: u64) {
        self.0.send_if_modified(|standing| {
            let is_news = revision > standing.revision;
            if is_news {
                tracing::info!(from = %standing.state, to = %state, revision, "storage state");
                standing.state = state;
                standing.revision = revision;
            }
            is_news
        });
    }

    /// No append is accepted from now on.
    pub(crate) fn disk_is_full(&self, found: &str) {
        self.0.send_if_modified(|standing| {
            let is_news = standing.disk_full.is_none();
            if is_news {
                tracing::warn!(found, "no more appends");
                standing.disk_full = Some(found.to_owned());
            }
            is_news
        });
    }

    /// A write found no room: no append is accepted until the process has started again.
    pub(crate) fn write_found_no_room(&self, found: &str) {
        self.disk_is_full(found);
        self.0.send_if_modified(|standing| {
            let was_known = std::mem::replace(&mut standing.write_failed, true);
            !was_known
        });
    }

    /// There is room again; whether to write is the cluster's to say.
    pub(crate) fn disk_has_room(&self) {
        self.0.send_if_modified(|standing| {
            !standing.write_failed && standing.disk_full.take().is_some()
        });
    }

    /// It must not serve any more. The first reason stays.
    pub(crate) fn end(&self, why: Ended) {
        self.0.send_if_modified(|standing| {
            let is_news = standing.ended.is_none();
            if is_news {
                tracing::error!(code = why.code, found = why.found, "stopped serving");
                standing.ended = Some(why);
            }
            is_news
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_read_write_with_room_accepts_appends() {
        for state in StorageState::ALL {
            let standing = Shared::new(state, 1).get();
            let found = standing.check_append().map_err(|status| status.code());
            if state == StorageState::ReadWrite {
                assert_eq!(found, Ok(()));
            } else {
                assert_eq!(found, Err(Code::FailedPrecondition), "{state}");
            }
        }
        let shared = Shared::new(StorageState::ReadWrite, 1);
        shared.disk_is_full("no room");
        assert!(shared.get().check_append().is_err());
        assert!(shared.get().check_read().is_ok());
        shared.disk_has_room();
        assert!(shared.get().check_append().is_ok());
        shared.write_found_no_room("no room");
        shared.disk_has_room();
        assert!(shared.get().check_append().is_err());
        shared.end(Ended::fenced("incarnation 2 has registered"));
        assert!(shared.get().check_append().is_err());
        assert!(shared.get().check_read().is_err());
    }

    #[test]
    fn old_news_changes_nothing() {
        let shared = Shared::new(StorageState::ReadOnly, 5);
        shared.moved(StorageState::ReadWrite, 4);
        assert_eq!(shared.get().state, StorageState::ReadOnly);
        shared.moved(StorageState::ReadWrite, 6);
        assert_eq!(shared.get().state, StorageState::ReadWrite);
    }
}
