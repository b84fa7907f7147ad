//! The one thread that writes the log: gathers what waits, writes it with one fsync, reports.

use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use prost::Message;
use rocksdb::WriteBatch;
use tally_proto::storage::LogId;

use super::floor::{FLOOR_IDLE, FLOOR_LAG_MAX, Floor, Level};
use super::operation::{Action, Operation};
use super::{Shared, entry, row};
use crate::rocks;

/// The running thread. Dropping it makes the thread write what waits and end.
pub(super) struct Writer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    pub(super) fn start(shared: Arc<Shared>, floor: Floor) -> io::Result<Self> {
        let task = Task {
            reached: floor.level(),
            floor,
            floor_synced: Instant::now(),
            shared: shared.clone(),
        };
        let thread = thread::Builder::new()
            .name("log-writer".to_owned())
            .spawn(move || task.run())?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.shared.front().queue.stopping = true;
        self.shared.work.notify_all();
        if let Some(thread) = self.thread.take()
            // The last handle may go away inside a `done` on the thread itself, which then ends
            // by itself.
            && thread.thread().id() != thread::current().id()
        {
            // A panic of the thread was reported when it happened.
            let _ = thread.join();
        }
    }
}

/// What the thread owns.
struct Task {
    shared: Arc<Shared>,
    floor: Floor,
    /// What is on disk: where the floor is heading.
    reached: Level,
    floor_synced: Instant,
}

/// What there is to do.
enum Work {
    Group {
        operations: Vec<Operation>,
        newest: u64,
        committed: Option<Option<LogId>>,
    },
    /// Nothing waited for a while.
    Idle {
        committed: Option<Option<LogId>>,
    },
    Stop {
        committed: Option<Option<LogId>>,
    },
}

impl Task {
    fn run(mut self) {
        loop {
            match self.next() {
                Work::Group {
                    operations,
                    newest,
                    committed,
                } => self.write_group(operations, newest, committed),
                Work::Idle { committed } => self.catch_up(committed),
                Work::Stop { committed } => {
                    self.catch_up(committed);
                    return;
                }
            }
        }
    }

