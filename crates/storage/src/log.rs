//! The raft log on disk: entries, the vote, and how far it is committed and purged.
//!
//! Callers change it in memory and hand the change to one writer thread, which gathers everything
//! that waits into one RocksDB batch with one fsync, in order, and then reports. So votes and
//! appends never overtake each other, and a hundred appends that wait cost one fsync.
//!
//! Knows nothing of terms or majorities: it keeps what it is given and says what stands.

mod entry;
mod floor;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod operation;
mod recovery;
mod row;
mod tail;
mod writer;

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use rocksdb::DB;
use tally_proto::storage::{LogEntry, LogId, Vote};

pub(crate) use floor::format;

use crate::directory::{DirectoryLock, OpenError};
use crate::failure::{Failure, OnFailure, lock};
use operation::{Action, Done, Operation, Queue};
use tail::Tail;
use writer::Writer;

/// Memory for the newest entries when nothing else is asked for.
const TAIL_BYTES_MAX: usize = 512 << 10;

/// Called before each synced write; an error counts as the disk's own.
pub type BeforeSync = Arc<dyn Fn() -> io::Result<()> + Send + Sync>;

/// How a log is opened.
pub struct LogOptions {
    /// Called when the log fails; the process must stop.
    pub on_failure: OnFailure,
    /// Memory for the newest entries, in bytes of their encoding: replication reads seldom go
    /// further back. Entries that are not on disk yet are kept beyond it.
    pub tail_bytes_max: usize,
    /// Called before each synced write; an error counts as the disk's own. Tests fail a write
    /// with it; a member has none.
    pub before_sync: Option<BeforeSync>,
}

impl LogOptions {
    /// The usual bounds.
    pub fn new(on_failure: OnFailure) -> Self {
        Self {
            on_failure,
            tail_bytes_max: TAIL_BYTES_MAX,
            before_sync: None,
        }
    }
}

/// What stands in the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogBounds {
    /// Entries up to this one are gone for good.
    pub purged: Option<LogId>,
    /// The last entry; the purged one when none stands.
    pub last: Option<LogId>,
}

/// What the log has done since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogCounters {
    /// Synced writes, the floor's included.
    pub fsyncs: u64,
    /// Batches that the writer thread made of what waited.
    pub groups: u64,
    pub appended_entries: u64,
    /// Bytes of the encoded entries.
    pub appended_bytes: u64,
}

/// The raft log. Clones are handles to the same log; the last one stops the writer thread, which
/// first writes what waits.
#[derive(Clone)]
pub struct LogStore {
    // Dropped before `shared`, so that the thread's own handle is gone when the database closes.
    _writer: Arc<Writer>,
    shared: Arc<Shared>,
}

/// What callers and the writer thread share.
struct Shared {
    db: DB,
    failure: Failure,
    before_sync: Option<BeforeSync>,
    front: Mutex<Front>,
    /// Something waits, or the writer is to stop.
    work: Condvar,
    /// The queue has room again.
    room: Condvar,
    counters: Counters,
    _lock: Arc<DirectoryLock>,
}

/// The log as readers see it, which is ahead of the disk, and what separates the two.
struct Front {
    tail: Tail,
    vote: Option<Vote>,
    committed: Option<LogId>,
    queue: Queue,
}

#[derive(Default)]
struct Counters {
    fsyncs: AtomicU64,
    groups: AtomicU64,
    appended_entries: AtomicU64,
    appended_bytes: AtomicU64,
}

