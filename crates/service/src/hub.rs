//! What happens to keys, and to nodes, whose records are keys too: read once for all watchers of a member.
//! Each event goes to those that watch its key; one whose stream does not keep up is let go, and reads the
//! history at its own pace until it has caught up. What waits, and how many watch, is bounded for the member as a whole.

mod amount;
mod index;
#[cfg(test)]
mod tests;
mod told;
mod way;

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tally_consensus::Replica;
use tally_model::{KeyEvent, Revision, View};
use tally_storage::StateStore;
use tokio::time::{Instant, sleep_until};

use way::MEMBER_WAITING_BYTES_MAX;

pub(crate) use amount::{Amount, Share};
pub(crate) use index::{Group, Watched};
pub(crate) use told::{Batch, Told, Wanted, read_told};
pub(crate) use way::{Delivery, Inbox, WAITING_BYTES_MAX, Watch, Way};

/// Events, and bytes of them, that are read at once; one revision is read as a whole.
pub(crate) const ROWS_AT_ONCE: usize = 1_000;
const BYTES_AT_ONCE: usize = 1 << 20;

/// What a stream reads of the history at once when no more may wait: it goes on, in small steps.
const BYTES_AT_ONCE_WHEN_FULL: usize = 16 << 10;

/// Watchers of a member, those that read the history for themselves among them.
const MEMBER_WATCHERS_MAX: usize = 200_000;

/// Bytes of the keys that they watch.
const MEMBER_WATCHED_BYTES_MAX: usize = 64 << 20;

/// Between two looks at what happened, at least. What comes after a while without anything is told at once; of
/// what comes faster, several revisions are read, told and sent together.
const LOOKS_APART: Duration = Duration::from_millis(5);

/// A watcher's permission to be one; others may come when this is dropped.
#[derive(Debug)]
pub(crate) struct Admission {
    _watchers: Share,
    _watched_bytes: Share,
}

/// What there may be only so much of in a member.
#[derive(Clone, Debug, Default)]
struct Bounds {
    watchers: Amount,
    watched_bytes: Amount,
    /// Watchers that read the history for themselves.
    reading: Amount,
    /// Bytes of events, and of what leads them to streams.
    waiting: Amount,
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
    index: Watched,
    /// Who asked to be told how far the hub has come once it has come to a revision.
    progress_asked: Vec<(Revision, Way)>,
}

impl Watchers {
    fn remove(&mut self, number: u64) {
        let Some(watcher) = self.all.remove(&number) else {
            return;
        };
        self.index.remove(&watcher.wanted, number);
    }

    /// Tells everyone of the events up to a revision.
    fn tell(&mut self, events: &[Arc<Told>], through: Revision) {
        let mut told: BTreeMap<u64, (&Group, Vec<Arc<Told>>)> = BTreeMap::new();
        for event in events {
            self.index.each(event.event.key(), |group| {
                let (_, events) = told.entry(group.number).or_insert((group, Vec::new()));
                events.push(event.clone());
            });
        }
        let before = self.position.unwrap_or(Revision::EMPTY);
        let mut slow = Vec::new();
        for (group, events) in told.into_values() {
            let events = Batch::from(events);
            for number in &group.watchers {
                let Some(watcher) = self.all.get(number) else {
                    continue;
                };
                let watch = watcher.watch;
                let events = watcher.wanted.share_of(&events);
                if events.is_empty() {
                    continue;
                }
                if watcher.way.has_room() {
                    watcher.way.deliver(Delivery::Events { watch, events });
                } else {
                    watcher.way.let_go(watch, before);
                    slow.push(*number);
                }
            }
        }
        for number in slow {
            self.remove(number);
        }
        self.comes_to(through);
    }

    /// Notes that everything up to a revision was told, and tells those that wait for it.
    fn comes_to(&mut self, through: Revision) {
        self.position = Some(through);
        self.progress_asked.retain(|(from, way)| {
            let waits = through < *from;
            if !waits {
                way.deliver(Delivery::Progress { through });
            }
            waits
        });
    }

    /// Lets everyone go: what happened since cannot be read any more, or not by this way.
    fn let_all_go(&mut self, through: Revision) {
        for number in self.all.keys().copied().collect::<Vec<_>>() {
            if let Some(watcher) = self.all.get(&number) {
                watcher.way.let_go(watcher.watch, through);
            }
            self.remove(number);
        }
    }
}

/// True when somebody wants to know what was there before an event, and nobody did when it was read.
fn lacks_previous(watchers: &Watchers, events: &[Arc<Told>]) -> bool {
    let mut without = events.iter().filter(|told| !told.is_with_previous());
    without.any(|told| watchers.index.wants_previous(told.event.key()))
}

