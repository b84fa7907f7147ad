//! Watches of nodes: lines of the history, as they are written. What happens comes from the hub, as for
//! watchers of keys; what has happened, or what a slow client missed, from the stored history.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream::BoxStream;
use tally_consensus::{Consistency, Replica};
use tally_model::{HistoryEntry, NodeId, Revision, View, record_keys};
use tally_proto::fault::Fault;
use tally_proto::v1::watch_response::Kind;
use tally_proto::v1::{WatchEvent, WatchResponse, WatchStarted};
use tally_storage::StateView;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::fault;
use crate::hub::{Delivery, Hub, Inbox, Wanted, Watch};
use crate::member::Member;

/// Lines that are read at a time.
const READ_MAX: usize = 256;

/// Messages between the reader and the network.
const MESSAGES_WAITING_MAX: usize = 16;

/// How often a watch looks whether its member still belongs to the cluster.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// There is one watcher on a stream.
const ONLY_WATCH: Watch = Watch { id: 0, serial: 0 };

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
    let hub = member.hub(&replica);
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
        let follower = Follower {
            replica: &replica,
            node,
            after,
            send: &send,
        };
        tokio::select! {
            Ended = follower.follow(&hub) => {}
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

/// What one client is told: lines of the history, of one node or of all.
struct Follower<'a> {
    replica: &'a Replica,
    node: Option<NodeId>,
    /// Every line up to here was told.
    after: Revision,
    send: &'a mpsc::Sender<Message>,
}

/// The client is gone, or the state cannot be read.
struct Ended;

impl Follower<'_> {
    /// Tells of what has happened, and then of what happens.
    async fn follow(mut self, hub: &Hub) -> Ended {
        let (way, mut inbox) = hub.way_uncounted();
        let wanted = Wanted {
            keys: record_keys::keys_of(self.node),
            puts: true,
            deletions: true,
            previous: false,
        };
        loop {
            let Some(_place) = hub.enter(ONLY_WATCH, &wanted, self.after, &way) else {
                if let Err(ended) = self.read_history().await {
                    return ended;
                }
                // The hub may not have begun.
                tokio::task::yield_now().await;
                continue;
            };
            if let Err(ended) = self.listen(&mut inbox).await {
                return ended;
            }
        }
    }

    /// Tells some of what has happened.
    async fn read_history(&mut self) -> Result<(), Ended> {
        let (after, node) = (self.after, self.node);
        let read = |view: &StateView<'_>| {
            let lines = view.history_after(after, node, READ_MAX);
            (lines, view.revision())
        };
        let (lines, revision) = self.read(read).await?;
        let full = lines.len() == READ_MAX;
        for line in lines {
            self.tell(line).await?;
        }
        if !full {
            self.after = self.after.max(revision);
        }
        Ok(())
    }

    /// Tells of what happens, until the hub lets it go.
    async fn listen(&mut self, inbox: &mut Inbox) -> Result<(), Ended> {
        loop {
            let delivery = tokio::select! {
                delivery = inbox.next() => delivery.ok_or(Ended)?,
                () = self.send.closed() => return Err(Ended),
            };
            match delivery {
                Delivery::Events { events, .. } => {
                    for told in events.iter() {
                        // A claim's further attempts, and those beyond the bound, have no line.
                        let line = self.read(|view| view.history_at(told.id.revision)).await?;
                        if let Some(line) = line.filter(|line| line.revision > self.after) {
                            self.tell(line).await?;
                        }
                    }
                }
                Delivery::LetGo { through, .. } => {
                    self.after = self.after.max(through);
                    return Ok(());
                }
                Delivery::Progress { .. } => {}
            }
        }
    }

    async fn tell(&mut self, line: HistoryEntry) -> Result<(), Ended> {
        self.after = line.revision;
        let event = WatchEvent {
            entry: Some(line.into()),
        };
        let sent = self.send.send(message(Kind::Event(event))).await;
        sent.map_err(|_| Ended)
    }

    async fn read<T>(&self, look: impl FnOnce(&StateView<'_>) -> T) -> Result<T, Ended> {
        match self.replica.stores().state.with_view(look) {
            Ok(found) => Ok(found),
            Err(error) => {
                // The client may be gone as well.
                let _ = self.send.send(Err(fault::disk(&error))).await;
                Err(Ended)
            }
        }
    }
}
