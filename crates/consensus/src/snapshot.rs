//! Snapshots on their way between members: a header, chunks, and the digest.

use std::io;
use std::time::Duration;

use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use tally_proto::peer::snapshot_frame::Kind;
use tally_proto::peer::{SnapshotChunk, SnapshotEnd, SnapshotFrame, SnapshotHeader};
use tally_proto::storage;
use tally_storage::{Snapshot, SnapshotPiece, SnapshotReceiver, StateStore};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;

use crate::link::LinkError;
use crate::raft;

/// Frames between the disk and the network at a time.
const FRAMES_WAITING_MAX: usize = 4;

fn frame(kind: Kind) -> SnapshotFrame {
    SnapshotFrame { kind: Some(kind) }
}

/// A snapshot as frames. A file that is not what it was ends them early, which the receiver notices,
/// and fails the store that it belongs to: the disk cannot be trusted.
pub(crate) fn frames(
    vote: storage::Vote,
    snapshot: Snapshot,
    chunk_bytes_max: usize,
    state: StateStore,
) -> BoxStream<'static, SnapshotFrame> {
    let (send, frames) = mpsc::channel(FRAMES_WAITING_MAX);
    tokio::task::spawn_blocking(move || {
        let header = SnapshotHeader {
            vote: Some(vote),
            meta: Some(snapshot.meta().clone()),
        };
        let mut sent = send.blocking_send(frame(Kind::Header(header)));
        for piece in snapshot.frames(chunk_bytes_max) {
            let kind = match piece {
                Ok(SnapshotPiece::Chunk { file, offset, data }) => {
                    Kind::Chunk(SnapshotChunk { file, offset, data })
                }
                Ok(SnapshotPiece::End { digest }) => Kind::End(SnapshotEnd {
                    digest: digest.to_vec(),
                }),
                Err(error) => {
                    state.fail(format!("{snapshot:?} cannot be sent: {error}"));
                    return;
                }
            };
            if sent.is_err() {
                // The receiver went away.
                return;
            }
            sent = send.blocking_send(frame(kind));
        }
    });
    ReceiverStream::new(frames).boxed()
}

/// Resolves when nothing has moved for so long; after the last frame once more, while it is read and installed.
pub(crate) async fn stalled(mut taken: watch::Receiver<u64>, patience: Duration) {
    loop {
        match timeout(patience, taken.changed()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return sleep(patience).await,
            Err(_) => return,
        }
    }
}

/// A handle that goes away where it keeps nobody waiting: the files go with the last one.
pub(crate) struct LetGoAside(Option<Snapshot>);

impl LetGoAside {
    pub(crate) fn new(snapshot: Snapshot) -> Self {
        Self(Some(snapshot))
    }

    pub(crate) fn snapshot(&self) -> Option<Snapshot> {
        self.0.clone()
    }
}

impl Drop for LetGoAside {
    fn drop(&mut self) {
        let snapshot = self.0.take();
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn_blocking(move || drop(snapshot));
        }
    }
}

fn refused(what: impl ToString) -> LinkError {
    LinkError::Refused(what.to_string())
}

/// Takes the frames of a snapshot to disk, and gives the leader's vote and the snapshot. What could not
/// be installed is refused before anything is written.
pub(crate) async fn receive(
    state: &StateStore,
    frames: impl Stream<Item = Result<SnapshotFrame, LinkError>> + Send,
) -> Result<(raft::Vote, Snapshot), LinkError> {
    let mut frames = std::pin::pin!(frames);
    let first = frames
        .next()
        .await
        .transpose()?
        .and_then(|frame| frame.kind);
    let Some(Kind::Header(SnapshotHeader {
        vote: Some(vote),
        meta: Some(meta),
    })) = first
    else {
        return Err(refused("a snapshot begins with its header"));
    };
    let vote = raft::sent_vote(&vote).map_err(refused)?;
    raft::sent_applied(&meta).map_err(refused)?;
    let (send, pieces) = mpsc::channel(FRAMES_WAITING_MAX);
    let store = state.clone();
    let writing = tokio::task::spawn_blocking(move || {
        let receiver = store.receive(meta)?;
        write(&store, receiver, pieces)
    });
    while let Some(frame) = frames.next().await {
        let Some(kind) = frame?.kind else {
            return Err(refused("a frame without content"));
        };
        if send.send(kind).await.is_err() {
            // The writer has found something wrong, and says what.
            break;
        }
    }
    drop(send);
    let snapshot = writing.await.map_err(refused)?.map_err(refused)?;
    Ok((vote, snapshot))
}

fn write(
    state: &StateStore,
    mut receiver: SnapshotReceiver,
    mut pieces: mpsc::Receiver<Kind>,
) -> io::Result<Snapshot> {
    let invalid = |what| io::Error::new(io::ErrorKind::InvalidData, what);
    while let Some(kind) = pieces.blocking_recv() {
        match kind {
            Kind::Header(_) => return Err(invalid("a second header")),
            Kind::Chunk(chunk) => {
                state.receive_chunk(&mut receiver, &chunk.file, chunk.offset, &chunk.data)?;
            }
            Kind::End(end) => return state.receive_end(receiver, &end.digest),
        }
    }
    Err(invalid("the snapshot ended before its digest"))
}
