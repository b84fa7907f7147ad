//! The watchers of a stream that read the history for themselves. They read it together: what several of them are behind by is
//! read once, so that a thousand that could not keep up catch up as quickly as one.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use tally_model::{KeyEvent, Revision, View};

use super::{Ended, Stream};
use crate::hub::{self, Batch, Group, Place, ROWS_AT_ONCE, Told, Wanted, Watch, Watched};

/// Events that are handed to watchers of different keys at once, each counted for each of these.
const HANDED_AT_ONCE: usize = 1 << 16;
/// Events that watchers are told at once, each counted for each of them, and bytes of these.
const TOLD_AT_ONCE: usize = 1 << 16;
const TOLD_BYTES_AT_ONCE: usize = 4 << 20;

/// Who is behind, and how far each of them has come.
#[derive(Default)]
pub(super) struct Behind {
    watches: BTreeMap<u64, (Watch, Revision)>,
    /// The same by how far they have come.
    positions: BTreeSet<(Revision, u64)>,
    index: Watched,
    /// Those that were at most here have had their turn, of those that were at most at the end of the lap when it began.
    turn: Option<Revision>,
    lap: Option<Revision>,
}

/// What was read of the history for those that are behind.
struct Read {
    /// Who is to be told, and of what.
    told: Vec<(Watch, Batch)>,
    /// Everyone who knows everything up to `reached` then.
    served: Vec<Watch>,
    /// Who needs more of the history than there is.
    lost: Vec<Watch>,
    compacted: Revision,
    reached: Revision,
}

impl Behind {
    pub(super) fn is_empty(&self) -> bool {
        self.watches.is_empty()
    }

    /// Takes a watcher in that knows everything up to a revision.
    pub(super) fn insert(&mut self, watch: Watch, wanted: &Wanted, through: Revision) {
        self.remove(watch, wanted);
        self.watches.insert(watch.serial, (watch, through));
        self.positions.insert((through, watch.serial));
        self.index.insert(wanted, watch.serial);
    }

    pub(super) fn remove(&mut self, watch: Watch, wanted: &Wanted) {
        if let Some((_, through)) = self.watches.remove(&watch.serial) {
            self.positions.remove(&(through, watch.serial));
            self.index.remove(wanted, watch.serial);
        }
    }

    /// Notes that a watcher has come further.
    fn comes_to(&mut self, watch: Watch, reached: Revision) {
        if let Some((_, through)) = self.watches.get_mut(&watch.serial) {
            self.positions.remove(&(*through, watch.serial));
            *through = reached;
            self.positions.insert((reached, watch.serial));
        }
    }

    /// From where to read next: lap after lap, each from the one that is furthest behind to who was the first when it
    /// began. So who is far behind holds up nobody who is not, nor the other way round.
    fn next_turn(&mut self) -> Option<Revision> {
        let later = match (self.turn, self.lap) {
            (Some(turn), Some(lap)) if turn < lap => {
                let rest = (
                    Bound::Excluded((turn, u64::MAX)),
                    Bound::Included((lap, u64::MAX)),
                );
                self.positions.range(rest).next().copied()
            }
            (_, _) => None,
        };
        let next = later.or_else(|| {
            self.lap = self.positions.last().map(|(last, _)| *last);
            self.positions.first().copied()
        });
        next.map(|(through, _)| through)
    }

    /// Those that know everything up to `from` or a later revision, but not up to `until`.
    fn between(&self, from: Revision, until: Revision) -> impl Iterator<Item = (Watch, Revision)> {
        let between = self.positions.range((from, 0)..(until, 0));
        between.filter_map(|(_, serial)| self.watches.get(serial).copied())
    }
}

impl Stream {
    /// Has watchers that are behind read a little of the history, or enter the hub.
    pub(super) async fn read_history(&mut self) -> Result<(), Ended> {
        let Some(from) = self.behind.next_turn() else {
            return Ok(());
        };
        let next = from.next();
        let at_once: Vec<Watch> = self
            .behind
            .between(from, next)
            .map(|(watch, _)| watch)
            .collect();
        let places = self.enter_hub(&at_once, from);
        if !places.is_empty() {
            self.behind.turn = Some(from);
            for (watch, place) in places {
                self.enters(watch, place, from);
            }
            return Ok(());
        }
        let read = self.read_from(from)?;
        self.behind.turn = Some(read.reached);
        self.told = self.told.max(read.reached);
        for watch in &read.served {
            self.behind.comes_to(*watch, read.reached);
        }
        // At once, if that was all there is: later there would be more again, and they would never enter a hub that is
        // busy. What they are told from there on waits until this is done.
        let places = self.enter_hub(&read.served, read.reached);
        for watch in read.lost {
            self.ended(watch, read.compacted).await?;
        }
        for (watch, events) in read.told {
            self.tell(watch, events).await?;
        }
        for watch in read.served {
            if let Some(watcher) = self.watcher(watch) {
                watcher.begun = true;
                // It is told nothing of this again.
                watcher.from = watcher.from.max(read.reached.next());
            }
        }
        for (watch, place) in places {
            self.enters(watch, place, read.reached);
        }
        Ok(())
    }

