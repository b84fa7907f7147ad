//! Makes bytes durable: the raft log, the replicated state, snapshots of it, and the identity of
//! the directory that holds them.
//!
//! Knows how things are written, fsynced, checked and read back. Knows nothing of consensus (who
//! may write what, and when) and nothing of what a command means: it runs `tally_model::apply` over
//! its tables and keeps what comes out. Everything here is synchronous.
//!
//! Two RocksDB instances: `log/`, where every write is followed by an fsync before it is reported,
//! and `state/gen-N/`, whose write-ahead log is off because the raft log is its write-ahead log.
//! Whoever cannot trust what the disk gives back fails for good: every later operation is an error
//! and the callback given at open is called, so that the process can end.

mod directory;
mod durable;
mod failure;
mod filters;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod log;
mod progress;
mod record_file;
mod rocks;
mod snapshot;
mod state;
mod table;
mod torn;

pub use directory::{DataDir, JoinError, OpenError, OpenOptions};
pub use failure::OnFailure;
pub use log::{BeforeSync, LogBounds, LogCounters, LogOptions, LogStore};
pub use snapshot::{Snapshot, SnapshotFrames, SnapshotPiece, SnapshotReceiver};
pub use state::{
    Events, RECENT_HASHES_MAX, ReadEntries, StateOptions, StateReader, StateStore, StateView,
};
