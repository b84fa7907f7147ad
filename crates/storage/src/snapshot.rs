//! Snapshots: the whole state after one entry, as files that never change.
//!
//! ```text
//! snapshots/snap-N/META       metadata and digest (see `stored`)
//! snapshots/snap-N/files/…    a RocksDB checkpoint
//! snapshots/stage-N/…         the same while it is built or received; removed at the next start
//! ```
//!
//! A snapshot exists from the moment its directory has its name: everything in it was fsynced
//! before. It is never in memory as a whole.

mod build;
mod content;
mod digest;
mod frames;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod receive;
mod shelf;
mod stored;

use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use tally_proto::storage::{SnapshotFile, SnapshotMeta};

use digest::FileDigest;
pub use frames::{SnapshotFrames, SnapshotPiece};
pub use receive::SnapshotReceiver;
pub(crate) use shelf::Shelf;

/// Subdirectory of a snapshot that holds the state's own files.
const FILES: &str = "files";

/// Files of one snapshot at most; a state of some hundred gigabytes has fewer.
const SNAPSHOT_FILES_MAX: usize = 8_192;

/// Longest name of a file in a snapshot, in bytes.
const FILE_NAME_BYTES_MAX: usize = 64;

/// One snapshot on disk. Clones are handles to the same one; its files stay while a handle does,
/// even when a newer snapshot has replaced it.
#[derive(Clone)]
pub struct Snapshot {
    held: Arc<Held>,
}

struct Held {
    path: PathBuf,
    meta: SnapshotMeta,
    digest: [u8; 32],
    /// Those of its files, in their order; none before they were read.
    file_digests: OnceLock<Vec<FileDigest>>,
    /// It is the current one: its files outlive the process.
    keep: AtomicBool,
    /// Its content was looked at after another member refused it.
    checked: AtomicBool,
}

impl Snapshot {
    fn new(
        path: PathBuf,
        meta: SnapshotMeta,
        digest: [u8; 32],
        file_digests: Option<Vec<FileDigest>>,
    ) -> Self {
        Self {
            held: Arc::new(Held {
                path,
                meta,
                digest,
                file_digests: file_digests.map_or_else(OnceLock::new, OnceLock::from),
                keep: AtomicBool::new(false),
                checked: AtomicBool::new(false),
            }),
        }
    }

    /// What it holds: where it stands in the log, its state hash, and its files by name.
    pub fn meta(&self) -> &SnapshotMeta {
        &self.held.meta
    }

    /// SHA-256 over every file's name, length and SHA-256, by name.
    pub fn digest(&self) -> [u8; 32] {
        self.held.digest
    }

    /// Length of all files in bytes.
    pub fn bytes(&self) -> u64 {
        self.held.meta.files.iter().map(|file| file.length).sum()
    }

    /// Its content for another member, in chunks of at most `chunk_bytes_max` bytes (at least 1)
    /// and then the digest. Reading blocks.
    pub fn frames(&self, chunk_bytes_max: usize) -> SnapshotFrames {
        SnapshotFrames::new(self.clone(), chunk_bytes_max.max(1))
    }

    /// Where it is.
    fn path(&self) -> PathBuf {
        self.held.path.clone()
    }

    pub(crate) fn file_path(&self, name: &str) -> PathBuf {
        self.held.path.join(FILES).join(name)
    }

    /// The digest of one of its files, if `path` is a link to the same one.
    fn digest_of_link(&self, file: &SnapshotFile, path: &Path) -> Option<FileDigest> {
        let files = &self.meta().files;
        let at = files
            .binary_search_by(|known| known.name.cmp(&file.name))
            .ok()?;
        let digest = *self.held.file_digests.get()?.get(at)?;
        // Its own link stands as long as this handle: no other file can have taken its number.
        let identity = |path: &Path| path.metadata().map(|found| (found.dev(), found.ino()));
        let same = identity(path).ok()? == identity(&self.file_path(&file.name)).ok()?;
        (same && files[at].length == file.length).then_some(digest)
    }

    fn index(&self) -> Option<u64> {
        self.held
            .meta
            .applied
            .as_ref()?
            .last_applied
            .map(|id| id.index)
    }

    fn keep(&self, keep: bool) {
        self.held.keep.store(keep, Ordering::Release);
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot")
            .field("path", &self.held.path)
            .field("index", &self.index())
            .finish_non_exhaustive()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.keep.load(Ordering::Acquire) {
            return;
        }
        if let Err(error) = shelf::discard(&self.path) {
            // The next start removes it.
            tracing::warn!(path = %self.path.display(), %error, "an old snapshot stays behind");
        }
    }
}
