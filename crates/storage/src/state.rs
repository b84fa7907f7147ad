//! The replicated state on disk: what applying the raft log, entry by entry, has come to.
//!
//! Entries that are applied together are one atomic RocksDB batch: their effects, their outcomes, and
//! where the state then stands in the log. The write-ahead log is off: after a crash the state is
//! that of the last flush, and the raft log, purged only up to what a snapshot made durable, is
//! applied again from there.
//!
//! Knows nothing of what a command means (`tally_model::apply` does) and nothing of consensus.

mod batch;
mod cache;
mod generation;
mod known;
mod parts;
mod rows;
mod shown;
mod versions;
mod view;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use tally_model::Answer;
use tally_proto::storage::{AppliedState, LogEntry, LogId, SnapshotMeta};

pub(crate) use generation::{check, position};
pub use view::{Events, StateView};

use crate::directory::{DirectoryLock, OpenError};
use crate::failure::{Failure, OnFailure, lock};
use crate::snapshot::{Shelf, Snapshot, SnapshotReceiver};
use crate::{rocks, torn};
use batch::{Batch, NotApplied, Step};
use generation::{Generation, Generations};
use known::Known;
use shown::ShownGlobals;

/// Rows that are written in a moment where nothing holds them up.
const QUICK_ROWS_MAX: usize = 100_000;

/// State hashes remembered for comparison with other members.
pub const RECENT_HASHES_MAX: usize = 1_024;

/// How a state is opened.
pub struct StateOptions {
    /// Called when the state fails; the process must stop.
    pub on_failure: OnFailure,
}

/// The replicated state. Clones are handles to the same state.
#[derive(Clone)]
pub struct StateStore {
    shared: Arc<Shared>,
}

/// Reads the replicated state and cannot change it.
#[derive(Clone)]
pub struct StateReader {
    shared: Arc<Shared>,
}

struct Shared {
    failure: Failure,
    generation: RwLock<Arc<Generation>>,
    globals: ShownGlobals,
    generations: Generations,
    shelf: Arc<Shelf>,
    /// Held while the state changes: by a batch of entries, or by the installation of a snapshot. What
    /// is known is the state as the last of them left it.
    changing: Mutex<Known>,
    position: Mutex<Position>,
    /// See [`StateStore::wants_flush`].
    flush_wanted: AtomicBool,
    /// When the write began that is under way, unless it is one that may take long.
    writing: Mutex<Option<Instant>>,
    _lock: Arc<DirectoryLock>,
}

/// Where the state stands, kept in memory so that asking never waits for a disk.
struct Position {
    applied: AppliedState,
    hash: u128,
    /// Ascending by index.
    recent: VecDeque<(u64, u128)>,
}

impl Position {
    /// Moves on by entries, after each of which the state had a hash.
    fn move_through(&mut self, applied: AppliedState, hashes: &[(u64, u128)]) {
        for &(index, hash) in hashes {
            if self.recent.len() == RECENT_HASHES_MAX {
                self.recent.pop_front();
            }
            self.recent.push_back((index, hash));
            self.hash = hash;
        }
        self.applied = applied;
    }

    /// Moves to where a whole state stands.
    fn move_to(&mut self, applied: AppliedState, hash: u128) {
        let at = applied.last_applied.map(|id| (id.index, hash));
        self.hash = hash;
        self.move_through(applied, at.as_slice());
    }
}

impl Shared {
    fn generation(&self) -> Arc<Generation> {
        self.generation
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn with_view<T>(&self, read: impl FnOnce(&StateView<'_>) -> T) -> io::Result<T> {
        self.failure.check()?;
        let seen = self.globals.before();
        let generation = self.generation();
        let snapshot = generation.db().snapshot();
        let view = StateView::with_globals(snapshot, self.globals.after(seen));
        let answer = read(&view);
        match view.into_broken() {
            None => Ok(answer),
            Some(what) => Err(self.failure.fail(what)),
        }
    }
}

/// Entries that were read and are to be applied.
pub struct ReadEntries(VecDeque<Step>);

impl ReadEntries {
    /// True when all of them are applied.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// True when applying them may take so long that others notice. See [`tally_model::Command::may_take_long`].
    pub fn may_take_long(&self) -> bool {
        self.0.iter().any(Step::may_take_long)
    }
}

impl fmt::Debug for ReadEntries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entries = self.0.len();
        f.debug_struct("ReadEntries")
            .field("entries", &entries)
            .finish_non_exhaustive()
    }
}