impl LogStore {
    pub(crate) fn open(
        directory: &Path,
        name: String,
        lock: Arc<DirectoryLock>,
        options: LogOptions,
    ) -> Result<Self, OpenError> {
        let recovered = recovery::open(directory, &name, options.tail_bytes_max)?;
        let shared = Arc::new(Shared {
            db: recovered.db,
            failure: Failure::new(options.on_failure),
            before_sync: options.before_sync,
            front: Mutex::new(Front {
                tail: recovered.tail,
                vote: recovered.vote,
                committed: recovered.committed,
                queue: Queue::default(),
            }),
            work: Condvar::new(),
            room: Condvar::new(),
            counters: Counters::default(),
            _lock: lock,
        });
        let writer =
            Writer::start(shared.clone(), recovered.floor).map_err(|source| OpenError::Io {
                path: directory.to_path_buf(),
                source,
            })?;
        Ok(Self {
            _writer: Arc::new(writer),
            shared,
        })
    }

    /// Appends entries. They can be read when this returns, and are on disk when `done` is called
    /// with `Ok`. The first one must follow the last entry; a log that never held any begins where
    /// it says.
    ///
    /// `done` runs on the writer thread (or here, with an error); it must be quick. All calls that
    /// change the log return without waiting for the disk, except while `QUEUE_OPERATIONS_MAX` of
    /// them wait already.
    pub fn append(
        &self,
        entries: Vec<LogEntry>,
        done: impl FnOnce(io::Result<()>) + Send + 'static,
    ) {
        let done: Done = Box::new(done);
        let records = match entry::encode_all(&entries) {
            Ok(records) => records,
            Err(error) => return done(Err(error)),
        };
        self.change(done, |front, number| {
            let Some(last) = records.last().map(|record| record.id) else {
                return Ok(Action::Nothing);
            };
            let begins = front.tail.append(entries, &records, number)?;
            Ok(Action::Append {
                records,
                last,
                begins,
            })
        });
    }

    /// Keeps a vote. On disk, after everything asked for before, when `done` is called with `Ok`.
    pub fn save_vote(&self, vote: Vote, done: impl FnOnce(io::Result<()>) + Send + 'static) {
        self.change(Box::new(done), |front, _| {
            front.vote = Some(vote);
            Ok(Action::Vote(vote))
        });
    }

    /// Notes how far the log is committed: a hint for the next start, written along with something
    /// else or when the log is idle, and never fsynced for its own sake.
    pub fn save_committed(&self, committed: Option<LogId>) {
        let mut front = self.shared.front();
        if front.committed != committed {
            front.committed = committed;
            front.queue.committed_changed = true;
        }
    }

    /// Removes every entry after `last_kept`, or all when that is `None`. Readers see it at once.
    /// A log that ends at `last_kept` or before has nothing to remove.
    pub fn truncate_after(
        &self,
        last_kept: Option<u64>,
        done: impl FnOnce(io::Result<()>) + Send + 'static,
    ) {
        self.change(Box::new(done), |front, _| {
            let bounds = front.tail.bounds();
            let last = match last_kept {
                Some(index) if bounds.last.is_none_or(|last| last.index <= index) => {
                    return Ok(Action::Nothing);
                }
                Some(index) => Some(self.shared.id_at(&front.tail, index)?),
                None => bounds.purged,
            };
            Ok(match front.tail.truncate_to(last) {
                true => Action::Truncate { last },
                false => Action::Nothing,
            })
        });
    }

    /// Removes every entry up to `through`, which may lie beyond the end: the next append is then
    /// expected right after it. The caller sees to it that a snapshot or a flush holds them.
    pub fn purge(&self, through: LogId, done: impl FnOnce(io::Result<()>) + Send + 'static) {
        self.change(Box::new(done), |front, _| {
            Ok(match front.tail.purge(through) {
                true => Action::Purge { through },
                false => Action::Nothing,
            })
        });
    }

