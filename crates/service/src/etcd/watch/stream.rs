//! The watchers of one stream.

mod behind;
mod progress;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use tally_consensus::Replica;
use tally_model::{KeyRange, Revision};
use tally_proto::etcd::watch_create_request::FilterType;
use tally_proto::etcd::watch_request::RequestUnion;
use tally_proto::etcd::{WatchCreateRequest, WatchRequest};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;
use tonic::{Status, Streaming};

use super::answer::{Outgoing, WatchResponse};
use crate::etcd::{header, rpctypes};
use crate::hub::{
    Admission, Batch, Delivery, Hub, Inbox, Place, Share, WAITING_BYTES_MAX, Wanted, Watch, Way,
};
use crate::member::Member;
use behind::Behind;

/// Stands for no watcher, or for all of a stream.
const NO_WATCH: i64 = -1;

/// Watchers of one stream at a time.
const WATCHERS_MAX: usize = 100_000;

struct Watcher {
    serial: u64,
    wanted: Wanted,
    /// The first revision that it wants to be told of.
    from: Revision,
    /// It is not told that the store has come less far than this: its client knows better.
    not_before: Revision,
    /// It has begun, so that a compaction ends it only where history is gone that it has not been told.
    begun: bool,
    fragment: bool,
    /// It wants to be told how far the store has come when nothing happens.
    progress: bool,
    progress_due: bool,
    quiet_since: Instant,
    source: Source,
    admission: Admission,
}

/// From where a watcher hears.
enum Source {
    Hub {
        _place: Place,
    },
    /// It reads the history for itself, and counts among those that do.
    History {
        _counted: Option<Share>,
    },
}

/// See the module.
pub(super) struct Stream {
    member: Arc<Member>,
    replica: Replica,
    hub: Hub,
    send: mpsc::Sender<Box<Outgoing>>,
    /// For bytes of events in answers that the network has not taken.
    room: Arc<Semaphore>,
    way: Way,
    inbox: Inbox,
    watchers: BTreeMap<i64, Watcher>,
    /// Those that a compaction ended, until the client cancels them too: as in etcd, their ids are not free before.
    ended: BTreeMap<i64, Admission>,
    /// Those that read the history for themselves.
    behind: Behind,
    next: i64,
    serial: u64,
    /// The latest revision that the client was told when a watcher was created, or read the history up to.
    told: Revision,
    /// The client has asked how far all have come, and was not told yet.
    progress_asked: bool,
}

/// The client is gone, or the member ends.
struct Ended;

impl Stream {
    pub(super) fn new(
        member: Arc<Member>,
        replica: Replica,
        hub: Hub,
        send: mpsc::Sender<Box<Outgoing>>,
    ) -> Self {
        let (way, inbox) = hub.way();
        Self {
            member,
            replica,
            hub,
            send,
            room: Arc::new(Semaphore::new(WAITING_BYTES_MAX)),
            way,
            inbox,
            watchers: BTreeMap::new(),
            ended: BTreeMap::new(),
            behind: Behind::default(),
            next: 0,
            serial: 0,
            told: Revision::EMPTY,
            progress_asked: false,
        }
    }

    /// Where answers go.
    pub(super) fn answers(&self) -> mpsc::Sender<Box<Outgoing>> {
        self.send.clone()
    }

    /// Serves the stream until its client is gone, or it must end; gives why, for a client that is still there.
    pub(super) async fn run(mut self, mut requests: Streaming<WatchRequest>) -> Status {
        let mut look = tokio::time::interval(self.look_every());
        let send = self.send.clone();
        let mut asking = true;
        loop {
            let waited_for = !self.behind.is_empty();
            let step = tokio::select! {
                request = requests.next(), if asking => match request {
                    Some(Ok(request)) => self.take(request).await,
                    Some(Err(unreadable)) => return rpctypes::unreadable(unreadable),
                    // It asks for nothing more, and goes on to listen.
                    None => {
                        asking = false;
                        Ok(())
                    }
                },
                () = send.closed() => Err(Ended),
                Some(delivery) = self.inbox.next() => self.deliver(delivery).await,
                () = tokio::task::yield_now(), if !self.behind.is_empty() => self.read_history().await,
                _ = look.tick() => {
                    self.look_for_quiet_ones();
                    Ok(())
                }
            };
            if step.is_err() {
                return rpctypes::stopped();
            }
            if waited_for && self.behind.is_empty() && self.progress_asked {
                self.ask_progress();
            }
        }
    }

