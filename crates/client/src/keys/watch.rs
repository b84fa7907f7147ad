//! Watching keys: every change from a revision on, across lost connections and members.

use etcd::watch_client::WatchClient;
use etcd::watch_request::RequestUnion;
use tally_model::explanation::codes;
use tally_model::keys::{KeyEvent, KeyRange, KeyValue};
use tally_proto::etcd;
use tally_proto::fault::Fault;
use tally_proto::mvcc::{self, event::EventType};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataValue;
use tonic::{Code, Request, Status, Streaming};

use super::{KeyError, Keys, refusal};
use crate::client::Client;
use crate::connection::Connection;
use crate::follow::{Dropped, Follower, follow};

/// Items that wait for a slow reader; then the member is held up too.
const ITEMS_WAITING_MAX: usize = 64;

/// Longest answer that is taken: a revision is told as a whole.
const ANSWER_BYTES_MAX: usize = 256 << 20;

/// Asks a member that knows no leader to end the stream, so that another one is followed.
const HAS_LEADER: &str = "hasleader";

/// What a watch of keys yields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyWatchItem {
    /// Once, first.
    Started {
        /// Changes are told from this revision on.
        from: u64,
    },
    /// What one revision changed, each revision once and in order.
    Changed {
        /// Which.
        revision: u64,
        /// Never empty.
        events: Vec<KeyEvent>,
    },
}

/// A stream of what happens to keys. It reconnects by itself and goes on after the last revision that it
/// yielded. It has no deadline and ends only after an error that asking again cannot mend.
#[derive(Debug)]
pub struct KeyWatch {
    items: ReceiverStream<Result<KeyWatchItem, KeyError>>,
}

impl KeyWatch {
    /// The next item; waits for it. `None` only after an error.
    pub async fn next(&mut self) -> Option<Result<KeyWatchItem, KeyError>> {
        self.items.next().await
    }
}

impl Keys {
    /// Watches keys from a revision on; 0: from now on. Needs a runtime. Dropping the watch ends it.
    pub fn watch(&self, keys: KeyRange, from_revision: u64) -> KeyWatch {
        let (items, receiver) = mpsc::channel(ITEMS_WAITING_MAX);
        let watcher = Watcher {
            client: self.client.clone(),
            keys,
            from: from_revision,
            has_started: false,
            items,
        };
        tokio::spawn(watcher.run());
        KeyWatch {
            items: ReceiverStream::new(receiver),
        }
    }
}

/// Follows one member after another.
struct Watcher {
    client: Client,
    keys: KeyRange,
    /// First revision that was not yielded yet; 0 before the first answer to a watch from now on.
    from: u64,
    has_started: bool,
    items: mpsc::Sender<Result<KeyWatchItem, KeyError>>,
}

impl Watcher {
    async fn run(mut self) {
        let (items, client) = (self.items.clone(), self.client.clone());
        tokio::select! {
            () = items.closed() => {}
            failed = follow(&client, &mut self) => if let Some(error) = failed {
                let _: Result<_, _> = items.send(Err(error.into())).await;
            }
        }
    }
}

impl Follower for Watcher {
    fn place(&self) -> (bool, u64) {
        (self.has_started, self.from)
    }

    async fn serve_from(&mut self, connection: &Connection) -> Result<Dropped, Status> {
        let within = self.client.attempt_max;
        let begun = timeout(within, self.begin(connection)).await;
        let mut answers =
            begun.map_err(|_| Status::unavailable(format!("no answer within {within:?}")))??;
        self.client.pool.prefer(connection.url());
        loop {
            let answer = answers.message().await.map_err(known)?;
            let answer = answer.ok_or_else(|| Status::unavailable("the member ended the watch"))?;
            if answer.canceled {
                let error = cancelled(&answer)?;
                let _: Result<_, _> = self.items.send(Err(error)).await;
                return Ok(Dropped);
            }
            let told = match answer.created {
                true => self.yield_start(&answer).await,
                false => self.yield_events(changes(answer.events)?).await,
            };
            if told.is_err() {
                return Ok(Dropped);
            }
        }
    }
}

