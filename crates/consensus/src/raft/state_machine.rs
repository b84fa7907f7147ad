//! The replicated state in openraft's terms, and the marks that readers wait for.

use std::io;

use futures::{FutureExt, Stream, StreamExt};
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend};
use tally_model::Revision;
use tally_storage::{Snapshot, StateStore};
use tokio::sync::watch;

use super::runtime::aside_if;
use super::{LogId, Proposal, StoredMembership, TypeConfig, convert};
use crate::status::AppliedMark;

/// Entries that are read to be applied together, and bytes of their commands. Those of one write of the state are
/// answered after the last one.
const TOGETHER_MAX: usize = 256;
const TOGETHER_BYTES_MAX: usize = 4 << 20;

type Meta = openraft::type_config::alias::SnapshotMetaOf<TypeConfig>;
type SnapshotOf = openraft::type_config::alias::SnapshotOf<TypeConfig, Snapshot>;

/// See the module.
pub(crate) struct StateMachine {
    state: StateStore,
    applied: watch::Sender<AppliedMark>,
}

impl StateMachine {
    pub(crate) fn new(state: StateStore) -> Self {
        let (applied, _) = watch::channel(AppliedMark {
            index: None,
            term: 0,
            revision: Revision::EMPTY,
        });
        let machine = Self { state, applied };
        machine.publish();
        machine
    }

    /// Follows what has been applied.
    pub(crate) fn watch(&self) -> watch::Receiver<AppliedMark> {
        self.applied.subscribe()
    }

    fn publish(&self) {
        let last = self.state.applied().last_applied;
        // A read that fails has stopped the member already.
        if let Ok(revision) = self.state.with_view(|view| view.revision()) {
            self.applied.send_replace(AppliedMark {
                index: last.map(|id| id.index),
                term: last.map_or(0, |id| id.term),
                revision,
            });
        }
    }
}

/// Runs what takes long on a thread that may wait for the disk.
async fn on_disk<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(io::Error::other)?
}

/// An entry, and those after it that are ready, as far as they are to be held at once.
fn together<Strm>(
    first: EntryResponder<TypeConfig>,
    entries: &mut Strm,
) -> io::Result<Vec<EntryResponder<TypeConfig>>>
where
    Strm: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin,
{
    let bytes_of = |(entry, _): &EntryResponder<TypeConfig>| match &entry.payload {
        EntryPayload::Normal(Proposal(proposal)) => proposal.request.len(),
        EntryPayload::Blank | EntryPayload::Membership(_) => 0,
    };
    let mut bytes = bytes_of(&first);
    let mut together = vec![first];
    while together.len() < TOGETHER_MAX && bytes < TOGETHER_BYTES_MAX {
        let Some(Some(next)) = entries.next().now_or_never() else {
            break;
        };
        let next = next?;
        bytes += bytes_of(&next);
        together.push(next);
    }
    Ok(together)
}

pub(crate) fn snapshot_of(snapshot: Snapshot) -> io::Result<SnapshotOf> {
    let applied = snapshot.meta().applied.clone().unwrap_or_default();
    let (last_log_id, last_membership) = convert::applied(&applied).map_err(io::Error::other)?;
    Ok(SnapshotOf {
        meta: Meta {
            last_log_id,
            last_membership,
        },
        snapshot,
    })
}

/// Builds a snapshot while entries go on being applied.
pub(crate) struct SnapshotBuilder {
    state: StateStore,
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    type SnapshotData = Snapshot;

    async fn build_snapshot(&mut self) -> Result<SnapshotOf, io::Error> {
        let state = self.state.clone();
        snapshot_of(on_disk(move || state.build_snapshot()).await?)
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = Snapshot;
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        convert::applied(&self.state.applied()).map_err(io::Error::other)
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some(first) = entries.next().await {
            let (together, responders): (Vec<_>, Vec<_>) =
                together(first?, &mut entries)?.into_iter().unzip();
            let together = together.into_iter().map(convert::entry_message);
            let mut together = self.state.read_entries(together)?;
            let mut responders = responders.into_iter();
            while !together.is_empty() {
                let long = together.may_take_long() || self.state.may_wait_for_disk();
                let answers = aside_if(long, || self.state.apply_some(&mut together))?;
                if self.state.wants_flush() {
                    let state = self.state.clone();
                    // A flush that fails has stopped the member.
                    tokio::task::spawn_blocking(move || state.flush().map(drop));
                }
                // Who was answered must find it in what is read next.
                self.publish();
                for (answer, responder) in answers.into_iter().zip(responders.by_ref()) {
                    if let Some(responder) = responder {
                        responder.send(answer);
                    }
                }
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self::SnapshotBuilder {
        SnapshotBuilder {
            state: self.state.clone(),
        }
    }

    async fn install_snapshot(&mut self, _meta: &Meta, snapshot: Snapshot) -> io::Result<()> {
        let state = self.state.clone();
        on_disk(move || state.install(&snapshot)).await?;
        self.publish();
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<SnapshotOf>, io::Error> {
        self.state.current_snapshot().map(snapshot_of).transpose()
    }
}
