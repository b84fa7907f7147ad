//! What happens to keys, and to nodes, whose records are keys too: read once for all watchers of a member.
//! Each event goes to those that watch its key; one whose stream does not keep up is let go, and reads the
//! history at its own pace until it has caught up.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tally_consensus::Replica;
use tally_model::{EventId, KeyEvent, KeyRange, KeyValue, Revision, View};
use tally_proto::mvcc;
use tally_storage::{StateStore, StateView};
use tokio::sync::mpsc;

/// Events, and bytes of them, that are read at once; one revision is read as a whole.
pub(crate) const ROWS_AT_ONCE: usize = 1_000;
pub(crate) const BYTES_AT_ONCE: usize = 1 << 20;

/// Bytes that wait for one stream; what would be more is read from the history later.
const WAITING_BYTES_MAX: usize = 1 << 20;

/// What a delivery takes beside its events.
const DELIVERY_BYTES: usize = 128;

/// An event as watchers are told. Shared by all of them.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) id: EventId,
    pub(crate) event: KeyEvent,
    pub(crate) previous: Option<KeyValue>,
}

impl Told {
    /// Reads what it takes to tell of an event.
    pub(crate) fn of(
        view: &StateView<'_>,
        id: EventId,
        event: KeyEvent,
        want_previous: bool,
    ) -> Self {
        let previous = want_previous.then(|| view.previous(event.key(), id));
        Self {
            id,
            previous: previous.flatten(),
            event,
        }
    }

    pub(crate) fn message(&self, want_previous: bool) -> mvcc::Event {
        let (kind, found) = match &self.event {
            KeyEvent::Put(made) => (mvcc::event::EventType::Put, made.into()),
            KeyEvent::Deleted { key } => {
                let gone = mvcc::KeyValue {
                    key: key.clone(),
                    mod_revision: self.id.revision.signed(),
                    ..Default::default()
                };
                (mvcc::event::EventType::Delete, gone)
            }
        };
        let previous = self.previous.as_ref().filter(|_| want_previous);
        mvcc::Event {
            r#type: kind.into(),
            kv: Some(found),
            prev_kv: previous.map(Into::into),
        }
    }

    fn bytes(&self) -> usize {
        let of = |found: &KeyValue| found.key.len() + found.value.len();
        let event = match &self.event {
            KeyEvent::Put(made) => of(made),
            KeyEvent::Deleted { key } => key.len(),
        };
        event + self.previous.as_ref().map_or(0, of)
    }
}

/// What one watcher wants to be told.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) keys: KeyRange,
    pub(crate) puts: bool,
    pub(crate) deletions: bool,
    pub(crate) previous: bool,
}

impl Wanted {
    pub(crate) fn accepts(&self, event: &KeyEvent) -> bool {
        let kind = match event {
            KeyEvent::Put(_) => self.puts,
            KeyEvent::Deleted { .. } => self.deletions,
        };
        kind && self.keys.contains(event.key())
    }
}

/// One watcher of a stream. Its client may give the id once more when it is free again; what was meant
/// for the one before must not reach the one after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Watch {
    pub(crate) id: i64,
    pub(crate) serial: u64,
}

/// Something for the stream of a watcher.
#[derive(Debug)]
pub(crate) enum Delivery {
    /// All events of some revisions that the watcher wants.
    Events {
        watch: Watch,
        events: Vec<Arc<Told>>,
    },
    /// The watcher was let go: it knows everything up to a revision.
    LetGo { watch: Watch, through: Revision },
    /// Every watcher of the stream that was not let go knows everything up to a revision.
    Progress { through: Revision },
}

impl Delivery {
    fn bytes(&self) -> usize {
        let events = match self {
            Self::Events { events, .. } => events.iter().map(|told| told.bytes()).sum(),
            Self::LetGo { .. } | Self::Progress { .. } => 0,
        };
        events + DELIVERY_BYTES
    }
}

/// The way to one stream. Clones lead to the same one.
#[derive(Clone, Debug)]
pub(crate) struct Way {
    deliveries: mpsc::UnboundedSender<Delivery>,
    waiting: Arc<AtomicUsize>,
}

/// The stream's end of it.
#[derive(Debug)]
pub(crate) struct Inbox {
    deliveries: mpsc::UnboundedReceiver<Delivery>,
    waiting: Arc<AtomicUsize>,
}

impl Way {
    pub(crate) fn new() -> (Self, Inbox) {
        let (send, deliveries) = mpsc::unbounded_channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let inbox = Inbox {
            deliveries,
            waiting: waiting.clone(),
        };
        let way = Self {
            deliveries: send,
            waiting,
        };
        (way, inbox)
    }

    fn has_room(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) < WAITING_BYTES_MAX
    }

    fn deliver(&self, delivery: Delivery) {
        self.waiting.fetch_add(delivery.bytes(), Ordering::Relaxed);
        // A stream that has ended takes its watchers with it in a moment.
        let _ = self.deliveries.send(delivery);
    }
}

impl Inbox {
    /// The next delivery. Never `None` while the stream has a way of its own.
    pub(crate) async fn next(&mut self) -> Option<Delivery> {
        let delivery = self.deliveries.recv().await?;
        self.waiting.fetch_sub(delivery.bytes(), Ordering::Relaxed);
        Some(delivery)
    }
}

struct Watcher {
    watch: Watch,
    wanted: Wanted,
    way: Way,
}

#[derive(Default)]
struct Watchers {
    /// What has happened up to here was told.
    position: Option<Revision>,
    next: u64,
    all: BTreeMap<u64, Watcher>,
    by_key: HashMap<Bytes, BTreeSet<u64>>,
    /// Those of more than one key.
    ranges: BTreeSet<u64>,
    previous_wanted: usize,
    /// Who asked how far the hub has come before it knew.
    progress_asked: Vec<Way>,
}