impl StateReader {
    /// See [`StateStore::with_view`].
    pub fn with_view<T>(&self, read: impl FnOnce(&StateView<'_>) -> T) -> io::Result<T> {
        self.shared.with_view(read)
    }
}

impl StateStore {
    pub(crate) fn open(
        directory: &Path,
        name: String,
        lock: Arc<DirectoryLock>,
        options: StateOptions,
    ) -> Result<Self, OpenError> {
        let generations = Generations::open(directory, &name)?;
        let path = generations.current_path();
        let damaged = |why: String| OpenError::damaged(path.clone(), &name, why);
        torn::check(&path)
            .map_err(|source| OpenError::Io {
                path: path.clone(),
                source,
            })?
            .map_err(|damage| OpenError::damaged(damage.file, &name, damage.why))?;
        let generation =
            Generation::open(path.clone()).map_err(|error| {
                match rocks::is_environment(&error) {
                    true => OpenError::Io {
                        path: path.clone(),
                        source: io::Error::other(error.into_string()),
                    },
                    false => damaged(error.into_string()),
                }
            })?;
        let (applied, hash) = check(generation.db()).map_err(damaged)?;
        rocks::merge_from_now_on(generation.db()).map_err(|source| OpenError::Io {
            path: path.clone(),
            source,
        })?;
        let shelf = Shelf::open(directory, &name, applied.last_applied)?;
        let mut position = Position {
            applied: AppliedState::default(),
            hash,
            recent: VecDeque::new(),
        };
        position.move_to(applied, hash);
        Ok(Self {
            shared: Arc::new(Shared {
                failure: Failure::new(options.on_failure),
                generation: RwLock::new(Arc::new(generation)),
                globals: ShownGlobals::default(),
                generations,
                shelf: Arc::new(shelf),
                changing: Mutex::default(),
                position: Mutex::new(position),
                flush_wanted: AtomicBool::new(false),
                writing: Mutex::default(),
                _lock: lock,
            }),
        })
    }

    /// Where the state stands in the log. Never waits for a disk.
    pub fn applied(&self) -> AppliedState {
        lock(&self.shared.position).applied.clone()
    }

    /// Applies one entry. See [`StateStore::apply_all`].
    ///
    /// # Errors
    /// As for [`StateStore::apply_all`].
    pub fn apply(&self, entry: &LogEntry) -> io::Result<Option<Answer>> {
        let answers = self.apply_all([entry.clone()])?;
        Ok(answers.into_iter().next().flatten())
    }

    /// Reads entries that are to be applied. Nothing changes yet.
    ///
    /// # Errors
    /// When this version cannot apply one of them; the state has failed.
    pub fn read_entries(
        &self,
        entries: impl IntoIterator<Item = LogEntry>,
    ) -> io::Result<ReadEntries> {
        let steps = entries.into_iter().map(Step::read);
        let steps: Result<_, _> = steps.collect();
        let failed = |what: String| self.shared.failure.fail(what);
        steps.map(ReadEntries).map_err(failed)
    }

    /// Reads and applies entries, all of them. See [`StateStore::apply_some`].
    ///
    /// # Errors
    /// As for [`StateStore::read_entries`] and [`StateStore::apply_some`].
    pub fn apply_all(
        &self,
        entries: impl IntoIterator<Item = LogEntry>,
    ) -> io::Result<Vec<Option<Answer>>> {
        let mut entries = self.read_entries(entries)?;
        let mut answers = Vec::new();
        while !entries.is_empty() {
            answers.extend(self.apply_some(&mut entries)?);
        }
        Ok(answers)
    }

    /// Applies the first of these entries, and as many after it as are to be held at once; the first must come after
    /// the last applied one. Gives an answer for each that it took; there is one for proposals. They become visible
    /// together, and are on disk after the next flush or snapshot.
    ///
    /// # Errors
    /// An error means that nothing of what it took was applied and that the state has failed, except for an
    /// entry that was applied already (`InvalidInput`).
    pub fn apply_some(&self, entries: &mut ReadEntries) -> io::Result<Vec<Option<Answer>>> {
        let shared = &*self.shared;
        let mut known = lock(&shared.changing);
        shared.failure.check()?;
        known.begin();
        let reclaimed_before = known.globals().map(|globals| globals.reclaimed);
        let (applied, hash) = {
            let position = lock(&shared.position);
            (position.applied.clone(), position.hash)
        };
        let generation = shared.generation();
        let view = StateView::knowing(generation.db().snapshot(), &mut known);
        let mut batch = Batch::new(view, applied, hash);
        let mut answers = Vec::new();
        while !batch.is_full()
            && let Some(step) = entries.0.pop_front()
        {
            match batch.apply(step) {
                Ok(answer) => answers.push(answer),
                Err(NotApplied::Already(what)) => {
                    return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
                }
                Err(NotApplied::Failed(what)) => return Err(shared.failure.fail(what)),
            }
        }
        let ready = batch.finish();
        let rows = ready.to_write();
        let quick = ready.rows.len() <= QUICK_ROWS_MAX;
        *lock(&shared.writing) = quick.then(Instant::now);
        let written = shared.globals.change(|| {
            let written = generation.db().write_opt(rows, &rocks::unlogged());
            written.map(|()| ((), known.globals().cloned()))
        });
        *lock(&shared.writing) = None;
        written.map_err(|error| {
            let what = format!("the state cannot be written: {error}");
            shared.failure.fail(what)
        })?;
        for (key, value) in ready.rows {
            known.rows.written(key, value);
        }
        known.written();
        lock(&shared.position).move_through(ready.applied, &ready.hashes);
        let reclaimed = known.globals().map(|globals| globals.reclaimed);
        let all_reclaimed = known
            .globals()
            .is_some_and(|globals| !globals.is_reclaiming());
        if reclaimed != reclaimed_before && all_reclaimed {
            shared.flush_wanted.store(true, Ordering::Relaxed);
        }
        Ok(answers)
    }

