//! The replicated state in openraft's terms, and the marks that readers wait for.

use std::io;

use futures::stream::TryReadyChunksError;
use futures::{Stream, StreamExt, TryStreamExt};
use openraft::OptionalSend;
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use tally_model::Revision;
use tally_storage::{Snapshot, StateStore};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::watch;

use super::{LogId, StoredMembership, TypeConfig, convert};
use crate::status::AppliedMark;

/// Entries that are applied together. All of them are answered after the last one.
const TOGETHER_MAX: usize = 256;

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
        let index = self.state.applied().last_applied.map(|id| id.index);
        // A read that fails has stopped the member already.
        if let Ok(revision) = self.state.with_view(|view| view.revision()) {
            self.applied.send_replace(AppliedMark { index, revision });
        }
    }
}

/// Applies what may take long where it holds up no other task: heartbeats must go on.
fn aside<T>(apply: impl FnOnce() -> T) -> T {
    match Handle::current().runtime_flavor() {
        RuntimeFlavor::MultiThread => tokio::task::block_in_place(apply),
        // There is no other thread to go on.
        _ => apply(),
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

    async fn apply<Strm>(&mut self, entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        let mut ready = entries.try_ready_chunks(TOGETHER_MAX);
        while let Some(together) = ready.next().await {
            let (entries, responders): (Vec<_>, Vec<_>) = together
                .map_err(|TryReadyChunksError(_, error)| error)?
                .into_iter()
                .unzip();
            let entries = entries.into_iter().map(convert::entry_message);
            let entries = self.state.read_entries(entries)?;
            let answers = match entries.may_take_long() {
                true => aside(|| self.state.apply_read(entries)),
                false => self.state.apply_read(entries),
            }?;
            // Who was answered must find it in what is read next.
            self.publish();
            for (responder, answer) in responders.into_iter().zip(answers) {
                if let Some(responder) = responder {
                    responder.send(answer);
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