    /// The entries of a range, in order, as far as they stand: from `range.start`, or the first
    /// entry when that is later. Stops before it exceeds `bytes_max`, but gives at least one.
    pub fn read(&self, range: Range<u64>, bytes_max: usize) -> io::Result<Vec<LogEntry>> {
        let shared = &*self.shared;
        shared.failure.check()?;
        let front = shared.front();
        let range = front.tail.clip(range);
        if range.is_empty() {
            return Ok(Vec::new());
        }
        let cached = front.tail.cached(range.clone(), bytes_max);
        let stored = range.start..front.tail.cached_from().min(range.end);
        if stored.is_empty() {
            drop(front);
            return Ok(cached
                .into_iter()
                .map(|(entry, _)| (*entry).clone())
                .collect());
        }
        // Taken under the lock: what is not cached is on disk and stays so in the snapshot,
        // whatever is truncated or purged while it is read.
        let snapshot = shared.db.snapshot();
        drop(front);
        let (mut entries, mut bytes) = entry::read(&snapshot, stored.clone(), bytes_max)
            .map_err(|what| shared.failure.fail(what))?;
        if entries.len() as u64 == stored.end - stored.start {
            for (entry, size) in cached {
                bytes += size;
                if bytes > bytes_max {
                    break;
                }
                entries.push((*entry).clone());
            }
        }
        Ok(entries)
    }

    /// True while a change of the log waits for room: the disk takes less than is asked of it.
    pub fn is_full(&self) -> bool {
        self.shared.front().queue.is_full()
    }

    /// First and last, as readers see them.
    pub fn bounds(&self) -> LogBounds {
        self.shared.front().tail.bounds()
    }

    /// The vote that was saved last.
    pub fn vote(&self) -> Option<Vote> {
        self.shared.front().vote
    }

    /// How far the log was last said to be committed. After a restart it may lag.
    pub fn committed(&self) -> Option<LogId> {
        self.shared.front().committed
    }

    /// What was done since the log was opened.
    pub fn counters(&self) -> LogCounters {
        let counters = &self.shared.counters;
        LogCounters {
            fsyncs: counters.fsyncs.load(Ordering::Relaxed),
            groups: counters.groups.load(Ordering::Relaxed),
            appended_entries: counters.appended_entries.load(Ordering::Relaxed),
            appended_bytes: counters.appended_bytes.load(Ordering::Relaxed),
        }
    }

    /// Why the log has failed; `None` while it works.
    pub fn failed(&self) -> Option<String> {
        self.shared.failure.found()
    }

    /// Changes the front and queues what makes the disk follow, under one lock, so that the queue
    /// has the order in which readers saw the changes.
    fn change(&self, done: Done, change: impl FnOnce(&mut Front, u64) -> io::Result<Action>) {
        let shared = &*self.shared;
        let mut front = shared.front();
        while front.queue.is_full() {
            front = shared
                .room
                .wait(front)
                .unwrap_or_else(PoisonError::into_inner);
        }
        let number = front.queue.next_number();
        let outcome = shared
            .failure
            .check()
            .and_then(|()| change(&mut front, number));
        match outcome {
            Ok(action) => {
                front.queue.push(Operation { action, done });
                drop(front);
                shared.work.notify_one();
            }
            Err(error) => {
                drop(front);
                done(Err(error));
            }
        }
    }
}

impl fmt::Debug for LogStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogStore")
            .field("bounds", &self.bounds())
            .finish_non_exhaustive()
    }
}

impl Shared {
    fn front(&self) -> MutexGuard<'_, Front> {
        lock(&self.front)
    }

    /// The id of an entry that stands, or of the purged one.
    fn id_at(&self, tail: &Tail, index: u64) -> io::Result<LogId> {
        if let Some(id) = tail.id_at(index) {
            return Ok(id);
        }
        let range = tail.clip(index..index.saturating_add(1));
        if range.is_empty() {
            let bounds = tail.bounds();
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!(
                    "entry {index} is to be the last one and does not stand: the log is {bounds:?}"
                ),
            ));
        }
        let (entries, _) =
            entry::read(&self.db.snapshot(), range, 0).map_err(|what| self.failure.fail(what))?;
        entries.first().and_then(|entry| entry.id).ok_or_else(|| {
            self.failure
                .fail(format!("entry {index} of the log has gone"))
        })
    }
}