impl Watcher {
    /// Asks for a watch, and keeps the way to the member open for as long as the answers are read.
    async fn begin(
        &self,
        connection: &Connection,
    ) -> Result<Streaming<etcd::WatchResponse>, Status> {
        let create = etcd::WatchCreateRequest {
            key: self.keys.start().to_vec(),
            range_end: self.keys.end().to_vec(),
            start_revision: i64::try_from(self.from).unwrap_or(i64::MAX),
            ..Default::default()
        };
        let ask = etcd::WatchRequest {
            request_union: Some(RequestUnion::CreateRequest(create)),
        };
        let asks = tokio_stream::iter([ask]).chain(tokio_stream::pending());
        let mut request = Request::new(asks);
        let metadata = request.metadata_mut();
        metadata.insert(HAS_LEADER, MetadataValue::from_static("true"));
        let client = WatchClient::new(connection.channel());
        let mut client = client.max_decoding_message_size(ANSWER_BYTES_MAX);
        Ok(client.watch(request).await.map_err(known)?.into_inner())
    }
}

impl Watcher {
    async fn yield_start(&mut self, created: &etcd::WatchResponse) -> Result<(), Dropped> {
        if self.has_started {
            return Ok(());
        }
        if self.from == 0 {
            let header = created.header.as_ref();
            let revision = header.map_or(0, |header| header.revision);
            self.from = u64::try_from(revision).unwrap_or(0).saturating_add(1);
        }
        self.has_started = true;
        self.put(KeyWatchItem::Started { from: self.from }).await
    }

    /// A member may send again what another one had sent.
    async fn yield_events(&mut self, changes: Vec<(u64, KeyEvent)>) -> Result<(), Dropped> {
        let mut changes = changes.into_iter().peekable();
        while let Some((revision, first)) = changes.next() {
            let mut events = vec![first];
            while let Some((_, event)) = changes.next_if(|(at, _)| *at == revision) {
                events.push(event);
            }
            if revision < self.from {
                continue;
            }
            self.put(KeyWatchItem::Changed { revision, events }).await?;
            self.from = revision.saturating_add(1);
        }
        Ok(())
    }

    async fn put(&self, item: KeyWatchItem) -> Result<(), Dropped> {
        self.items.send(Ok(item)).await.map_err(|_| Dropped)
    }
}

/// An error of the stream, as the client's retries know it.
fn known(status: Status) -> Status {
    match refusal::read(status) {
        Ok(refused) => Fault::new(codes::INVALID_ARGUMENT, refused.to_string())
            .into_status(Code::FailedPrecondition),
        Err(status) => status,
    }
}

/// Why a member ended the watch for good.
///
/// # Errors
/// When another member may serve it.
fn cancelled(answer: &etcd::WatchResponse) -> Result<KeyError, Status> {
    match u64::try_from(answer.compact_revision) {
        Ok(first) if first > 0 => Ok(KeyError::Compacted {
            first_kept: Some(first),
        }),
        _ => Err(known(Status::unavailable(answer.cancel_reason.clone()))),
    }
}

fn changes(events: Vec<mvcc::Event>) -> Result<Vec<(u64, KeyEvent)>, Status> {
    let unreadable = || Status::data_loss("the answer cannot be read: events");
    let read = events.into_iter().map(|event| {
        let deleted = event.r#type() == EventType::Delete;
        let changed = event.kv.ok_or_else(unreadable)?;
        let revision = u64::try_from(changed.mod_revision).map_err(|_| unreadable())?;
        let event = match deleted {
            true => KeyEvent::Deleted { key: changed.key },
            false => KeyEvent::Put(KeyValue::try_from(changed).map_err(|_| unreadable())?),
        };
        Ok((revision, event))
    });
    read.collect()
}