    /// True when what is applied may have to wait for the disk, which has not taken yet what was written to memory
    /// before.
    pub fn may_wait_for_disk(&self) -> bool {
        rocks::may_hold_up_writes(self.shared.generation().db())
    }

    /// True once after the last step of a compaction was applied: with a flush, the room of what it gave up is free soon,
    /// though nothing more may come.
    pub fn wants_flush(&self) -> bool {
        self.shared.flush_wanted.swap(false, Ordering::Relaxed)
    }

    /// For how long a write has been under way, before which nothing else can be applied: the disk holds it up when that
    /// is long. One of very many rows takes its time on any disk, and does not count.
    pub fn held_up_for(&self) -> Duration {
        let begun = *lock(&self.shared.writing);
        begun.map_or(Duration::ZERO, |begun| begun.elapsed())
    }

    /// Shows the state, as it stands after one entry, to a closure. Cheap: takes no lock that apply
    /// holds. When a read fails the result is thrown away and the state has failed.
    pub fn with_view<T>(&self, read: impl FnOnce(&StateView<'_>) -> T) -> io::Result<T> {
        self.shared.with_view(read)
    }

    /// Room that the state takes, in files and in what waits to be written to one, bytes.
    pub fn bytes(&self) -> io::Result<u64> {
        self.shared.failure.check()?;
        let generation = self.shared.generation();
        let failed = |error: rocksdb::Error| {
            let what = format!("the state's files cannot be listed: {error}");
            self.shared.failure.fail(what)
        };
        let files = generation.db().live_files().map_err(failed)?;
        let name = rocksdb::properties::SIZE_ALL_MEM_TABLES;
        let waiting = generation.db().property_int_value(name).map_err(failed)?;
        Ok(files.iter().map(|file| file.size as u64).sum::<u64>() + waiting.unwrap_or(0))
    }

    /// A handle that can only read.
    pub fn reader(&self) -> StateReader {
        StateReader {
            shared: self.shared.clone(),
        }
    }

    /// Index of the last applied entry (0 for none) and the state hash after it.
    pub fn state_hash(&self) -> (u64, u128) {
        let position = lock(&self.shared.position);
        (
            position.applied.last_applied.map_or(0, |id| id.index),
            position.hash,
        )
    }

    /// State hashes after recent entries, ascending by index, at most [`RECENT_HASHES_MAX`].
    pub fn recent_hashes(&self) -> Vec<(u64, u128)> {
        lock(&self.shared.position).recent.iter().copied().collect()
    }

    /// Computes the state hash from every row: what the incrementally kept one must equal. Reads
    /// the whole state.
    pub fn computed_hash(&self) -> io::Result<u128> {
        self.with_view(|view| view.computed_hash())
    }

    /// Makes everything applied so far durable. Gives the id of an entry that is certainly on disk.
    pub fn flush(&self) -> io::Result<Option<LogId>> {
        self.shared.failure.check()?;
        let before = self.applied().last_applied;
        let generation = self.shared.generation();
        generation.db().flush().map_err(|error| {
            self.shared
                .failure
                .fail(format!("the state cannot be flushed: {error}"))
        })?;
        Ok(before)
    }

    /// Makes a snapshot of the state as it stands, while entries go on being applied. Durable on
    /// return, and the current one. What it holds need no longer stand in the log. Slow: reads all
    /// of the state once.
    pub fn build_snapshot(&self) -> io::Result<Snapshot> {
        self.shared.failure.check()?;
        let generation = self.shared.generation();
        self.shared.shelf.build(generation.db()).map_err(|error| {
            self.shared
                .failure
                .fail(format!("no snapshot can be made: {error}"))
        })
    }

    /// The newest snapshot that was built or installed.
    pub fn current_snapshot(&self) -> Option<Snapshot> {
        self.shared.shelf.current()
    }

    /// Begins to receive a snapshot from another member. Refuses metadata out of bounds.
    pub fn receive(&self, meta: SnapshotMeta) -> io::Result<SnapshotReceiver> {
        self.shared.failure.check()?;
        let receiver = self.shared.shelf.clone().receive(meta);
        receiver.map_err(|error| self.disk_failed(error))
    }

    /// Takes the next bytes of a snapshot that is being received. Refuses what was not announced.
    pub fn receive_chunk(
        &self,
        receiver: &mut SnapshotReceiver,
        file: &str,
        offset: u64,
        data: &[u8],
    ) -> io::Result<()> {
        let written = receiver.write(file, offset, data);
        written.map_err(|error| self.disk_failed(error))
    }

    /// Ends a snapshot that was received. Refuses one that is not what was announced.
    pub fn receive_end(&self, receiver: SnapshotReceiver, digest: &[u8]) -> io::Result<Snapshot> {
        let received = receiver.finish(digest).and_then(|snapshot| {
            snapshot.check_content()?;
            Ok(snapshot)
        });
        received.map_err(|error| self.disk_failed(error))
    }

    /// Another member has refused a snapshot of this one: if it is the snapshot that is not sound, the
    /// state has failed. Reads the whole snapshot, once.
    pub fn refused_elsewhere(&self, snapshot: &Snapshot) {
        if let Err(error) = snapshot.check_content_once() {
            self.fail(format!("a snapshot is damaged: {error}"));
        }
    }

    /// Fails the state for good: something that it gave out turned out not to be what was written.
    pub fn fail(&self, what: String) {
        // The error is for callers that have one to give.
        let _ = self.shared.failure.fail(what);
    }

    /// Replaces the state by a snapshot, which becomes the current one. Until it is whole on disk
    /// and was opened, the old state stands: a snapshot that is refused (`InvalidData`,
    /// `InvalidInput`) changes nothing. Slow: copies files.
    pub fn install(&self, snapshot: &Snapshot) -> io::Result<()> {
        let shared = &*self.shared;
        let mut known = lock(&shared.changing);
        shared.failure.check()?;
        let new = snapshot
            .meta()
            .applied
            .as_ref()
            .and_then(|applied| applied.last_applied);
        let old = lock(&shared.position).applied.last_applied;
        if new.map(|id| id.index) < old.map(|id| id.index) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("a snapshot of {new:?} would take the state back from {old:?}"),
            ));
        }
        let staged = shared
            .generations
            .stage(snapshot)
            .map_err(|error| self.disk_failed(error))?;
        let (applied, hash) = staged.position().map_err(invalid_data)?;
        check_position(snapshot.meta(), &applied, hash)?;
        rocks::merge_from_now_on(staged.db()).map_err(|error| self.disk_failed(error))?;
        shared
            .generations
            .adopt(&staged)
            .map_err(|error| self.disk_failed(error))?;
        let replaced: Result<_, Infallible> = shared.globals.change(|| {
            let mut generation = shared
                .generation
                .write()
                .unwrap_or_else(PoisonError::into_inner);
            let replaced = std::mem::replace(&mut *generation, Arc::new(staged));
            Ok((replaced, None))
        });
        let Ok(replaced) = replaced;
        known.clear();
        replaced.remove_when_unused();
        lock(&shared.position).move_to(applied, hash);
        shared.shelf.set_current(snapshot.clone());
        Ok(())
    }

    /// Why the state has failed; `None` while it works.
    pub fn failed(&self) -> Option<String> {
        self.shared.failure.found()
    }

    /// A refusal of what was received stays one; anything else is the disk's, and final.
    fn disk_failed(&self, error: io::Error) -> io::Error {
        match error.kind() {
            io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => error,
            _ => self
                .shared
                .failure
                .fail(format!("a snapshot cannot be installed: {error}")),
        }
    }
}

impl fmt::Debug for StateStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StateStore")
            .field("state_hash", &self.state_hash())
            .finish_non_exhaustive()
    }
}

/// Refuses a snapshot whose content is not what its metadata says.
fn check_position(meta: &SnapshotMeta, applied: &AppliedState, hash: u128) -> io::Result<()> {
    if meta.applied.as_ref() != Some(applied) || meta.state_hash != hash.to_be_bytes() {
        return Err(invalid_data(format!(
            "the snapshot says that it stands at {:?}, and stands at {:?} with state hash {hash:032x}",
            meta.applied
                .as_ref()
                .and_then(|applied| applied.last_applied),
            applied.last_applied
        )));
    }
    Ok(())
}

fn invalid_data(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
