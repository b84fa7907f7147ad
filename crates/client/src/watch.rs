//! Watching: every history entry from a revision on, across lost connections and members.

use std::pin::Pin;
use std::task::{Context, Poll};

use tally_proto::v1;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Status, Streaming};
use v1::nodes_client::NodesClient;
use v1::watch_response::Kind;

use crate::client::Client;
use crate::connection::Connection;
use crate::error::Error;
use crate::follow::{Dropped, Follower, follow};

/// Items that wait for a slow reader; then the member is held up too.
const ITEMS_WAITING_MAX: usize = 64;

/// What a watch yields.
#[derive(Clone, Debug, PartialEq)]
pub enum WatchItem {
    /// Once, first.
    Started {
        /// Everything up to here had been applied by the member that served first.
        revision: u64,
        /// The watched node as it was then; `None` when all nodes are watched or it is unknown.
        node: Option<v1::Node>,
    },
    /// Each history entry once, in order.
    Event(v1::HistoryEntry),
}

/// A stream of what happens to one node or to all. It reconnects by itself and goes on after the last
/// revision that it yielded. It has no deadline and ends only after an error that asking again cannot
/// mend.
#[derive(Debug)]
pub struct Watch {
    items: ReceiverStream<Result<WatchItem, Error>>,
}

impl Watch {
    /// The next item; waits for it. `None` only after an error.
    pub async fn next(&mut self) -> Option<Result<WatchItem, Error>> {
        self.items.next().await
    }
}

impl Stream for Watch {
    type Item = Result<WatchItem, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Pin::new(&mut self.items).poll_next(cx)
    }
}

impl Client {
    /// Watches one node, or all when `node` is `None`, from a revision on; 0: from now on. Needs a
    /// runtime. Dropping the watch ends it.
    pub fn watch(&self, node: Option<u32>, from_revision: u64) -> Watch {
        let (items, receiver) = mpsc::channel(ITEMS_WAITING_MAX);
        let watcher = Watcher {
            client: self.clone(),
            node: node.unwrap_or_default(),
            from: from_revision,
            has_started: false,
            items,
        };
        tokio::spawn(watcher.run());
        Watch {
            items: ReceiverStream::new(receiver),
        }
    }
}

/// Follows one member after another.
struct Watcher {
    client: Client,
    node: u32,
    /// First revision that was not yielded yet; 0 before the first answer to a watch from now on.
    from: u64,
    has_started: bool,
    items: mpsc::Sender<Result<WatchItem, Error>>,
}

impl Watcher {
    async fn run(mut self) {
        let items = self.items.clone();
        let client = self.client.clone();
        tokio::select! {
            () = items.closed() => {}
            failed = follow(&client, &mut self) => if let Some(error) = failed {
                let _: Result<_, _> = items.send(Err(error)).await;
            }
        }
    }
}

impl Follower for Watcher {
    fn place(&self) -> (bool, u64) {
        (self.has_started, self.from)
    }

    /// Yields what one member sends until it breaks off.
    async fn serve_from(&mut self, connection: &Connection) -> Result<Dropped, Status> {
        let within = self.client.attempt_max;
        let begun = timeout(within, self.begin(connection)).await;
        let (started, mut events) =
            begun.map_err(|_| Status::unavailable(format!("no answer within {within:?}")))??;
        self.client.pool.prefer(connection.url());
        if self.yield_start(started).await.is_err() {
            return Ok(Dropped);
        }
        loop {
            let message = events.message().await?;
            let message =
                message.ok_or_else(|| Status::unavailable("the member ended the watch"))?;
            if let Some(Kind::Event(v1::WatchEvent { entry: Some(entry) })) = message.kind
                && self.yield_event(entry).await.is_err()
            {
                return Ok(Dropped);
            }
        }
    }
}

impl Watcher {
    async fn begin(
        &self,
        connection: &Connection,
    ) -> Result<(v1::WatchStarted, Streaming<v1::WatchResponse>), Status> {
        let ask = v1::WatchRequest {
            node: self.node,
            from_revision: self.from,
        };
        let mut client = NodesClient::new(connection.channel());
        let mut events = client.watch(ask).await?.into_inner();
        match events.message().await?.and_then(|message| message.kind) {
            Some(Kind::Started(started)) => Ok((started, events)),
            other => Err(Status::data_loss(format!(
                "expected a start, found {other:?}"
            ))),
        }
    }

    async fn yield_start(&mut self, started: v1::WatchStarted) -> Result<(), Dropped> {
        if self.has_started {
            return Ok(());
        }
        self.has_started = true;
        if self.from == 0 {
            self.from = started.revision.saturating_add(1);
        }
        self.put(WatchItem::Started {
            revision: started.revision,
            node: started.node,
        })
        .await
    }

    /// A member may send again what another one had sent.
    async fn yield_event(&mut self, entry: v1::HistoryEntry) -> Result<(), Dropped> {
        if entry.revision < self.from {
            return Ok(());
        }
        self.from = entry.revision.saturating_add(1);
        self.put(WatchItem::Event(entry)).await
    }

    async fn put(&self, item: WatchItem) -> Result<(), Dropped> {
        self.items.send(Ok(item)).await.map_err(|_| Dropped)
    }
}