    /// Waits for work.
    fn next(&self) -> Work {
        let shared = &*self.shared;
        let mut front = shared.front();
        loop {
            let changed = front.queue.committed_changed;
            if !front.queue.is_empty() || front.queue.stopping {
                front.queue.committed_changed = false;
                let committed = changed.then_some(front.committed);
                if front.queue.is_empty() {
                    return Work::Stop { committed };
                }
                let (operations, newest) = front.queue.take_group();
                shared.room.notify_all();
                return Work::Group {
                    operations,
                    newest,
                    committed,
                };
            }
            let behind = changed || self.floor.durable_level() != self.reached;
            if !behind || shared.failure.check().is_err() {
                front = shared
                    .work
                    .wait(front)
                    .unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let (guard, waited) = shared
                .work
                .wait_timeout(front, FLOOR_IDLE)
                .unwrap_or_else(PoisonError::into_inner);
            front = guard;
            if waited.timed_out() && front.queue.is_empty() {
                let changed = std::mem::take(&mut front.queue.committed_changed);
                return Work::Idle {
                    committed: changed.then_some(front.committed),
                };
            }
        }
    }

    fn write_group(
        &mut self,
        operations: Vec<Operation>,
        newest: u64,
        committed: Option<Option<LogId>>,
    ) {
        let (actions, dones): (Vec<_>, Vec<_>) = operations
            .into_iter()
            .map(|operation| (operation.action, operation.done))
            .unzip();
        match self.write_actions(&actions, committed) {
            Ok(()) => {
                self.shared.front().tail.written(newest);
                for done in dones {
                    done(Ok(()));
                }
            }
            Err(error) => {
                for done in dones {
                    done(Err(io::Error::new(error.kind(), error.to_string())));
                }
                return;
            }
        }
        if self.floor.durable_level() != self.reached
            && self.floor_synced.elapsed() >= FLOOR_LAG_MAX
        {
            self.sync_floor();
        }
    }

    /// Writes a group's effects, durable on return. An error means that the log has failed.
    fn write_actions(
        &mut self,
        actions: &[Action],
        committed: Option<Option<LogId>>,
    ) -> io::Result<()> {
        self.shared.failure.check()?;
        let mut batch = WriteBatch::default();
        let mut reached = self.reached;
        let mut lowest = self.floor.level();
        let (mut entries, mut bytes) = (0, 0);
        for action in actions {
            add(&mut batch, action);
            match action {
                Action::Nothing => {}
                Action::Append { records, last, .. } => {
                    entries += records.len() as u64;
                    bytes += records
                        .iter()
                        .map(|record| record.bytes.len() as u64)
                        .sum::<u64>();
                    reached.last = Some(*last);
                }
                Action::Vote(vote) => reached.vote_term = vote.term,
                Action::Truncate { last } => {
                    reached.last = *last;
                    lowest.last = lower(lowest.last, *last);
                }
                Action::Purge { through } => {
                    if reached.last.is_none_or(|last| last.index < through.index) {
                        reached.last = Some(*through);
                    }
                }
            }
        }
        if lowest != self.floor.level() {
            self.lower_floor(lowest)?;
        }
        if batch.is_empty() {
            self.write_committed(committed)?;
        } else {
            add_committed(&mut batch, committed);
            self.write(batch)?;
        }
        self.reached = reached;
        // Before anybody is told: from now on a log that ends earlier has lost something.
        self.floor
            .note(reached)
            .map_err(|error| self.floor_failed(&error))?;
        let counters = &self.shared.counters;
        counters.groups.fetch_add(1, Ordering::Relaxed);
        counters
            .appended_entries
            .fetch_add(entries, Ordering::Relaxed);
        counters.appended_bytes.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }

    fn write(&self, batch: WriteBatch) -> io::Result<()> {
        let shared = &*self.shared;
        if let Some(before_sync) = &shared.before_sync {
            before_sync().map_err(|error| {
                shared
                    .failure
                    .fail(format!("the log cannot be written: {error}"))
            })?;
        }
        shared
            .db
            .write_opt(batch, &rocks::synced())
            .map_err(|error| {
                shared
                    .failure
                    .fail(format!("the log cannot be written: {error}"))
            })?;
        shared.counters.fsyncs.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Uses a quiet moment for what need not be prompt.
    fn catch_up(&mut self, committed: Option<Option<LogId>>) {
        if self.shared.failure.check().is_err() {
            return;
        }
        if self.write_committed(committed).is_ok() && self.floor.durable_level() != self.reached {
            self.sync_floor();
        }
    }

    /// Writes the hint alone, without an fsync.
    fn write_committed(&self, committed: Option<Option<LogId>>) -> io::Result<()> {
        let mut batch = WriteBatch::default();
        add_committed(&mut batch, committed);
        if batch.is_empty() {
            return Ok(());
        }
        let shared = &*self.shared;
        shared
            .db
            .write_opt(batch, &rocks::unsynced())
            .map_err(|error| {
                shared
                    .failure
                    .fail(format!("the log cannot be written: {error}"))
            })
    }

    fn lower_floor(&mut self, level: Level) -> io::Result<()> {
        let lowered = self.floor.note(level).and_then(|()| self.floor.sync());
        lowered.map_err(|error| self.floor_failed(&error))?;
        self.shared.counters.fsyncs.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn sync_floor(&mut self) {
        self.floor_synced = Instant::now();
        let synced = self
            .floor
            .note(self.reached)
            .and_then(|()| self.floor.sync());
        if let Err(error) = synced {
            self.floor_failed(&error);
            return;
        }
        self.shared.counters.fsyncs.fetch_add(1, Ordering::Relaxed);
    }

    fn floor_failed(&self, error: &io::Error) -> io::Error {
        self.shared
            .failure
            .fail(format!("the floor of the log cannot be written: {error}"))
    }
}

/// Adds one operation's effect to a batch; later operations see it.
fn add(batch: &mut WriteBatch, action: &Action) {
    match action {
        Action::Nothing => {}
        Action::Append {
            records, begins, ..
        } => {
            if let Some(begins) = begins {
                batch.put(row::BEGINS, begins.to_be_bytes());
            }
            for record in records {
                batch.put(entry::key(record.id.index), &record.bytes);
            }
        }
        Action::Vote(vote) => batch.put(row::VOTE, vote.encode_to_vec()),
        Action::Truncate { last } => {
            let from = last.map_or(0, |last| last.index + 1);
            batch.delete_range(entry::key(from).as_slice(), entry::end().as_slice());
        }
        Action::Purge { through } => {
            batch.delete_range(entry::key(0), entry::key(through.index + 1));
            batch.put(row::PURGED, through.encode_to_vec());
        }
    }
}

fn add_committed(batch: &mut WriteBatch, committed: Option<Option<LogId>>) {
    match committed {
        Some(Some(committed)) => batch.put(row::COMMITTED, committed.encode_to_vec()),
        Some(None) => batch.delete(row::COMMITTED),
        None => {}
    }
}

/// The floor that a truncation allows.
fn lower(floor: Option<LogId>, last: Option<LogId>) -> Option<LogId> {
    match (floor, last) {
        (Some(floor), Some(last)) if last.index < floor.index => Some(last),
        (Some(floor), Some(_)) => Some(floor),
        (_, _) => None,
    }
}