/// See the module. Clones are the same hub.
#[derive(Clone, Default)]
pub(crate) struct Hub {
    watchers: Arc<Mutex<Watchers>>,
    bounds: Bounds,
}

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
        self.watchers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A way for a new stream; its watchers count as reading the history when they are let go.
    pub(crate) fn way(&self) -> (Way, Inbox) {
        Way::new(
            self.bounds.waiting.clone(),
            Some(self.bounds.reading.clone()),
        )
    }

    /// A way for a stream whose watcher was not admitted, and does not count.
    pub(crate) fn way_uncounted(&self) -> (Way, Inbox) {
        Way::new(self.bounds.waiting.clone(), None)
    }

    /// Lets a watcher be one; `None` when the member has as many as it may.
    pub(crate) fn admit(&self, wanted: &Wanted) -> Option<Admission> {
        let Bounds {
            watchers,
            watched_bytes,
            ..
        } = &self.bounds;
        let bytes = wanted.watched_bytes();
        Some(Admission {
            _watchers: watchers.add_up_to(1, MEMBER_WATCHERS_MAX)?,
            _watched_bytes: watched_bytes.add_up_to(bytes, MEMBER_WATCHED_BYTES_MAX)?,
        })
    }

    /// Watchers of the member, and those of them that read the history for themselves.
    pub(crate) fn watchers(&self) -> (usize, usize) {
        (self.bounds.watchers.get(), self.bounds.reading.get())
    }

    /// What waits for the streams of the member, bytes.
    pub(crate) fn waiting(&self) -> &Amount {
        &self.bounds.waiting
    }

    /// How much of the history a stream may read at once, bytes.
    pub(crate) fn readable_at_once(&self) -> usize {
        match self.bounds.waiting.get() < MEMBER_WAITING_BYTES_MAX {
            true => BYTES_AT_ONCE,
            false => BYTES_AT_ONCE_WHEN_FULL,
        }
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
        watchers.index.insert(wanted, number);
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

    /// Has a stream told how far its watchers have come, after everything that was told before; not before they have
    /// come to `from`.
    pub(crate) fn ask_progress(&self, way: &Way, from: Revision) {
        let mut watchers = self.lock();
        match watchers.position {
            Some(through) if through >= from => way.deliver(Delivery::Progress { through }),
            Some(_) | None => {
                let asked = &mut watchers.progress_asked;
                asked.retain(|(_, asked)| !asked.is(way) && !asked.is_closed());
                asked.push((from, way.clone()));
            }
        }
    }

    /// Tells of what happens, until the replica stops.
    pub(crate) async fn run(self, replica: Replica) {
        let mut applied = replica.watch_applied();
        let state = replica.stores().state.clone();
        loop {
            let reached = applied.borrow_and_update().revision;
            let next_look = Instant::now() + LOOKS_APART;
            loop {
                match self.catch_up(&state, reached) {
                    Ok(true) => break,
                    // A snapshot may have brought much at once.
                    Ok(false) => tokio::task::yield_now().await,
                    // The state has failed, and the member ends.
                    Err(_) => return,
                }
            }
            if applied
                .wait_for(|mark| mark.revision > reached)
                .await
                .is_err()
            {
                return;
            }
            sleep_until(next_look).await;
        }
    }

    /// Tells of a little of what has happened since the last time; true when that was all.
    fn catch_up(&self, state: &StateStore, reached: Revision) -> io::Result<bool> {
        let after = {
            let mut watchers = self.lock();
            let after = watchers.position.unwrap_or(reached);
            watchers.comes_to(after);
            if watchers.all.is_empty() {
                // Nobody listens; who comes reads the history up to here.
                watchers.comes_to(after.max(reached));
                return Ok(true);
            }
            after
        };
        if after >= reached {
            return Ok(true);
        }
        let (intact, events, through) = state.with_view(|view| {
            let events = view.events_after(after, ROWS_AT_ONCE, BYTES_AT_ONCE, |_| true);
            let wants_previous = |event: &KeyEvent| self.lock().index.wants_previous(event.key());
            let waiting = self.waiting();
            let (told, through) =
                told::read_told(view, events, wants_previous, BYTES_AT_ONCE, waiting);
            (view.globals().has_history_after(after), told, through)
        })?;
        let mut watchers = self.lock();
        if !intact {
            // Some of it may be gone: each watcher is told so when it reads for itself.
            watchers.let_all_go(after);
            watchers.comes_to(through);
        } else if lacks_previous(&watchers, &events) {
            // Someone who wants to know what was before has come meanwhile: read it again.
            return Ok(false);
        } else {
            watchers.tell(&events, through);
        }
        Ok(through >= reached)
    }
}
