//! Watches: history as it is written. A watch reads the stored history at its client's pace, so that
//! a slow client costs a cursor and not a queue.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream::BoxStream;
use tally_consensus::{AppliedMark, Consistency, Replica};
use tally_model::{NodeId, Revision, View};
use tally_proto::fault::Fault;
use tally_proto::v1::watch_response::Kind;
use tally_proto::v1::{WatchEvent, WatchResponse, WatchStarted};
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::fault;
use crate::member::Member;

/// Lines that are read at a time.
const READ_MAX: usize = 256;

/// Messages between the reader and the network.
const MESSAGES_WAITING_MAX: usize = 16;

/// How often a watch looks whether its member still belongs to the cluster.
const LOOK_EVERY: Duration = Duration::from_millis(250);

type Message = Result<WatchResponse, Status>;

/// Begins a watch, from a state that is as fresh as any answer. It ends with its client, with the
/// server, and when this member loses its cluster: a watch that is silent must mean that nothing
/// happens.
pub(super) async fn start(
    member: Arc<Member>,
    node: Option<NodeId>,
    from: u64,
    deadline: Instant,
    permit: OwnedSemaphorePermit,
) -> Result<BoxStream<'static, Message>, Status> {
    let replica = member.serving()?;
    let reader = replica.read(Consistency::Linearizable, deadline).await;
    let leader = || replica.status().leader_address();
    let reader = reader.map_err(|error| fault::read(&error, leader()))?;
    let applied = replica.watch_applied();
    let seen = reader.with_view(|view| {
        let watched = node.and_then(|id| view.node(id));
        (view.revision(), watched)
    });
    let (revision, watched) = seen.map_err(|error| fault::disk(&error))?;
    let started = WatchStarted {
        revision: revision.0,
        node: watched.map(Into::into),
    };
    let after = match from {
        0 => revision,
        from => Revision(from - 1),
    };
    let (send, messages) = mpsc::channel(MESSAGES_WAITING_MAX);
    let follow = async move {
        let _permit = permit;
        if send.send(message(Kind::Started(started))).await.is_err() {
            return;
        }
        tokio::select! {
            () = follow(&replica, applied, node, after, &send) => {}
            fault = lost(&member) => {
                // The client may be gone as well.
                let _ = send.send(Err(fault::not_ready(fault))).await;
            }
            () = member.ending.closing.cancelled() => {}
        }
    };
    tokio::spawn(follow);
    Ok(ReceiverStream::new(messages).boxed())
}

/// Resolves when this member knows no leader, or does not belong to the cluster any more.
async fn lost(member: &Member) -> Fault {
    loop {
        if let Some(fault) = member.not_ready() {
            return fault;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn message(kind: Kind) -> Message {
    Ok(WatchResponse { kind: Some(kind) })
}

async fn follow(
    replica: &Replica,
    mut applied: watch::Receiver<AppliedMark>,
    node: Option<NodeId>,
    mut after: Revision,
    send: &mpsc::Sender<Message>,
) {
    loop {
        // Everything up to here is in the state when it is read below.
        let reached = applied.borrow_and_update().revision;
        let read = replica
            .stores()
            .state
            .with_view(|view| view.history_after(after, node, READ_MAX));
        let lines = match read {
            Ok(lines) => lines,
            Err(error) => {
                let _ = send.send(Err(fault::disk(&error))).await;
                return;
            }
        };
        let full = lines.len() == READ_MAX;
        for line in lines {
            after = line.revision;
            let event = WatchEvent {
                entry: Some(line.into()),
            };
            if send.send(message(Kind::Event(event))).await.is_err() {
                return;
            }
        }
        if full {
            continue;
        }
        after = after.max(reached);
        let news = applied.wait_for(|mark| mark.revision > reached);
        tokio::select! {
            news = news => if news.is_err() {
                return;
            },
            () = send.closed() => return,
        }
    }
}