    /// Lets watchers that know everything up to a revision into the hub, as long as it has not told of more.
    fn enter_hub(&self, watches: &[Watch], through: Revision) -> Vec<(Watch, Place)> {
        let mut places = Vec::new();
        for watch in watches {
            let Some(watcher) = self.watchers.get(&watch.id) else {
                continue;
            };
            match self.hub.enter(*watch, &watcher.wanted, through, &self.way) {
                Some(place) => places.push((*watch, place)),
                // It has told of more since.
                None => break,
            }
        }
        places
    }

    /// Reads a little of the history after a revision.
    fn read_from(&self, from: Revision) -> Result<Read, Ended> {
        let state = self.replica.stores().state.reader();
        let bytes_max = self.hub.readable_at_once();
        let read = state.with_view(|view| {
            let globals = view.globals();
            let wanted = |event: &KeyEvent| self.behind.index.has(event.key());
            let events = view.events_after(from, ROWS_AT_ONCE, bytes_max, wanted);
            let wants_previous = |event: &KeyEvent| self.behind.index.wants_previous(event.key());
            let waiting = self.hub.waiting();
            let (told, reached) = hub::read_told(view, events, wants_previous, bytes_max, waiting);
            let (handed, reached) = self.handed(&told, reached);
            let served = self.behind.between(from, reached.max(from.next()));
            let (lost, served): (Vec<_>, Vec<_>) =
                served.partition(|(watch, through)| {
                    match self.watchers.get(&watch.id).is_some_and(|one| one.begun) {
                        true => !globals.has_history_after(*through),
                        false => through.next() < globals.compacted,
                    }
                });
            let watch = |(watch, _): (Watch, Revision)| watch;
            let (told, served) = self.shared_out(&handed, served.into_iter().map(watch));
            Read {
                told,
                served,
                lost: lost.into_iter().map(watch).collect(),
                compacted: globals.compacted,
                reached,
            }
        });
        read.map_err(|_| Ended)
    }

    /// Which watchers want which of these events, as far as that is not too much at once; up to which revision that is all.
    fn handed(&self, told: &[Arc<Told>], reached: Revision) -> (Vec<(&Group, Batch)>, Revision) {
        let mut handed: BTreeMap<u64, (&Group, Vec<Arc<Told>>)> = BTreeMap::new();
        let (mut count, mut last) = (0, None);
        let mut through = reached;
        for event in told {
            let revision = event.id.revision;
            if let Some(last) = last
                && last != revision
                && count >= HANDED_AT_ONCE
            {
                through = last;
                break;
            }
            last = Some(revision);
            self.behind.index.each(event.event.key(), |group| {
                let (_, events) = handed.entry(group.number).or_insert((group, Vec::new()));
                events.push(event.clone());
                count += 1;
            });
        }
        let handed = handed.into_values();
        let handed = handed.map(|(group, events)| (group, Batch::from(events)));
        (handed.collect(), through)
    }

    /// What each of these watchers is to be told, and who then knows all of it. Of what would be too much for one step the
    /// rest have their turn later: meanwhile the client is heard, and those that are not behind are told.
    fn shared_out(
        &self,
        handed: &[(&Group, Batch)],
        watches: impl Iterator<Item = Watch>,
    ) -> (Vec<(Watch, Batch)>, Vec<Watch>) {
        let mut of_watcher = BTreeMap::new();
        for (group, events) in handed {
            of_watcher.extend(
                group
                    .watchers
                    .iter()
                    .map(|serial| (*serial, (group.number, events))),
            );
        }
        // By group and filters.
        let mut shares: BTreeMap<(u64, bool, bool), (Batch, usize)> = BTreeMap::new();
        let (mut told, mut served): (Vec<(Watch, Batch)>, Vec<Watch>) = Default::default();
        let (mut events, mut bytes) = (0, 0);
        for watch in watches {
            let watcher = self.watchers.get(&watch.id);
            if let Some(watcher) = watcher
                && let Some((group, all)) = of_watcher.get(&watch.serial)
            {
                if events >= TOLD_AT_ONCE || bytes >= TOLD_BYTES_AT_ONCE {
                    continue;
                }
                let wanted = &watcher.wanted;
                let share = shares.entry((*group, wanted.puts, wanted.deletions));
                let (share, its_bytes) = share.or_insert_with(|| {
                    let share = wanted.share_of(all);
                    let bytes = share.iter().map(|told| told.bytes()).sum();
                    (share, bytes)
                });
                if !share.is_empty() {
                    events += share.len();
                    bytes += *its_bytes;
                    told.push((watch, share.clone()));
                }
            }
            served.push(watch);
        }
        (told, served)
    }
}