impl Watchers {
    fn remove(&mut self, number: u64) {
        let Some(watcher) = self.all.remove(&number) else {
            return;
        };
        self.previous_wanted -= usize::from(watcher.wanted.previous);
        self.ranges.remove(&number);
        if let KeyRange::One(key) = &watcher.wanted.keys
            && let Some(numbers) = self.by_key.get_mut(key)
        {
            numbers.remove(&number);
            if numbers.is_empty() {
                self.by_key.remove(key);
            }
        }
    }

    /// Tells everyone of the events up to a revision.
    fn tell(&mut self, events: &[Arc<Told>], through: Revision) {
        let mut wanted: BTreeMap<u64, Vec<Arc<Told>>> = BTreeMap::new();
        for told in events {
            let one = self.by_key.get(told.event.key()).into_iter().flatten();
            for number in one.chain(&self.ranges) {
                let accepts = |watcher: &Watcher| watcher.wanted.accepts(&told.event);
                if self.all.get(number).is_some_and(accepts) {
                    wanted.entry(*number).or_default().push(told.clone());
                }
            }
        }
        let before = self.position.unwrap_or(Revision::EMPTY);
        for (number, events) in wanted {
            let Some(watcher) = self.all.get(&number) else {
                continue;
            };
            let watch = watcher.watch;
            if watcher.way.has_room() {
                watcher.way.deliver(Delivery::Events { watch, events });
            } else {
                let through = before;
                watcher.way.deliver(Delivery::LetGo { watch, through });
                self.remove(number);
            }
        }
        self.position = Some(through);
    }

    /// Lets everyone go: what happened since cannot be read any more, or not by this way.
    fn let_all_go(&mut self, through: Revision) {
        for number in self.all.keys().copied().collect::<Vec<_>>() {
            if let Some(watcher) = self.all.get(&number) {
                let watch = watcher.watch;
                watcher.way.deliver(Delivery::LetGo { watch, through });
            }
            self.remove(number);
        }
    }
}

/// See the module. Clones are the same hub.
#[derive(Clone, Default)]
pub(crate) struct Hub(Arc<Mutex<Watchers>>);

/// A watcher's place in the hub; it is taken out when this is dropped.
pub(crate) struct Place {
    hub: Hub,
    number: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.hub.lock().remove(self.number);
    }
}

impl Hub {
    fn lock(&self) -> MutexGuard<'_, Watchers> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a watcher in that knows everything up to `through`; `None` when more has been told since.
    pub(crate) fn enter(
        &self,
        watch: Watch,
        wanted: &Wanted,
        through: Revision,
        way: &Way,
    ) -> Option<Place> {
        let mut watchers = self.lock();
        if watchers.position.is_none_or(|position| through < position) {
            return None;
        }
        let number = watchers.next;
        watchers.next += 1;
        watchers.previous_wanted += usize::from(wanted.previous);
        match &wanted.keys {
            KeyRange::One(key) => {
                watchers
                    .by_key
                    .entry(key.clone())
                    .or_default()
                    .insert(number);
            }
            KeyRange::Between(..) | KeyRange::From(_) => {
                watchers.ranges.insert(number);
            }
        }
        let watcher = Watcher {
            watch,
            wanted: wanted.clone(),
            way: way.clone(),
        };
        watchers.all.insert(number, watcher);
        drop(watchers);
        Some(Place {
            hub: self.clone(),
            number,
        })
    }

    /// Has a stream told how far its watchers have come, after everything that was told before.
    pub(crate) fn ask_progress(&self, way: &Way) {
        let mut watchers = self.lock();
        match watchers.position {
            Some(through) => way.deliver(Delivery::Progress { through }),
            // Before the hub has told anything at all.
            None => watchers.progress_asked.push(way.clone()),
        }
    }

    /// Tells of what happens, until the replica stops.
    pub(crate) async fn run(self, replica: Replica) {
        let mut applied = replica.watch_applied();
        let state = replica.stores().state.clone();
        loop {
            let reached = applied.borrow_and_update().revision;
            match self.catch_up(&state, reached) {
                Ok(()) => {}
                // The state has failed, and the member ends.
                Err(_) => return,
            }
            if applied
                .wait_for(|mark| mark.revision > reached)
                .await
                .is_err()
            {
                return;
            }
        }
    }

    /// Tells of everything that has happened since the last time.
    fn catch_up(&self, state: &StateStore, reached: Revision) -> io::Result<()> {
        loop {
            let (after, previous) = {
                let mut watchers = self.lock();
                let after = *watchers.position.get_or_insert(reached);
                for way in std::mem::take(&mut watchers.progress_asked) {
                    way.deliver(Delivery::Progress { through: after });
                }
                (after, watchers.previous_wanted > 0)
            };
            if after >= reached {
                return Ok(());
            }
            let (compacted, events, through) = state.with_view(|view| {
                let events = view.events_after(after, ROWS_AT_ONCE, BYTES_AT_ONCE, |_| true);
                let told = events.found.into_iter();
                let told = told.map(|(id, event)| Arc::new(Told::of(view, id, event, previous)));
                (
                    view.globals().compacted,
                    told.collect::<Vec<_>>(),
                    events.through,
                )
            })?;
            let mut watchers = self.lock();
            if compacted > after.next() {
                // Some of it may be gone: each watcher is told so when it reads for itself.
                watchers.let_all_go(after);
                watchers.position = Some(through);
            } else if !previous && watchers.previous_wanted > 0 {
                // Someone who wants to know what was before has come meanwhile: read it again.
            } else {
                watchers.tell(&events, through);
            }
        }
    }
}
