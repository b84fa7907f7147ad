//! The directory `snapshots/`: names, stages, and which snapshot is the current one.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use tally_proto::storage::{LogId, SnapshotMeta};

use super::digest::Digests;
use super::{FILES, Snapshot, digest, stored};
use crate::directory::OpenError;
use crate::durable;
use crate::failure::lock;

const SNAPSHOT_PREFIX: &str = "snap-";
const STAGE_PREFIX: &str = "stage-";

/// Where snapshots are kept.
pub(crate) struct Shelf {
    path: PathBuf,
    /// Above every number in use.
    next: AtomicU64,
    current: Mutex<Option<Snapshot>>,
    /// Held while a snapshot is built.
    pub(super) building: Mutex<()>,
}

impl Shelf {
    /// Opens the directory. The newest whole snapshot that does not go beyond `applied` is the
    /// current one (one that does was received and never installed); older and unfinished ones go. A
    /// damaged one refuses the start.
    pub(crate) fn open(
        directory: &Path,
        name: &str,
        applied: Option<LogId>,
    ) -> Result<Self, OpenError> {
        let path = directory.join("snapshots");
        let io = |source| OpenError::Io {
            path: path.clone(),
            source,
        };
        durable::create_directory(&path).map_err(io)?;
        let mut next = 1;
        let mut found: Vec<Snapshot> = Vec::new();
        for entry in fs::read_dir(&path).map_err(io)? {
            let entry = entry.map_err(io)?;
            let file_name = entry.file_name().to_string_lossy().into_owned();
            if file_name.starts_with(STAGE_PREFIX) {
                fs::remove_dir_all(entry.path()).map_err(io)?;
                continue;
            }
            let Some(number) = file_name
                .strip_prefix(SNAPSHOT_PREFIX)
                .and_then(|number| number.parse::<u64>().ok())
            else {
                continue;
            };
            next = next.max(number + 1);
            let (meta, digest) = stored::read(&entry.path())
                .map_err(|why| OpenError::damaged(entry.path(), name, why))?;
            let snapshot = Snapshot::new(entry.path(), meta, digest, None);
            // As long as something may still be found that refuses the start, no file goes.
            snapshot.keep(true);
            found.push(snapshot);
        }
        let reached = applied.map(|id| id.index);
        let current = found
            .iter()
            .filter(|snapshot| snapshot.index() <= reached)
            .max_by_key(|snapshot| snapshot.index())
            .cloned();
        if let Some(current) = &current {
            check(current).map_err(|why| OpenError::damaged(current.path(), name, why))?;
        }
        for snapshot in found {
            let is_current = current
                .as_ref()
                .is_some_and(|current| current.path() == snapshot.path());
            // Dropped here, and removed unless it is kept.
            snapshot.keep(is_current);
        }
        Ok(Self {
            path,
            next: AtomicU64::new(next),
            current: Mutex::new(current),
            building: Mutex::new(()),
        })
    }

    pub(crate) fn current(&self) -> Option<Snapshot> {
        lock(&self.current).clone()
    }

    /// Makes a snapshot the current one, unless a newer one is.
    pub(crate) fn set_current(&self, snapshot: Snapshot) {
        let mut current = lock(&self.current);
        if current
            .as_ref()
            .is_some_and(|current| current.index() > snapshot.index())
        {
            return;
        }
        snapshot.keep(true);
        let replaced = current.replace(snapshot.clone());
        // Its files may go with it: nobody waits for that here.
        drop(current);
        if let Some(replaced) = replaced.filter(|replaced| replaced.held.path != snapshot.held.path)
        {
            replaced.keep(false);
        }
    }

    /// Begins a snapshot.
    pub(super) fn stage(&self) -> io::Result<Stage> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let path = self.path.join(format!("{STAGE_PREFIX}{number}"));
        durable::create_directory(&path)?;
        Ok(Stage {
            path,
            named: self.path.join(format!("{SNAPSHOT_PREFIX}{number}")),
            finished: false,
        })
    }
}

/// Reads the files of a snapshot: it must be what it was when it got its name, or it would be found out
/// when another member needs it, and the log no longer has what it holds.
fn check(snapshot: &Snapshot) -> Result<(), String> {
    let files = snapshot.held.path.join(FILES);
    let found =
        digest::of_files(&files, &snapshot.meta().files).map_err(|error| error.to_string())?;
    match found.snapshot == snapshot.digest() {
        true => {
            snapshot.held.file_digests.get_or_init(|| found.files);
            Ok(())
        }
        false => Err("its files do not have the digest that META says".to_owned()),
    }
}

/// A snapshot in the making; its files go when it is dropped unfinished.
pub(super) struct Stage {
    path: PathBuf,
    named: PathBuf,
    finished: bool,
}

impl Stage {
    /// Where the state's own files go.
    pub(super) fn files(&self) -> PathBuf {
        self.path.join(FILES)
    }

    /// Makes it a snapshot. Its files are whole, and fsynced by the caller.
    pub(super) fn finish(mut self, meta: SnapshotMeta, digests: Digests) -> io::Result<Snapshot> {
        durable::sync_directory(&self.files())?;
        stored::write(&self.path, &meta, digests.snapshot)?;
        durable::sync_directory(&self.path)?;
        durable::rename_directory(&self.path, &self.named)?;
        self.finished = true;
        let (digest, files) = (digests.snapshot, digests.files);
        Ok(Snapshot::new(self.named.clone(), meta, digest, Some(files)))
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if !self.finished
            && let Err(error) = fs::remove_dir_all(&self.path)
        {
            // The next start removes it.
            tracing::warn!(path = %self.path.display(), %error, "an unfinished snapshot stays behind");
        }
    }
}

/// Removes a snapshot. It loses its name first, so that a crash cannot leave half of it under one.
pub(super) fn discard(path: &Path) -> io::Result<()> {
    let name = path
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default();
    let number = name.trim_start_matches(SNAPSHOT_PREFIX);
    let unnamed = path.with_file_name(format!("{STAGE_PREFIX}{number}"));
    durable::rename_directory(path, &unnamed)?;
    fs::remove_dir_all(unnamed)
}