    async fn take(&mut self, request: WatchRequest) -> Result<(), Ended> {
        match request.request_union {
            Some(RequestUnion::CreateRequest(ask)) => self.create(ask).await,
            Some(RequestUnion::CancelRequest(ask)) => {
                let id = ask.watch_id;
                match self.remove(id).is_some() || self.ended.remove(&id).is_some() {
                    true => self.cancelled(id).await,
                    false => Ok(()),
                }
            }
            // As in etcd, a stream that has no watchers is not answered.
            Some(RequestUnion::ProgressRequest(_)) if self.watchers.is_empty() => Ok(()),
            Some(RequestUnion::ProgressRequest(_)) => {
                self.progress_asked = true;
                self.ask_progress();
                Ok(())
            }
            None => Ok(()),
        }
    }

    async fn create(&mut self, ask: WatchCreateRequest) -> Result<(), Ended> {
        if ask.start_revision < 0 {
            return self.not_created(rpctypes::COMPACTED).await;
        }
        let revision = self.member.known_revision().map_err(|_| Ended)?;
        let wanted = match wanted(&ask) {
            Ok(wanted) if self.watchers.len() + self.ended.len() < WATCHERS_MAX => wanted,
            Ok(_) => return self.not_created("too many watchers on this stream").await,
            Err(why) => return self.not_created(why).await,
        };
        let id = match ask.watch_id {
            0 => {
                while self.is_taken(self.next) {
                    self.next += 1;
                }
                // Not given twice: the client may cancel the one before once more.
                self.next += 1;
                self.next - 1
            }
            given if given == NO_WATCH || self.is_taken(given) => {
                let why = "mvcc: duplicate watch ID provided on the WatchStream";
                return self.not_created(why).await;
            }
            given => given,
        };
        let Some(admission) = self.hub.admit(&wanted) else {
            return self.not_created("too many watchers on this member").await;
        };
        let (from, not_before) = match u64::try_from(ask.start_revision) {
            Ok(from) if from > 0 => (Revision(from), Revision(from)),
            Ok(_) | Err(_) => (revision.next(), revision),
        };
        self.told = self.told.max(revision);
        self.serial += 1;
        let serial = self.serial;
        self.behind
            .insert(Watch { id, serial }, &wanted, Revision(from.0 - 1));
        let watcher = Watcher {
            serial,
            wanted,
            from,
            not_before,
            // One from now on has nothing to look back for.
            begun: ask.start_revision == 0,
            fragment: ask.fragment,
            progress: ask.progress_notify,
            progress_due: false,
            quiet_since: Instant::now(),
            source: self.history(),
            admission,
        };
        self.watchers.insert(id, watcher);
        let created = WatchResponse {
            watch_id: id,
            created: true,
            ..self.answer(revision)
        };
        self.send(created).await
    }

    fn remove(&mut self, id: i64) -> Option<Watcher> {
        let watcher = self.watchers.remove(&id)?;
        let watch = Watch {
            id,
            serial: watcher.serial,
        };
        self.behind.remove(watch, &watcher.wanted);
        Some(watcher)
    }

    fn is_taken(&self, id: i64) -> bool {
        self.watchers.contains_key(&id) || self.ended.contains_key(&id)
    }

    async fn not_created(&mut self, why: &str) -> Result<(), Ended> {
        let revision = self.revision()?;
        let refused = WatchResponse {
            watch_id: NO_WATCH,
            created: true,
            canceled: true,
            cancel_reason: why.to_owned(),
            ..self.answer(revision)
        };
        self.send(refused).await
    }

    /// Says that a watcher is gone.
    async fn cancelled(&mut self, id: i64) -> Result<(), Ended> {
        let revision = self.revision()?;
        let cancelled = WatchResponse {
            watch_id: id,
            canceled: true,
            ..self.answer(revision)
        };
        self.send(cancelled).await
    }

    /// Says that a watcher is gone because history is. Its header has no revision, as in etcd: there is none from which
    /// the client could go on without having lost something.
    async fn ended(&mut self, watch: Watch, compacted: Revision) -> Result<(), Ended> {
        let id = watch.id;
        if let Some(watcher) = self.remove(id) {
            self.ended.insert(id, watcher.admission);
        }
        let ended = WatchResponse {
            watch_id: id,
            canceled: true,
            compact_revision: compacted.signed(),
            ..self.answer(Revision(0))
        };
        self.send(ended).await
    }

    async fn deliver(&mut self, delivery: Delivery) -> Result<(), Ended> {
        match delivery {
            Delivery::Events { watch, events } => self.tell(watch, events).await,
            Delivery::LetGo {
                watch,
                through,
                counted,
            } => {
                if let Some(watcher) = self.watcher(watch) {
                    watcher.source = Source::History { _counted: counted };
                    // What it does not want to be told of counts as known.
                    let through = through.max(Revision(watcher.from.0 - 1));
                    watcher.from = through.next();
                    let wanted = watcher.wanted.clone();
                    self.behind.insert(watch, &wanted, through);
                }
                Ok(())
            }
            Delivery::Progress { through } => self.progress(through).await,
        }
    }

    /// The watcher that is meant, if it is still there.
    fn watcher(&mut self, watch: Watch) -> Option<&mut Watcher> {
        let watcher = self.watchers.get_mut(&watch.id)?;
        (watcher.serial == watch.serial).then_some(watcher)
    }

    /// Tells a watcher of events that it wants, as far as it has not been told.
    async fn tell(&mut self, watch: Watch, events: Batch) -> Result<(), Ended> {
        let Some(watcher) = self.watcher(watch) else {
            return Ok(());
        };
        let from = watcher.from;
        let new = events.iter().filter(|told| told.id.revision >= from);
        // Not as far as the store has come: a client may go on after it.
        let Some(revision) = new.clone().next_back().map(|told| told.id.revision) else {
            return Ok(());
        };
        let encoded = new.map(|told| told.encoded(watcher.wanted.previous));
        let encoded: Vec<Bytes> = encoded.collect();
        watcher.quiet_since = Instant::now();
        let bytes_max = match watcher.fragment {
            true => self.member.config.tuning.request_bytes_max,
            false => usize::MAX,
        };
        let mut parts = parts(encoded, bytes_max).into_iter().peekable();
        while let Some(part) = parts.next() {
            let bytes: usize = part.iter().map(Bytes::len).sum();
            let told = WatchResponse {
                watch_id: watch.id,
                fragment: parts.peek().is_some(),
                events: part,
                ..self.answer(revision)
            };
            self.send_events(told, bytes, events.clone()).await?;
        }
        Ok(())
    }

    fn history(&self) -> Source {
        Source::History {
            _counted: self.way.one_reading(),
        }
    }

    /// A watcher is told by the hub from now on of everything after a revision.
    fn enters(&mut self, watch: Watch, place: Place, through: Revision) {
        if let Some(watcher) = self.watcher(watch) {
            watcher.source = Source::Hub { _place: place };
            watcher.begun = true;
            // It has read as far as this, which may be further than the hub has told.
            watcher.from = watcher.from.max(through.next());
            let wanted = watcher.wanted.clone();
            self.behind.remove(watch, &wanted);
        }
    }

    fn revision(&self) -> Result<Revision, Ended> {
        self.member.revision().map_err(|_| Ended)
    }

    fn answer(&self, revision: Revision) -> WatchResponse {
        WatchResponse {
            header: Some(header(&self.member, revision)),
            ..Default::default()
        }
    }

    async fn send(&self, answer: WatchResponse) -> Result<(), Ended> {
        let outgoing = Outgoing::small(Ok(answer));
        self.send.send(outgoing).await.map_err(|_| Ended)
    }

    /// Sends when there is room: the network takes what its client reads.
    async fn send_events(
        &self,
        answer: WatchResponse,
        bytes: usize,
        events: Batch,
    ) -> Result<(), Ended> {
        // One that is larger than all the room goes alone.
        let bytes = u32::try_from(bytes.min(WAITING_BYTES_MAX)).unwrap_or(u32::MAX);
        let room = self.room.clone().acquire_many_owned(bytes).await;
        let outgoing = Outgoing {
            answer: Ok(answer),
            _held: Some((room.map_err(|_| Ended)?, events)),
        };
        self.send.send(Box::new(outgoing)).await.map_err(|_| Ended)
    }
}

/// What a request asks to be told of.
fn wanted(ask: &WatchCreateRequest) -> Result<Wanted, &'static str> {
    let key = match ask.key.as_slice() {
        // The smallest key there is.
        [] => Bytes::from_static(&[0]),
        key => Bytes::copy_from_slice(key),
    };
    let keys = KeyRange::new(key, Bytes::copy_from_slice(&ask.range_end));
    if let KeyRange::Between(from, until) = &keys
        && from >= until
    {
        return Err("mvcc: watcher range is empty");
    }
    let filtered = |kind: FilterType| ask.filters.contains(&kind.into());
    Ok(Wanted {
        keys,
        puts: !filtered(FilterType::Noput),
        deletions: !filtered(FilterType::Nodelete),
        previous: ask.prev_kv,
    })
}

/// Cuts encoded events into parts of at most so many bytes, if each event is smaller.
fn parts(events: Vec<Bytes>, bytes_max: usize) -> Vec<Vec<Bytes>> {
    let mut parts = vec![Vec::new()];
    let mut bytes = 0;
    for event in events {
        let size = event.len();
        if bytes + size > bytes_max
            && let Some(last) = parts.last()
            && !last.is_empty()
        {
            parts.push(Vec::new());
            bytes = 0;
        }
        bytes += size;
        if let Some(last) = parts.last_mut() {
            last.push(event);
        }
    }
    parts
}
