//! Generations: each installed snapshot starts a RocksDB of its own in `state/gen-N`, and the file
//! `state/CURRENT_GENERATION` says which one counts.
//!
//! layout of the pointer: a record file with the magic `TALLYGEN`, holding
//! tally.storage.v1.CurrentGeneration

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rocksdb::DB;
use tally_proto::storage::{AppliedState, CurrentGeneration};

use super::view::StateView;
use crate::directory::OpenError;
use crate::record_file::{self, ReadError};
use crate::snapshot::Snapshot;
use crate::{durable, filters, rocks};

const POINTER: &str = "CURRENT_GENERATION";
const MAGIC: [u8; 8] = *b"TALLYGEN";
const PREFIX: &str = "gen-";

/// One RocksDB of the state.
pub(super) struct Generation {
    // Closed before its directory may be removed.
    db: DB,
    directory: Directory,
}

struct Directory {
    path: PathBuf,
    remove: AtomicBool,
}

impl Drop for Directory {
    fn drop(&mut self) {
        if self.remove.load(Ordering::Acquire)
            && let Err(error) = fs::remove_dir_all(&self.path)
        {
            // The next start removes it.
            tracing::warn!(path = %self.path.display(), %error, "an old generation of the state stays behind");
        }
    }
}

impl Generation {
    pub(super) fn open(path: PathBuf) -> Result<Self, rocksdb::Error> {
        let db = rocks::open_state(&path)?;
        Ok(Self {
            db,
            directory: Directory {
                path,
                remove: AtomicBool::new(false),
            },
        })
    }

    pub(super) fn db(&self) -> &DB {
        &self.db
    }

    /// Where this state stands, and its hash.
    pub(super) fn position(&self) -> Result<(AppliedState, u128), String> {
        position(&self.db)
    }

    /// Removes the files once nobody reads them any more.
    pub(super) fn remove_when_unused(&self) {
        self.directory.remove.store(true, Ordering::Release);
    }
}

/// Where a state stands, and its hash.
pub(crate) fn position(db: &DB) -> Result<(AppliedState, u128), String> {
    let view = StateView::new(db.snapshot());
    let found = (view.applied(), view.stored_hash());
    match view.into_broken() {
        None => Ok(found),
        Some(what) => Err(what),
    }
}

/// The same, after reading every row: an error says what is not as it was written.
pub(crate) fn check(db: &DB) -> Result<(AppliedState, u128), String> {
    filters::check(db)?;
    let view = StateView::new(db.snapshot());
    let (applied, kept) = (view.applied(), view.stored_hash());
    let found = view.computed_hash();
    match view.into_broken() {
        Some(what) => Err(what),
        None if found != kept => Err(format!(
            "its rows have the hash {found:032x}, and {kept:032x} was written with them"
        )),
        None => Ok((applied, kept)),
    }
}

/// The directory `state/` and its pointer.
pub(super) struct Generations {
    path: PathBuf,
    current: AtomicU64,
}

impl Generations {
    /// Finds the current generation, or makes the first; removes what others have left.
    pub(super) fn open(directory: &Path, name: &str) -> Result<Self, OpenError> {
        let path = directory.join("state");
        let pointer = path.join(POINTER);
        let io = |source| OpenError::Io {
            path: path.clone(),
            source,
        };
        durable::create_directory(&path).map_err(io)?;
        let current = match record_file::read::<CurrentGeneration>(&pointer, MAGIC) {
            Ok(pointer) => pointer.number,
            Err(ReadError::Missing) => {
                begin(&path, &pointer, name)?;
                1
            }
            Err(ReadError::Damaged(why)) => return Err(OpenError::damaged(pointer, name, why)),
            Err(ReadError::Io(source)) => {
                return Err(OpenError::Io {
                    path: pointer,
                    source,
                });
            }
        };
        let generations = Self {
            path: path.clone(),
            current: AtomicU64::new(current),
        };
        if !generations.current_path().is_dir() {
            return Err(OpenError::damaged(
                generations.current_path(),
                name,
                "it is missing",
            ));
        }
        generations.remove_others().map_err(io)?;
        Ok(generations)
    }

    pub(super) fn current_path(&self) -> PathBuf {
        self.path_of(self.current.load(Ordering::Acquire))
    }

    fn path_of(&self, number: u64) -> PathBuf {
        self.path.join(format!("{PREFIX}{number}"))
    }

    /// Makes the next generation out of a snapshot's files and opens it, without making it current.
    /// When it is dropped before it is adopted its files go.
    pub(super) fn stage(&self, snapshot: &Snapshot) -> io::Result<Generation> {
        let path = self.path_of(self.current.load(Ordering::Acquire) + 1);
        if path.exists() {
            fs::remove_dir_all(&path)?;
        }
        durable::create_directory(&path)?;
        let unfinished = Directory {
            path: path.clone(),
            remove: AtomicBool::new(true),
        };
        for file in &snapshot.meta().files {
            let from = snapshot.file_path(&file.name);
            let to = path.join(&file.name);
            // A table file never changes, so it may be shared; RocksDB writes to the others.
            if !file.name.ends_with(".sst") || fs::hard_link(&from, &to).is_err() {
                fs::copy(&from, &to)?;
            }
            durable::sync_file(&to)?;
        }
        durable::sync_directory(&path)?;
        let db = rocks::open_state(&path).map_err(|error| match rocks::is_environment(&error) {
            true => io::Error::other(error.into_string()),
            false => io::Error::new(io::ErrorKind::InvalidData, error.into_string()),
        })?;
        Ok(Generation {
            db,
            directory: unfinished,
        })
    }

    /// Makes a staged generation the current one, durable on return.
    pub(super) fn adopt(&self, staged: &Generation) -> io::Result<()> {
        let number = self.current.load(Ordering::Acquire) + 1;
        record_file::write(
            &self.path.join(POINTER),
            MAGIC,
            &CurrentGeneration { number },
        )?;
        staged.directory.remove.store(false, Ordering::Release);
        self.current.store(number, Ordering::Release);
        Ok(())
    }

    fn remove_others(&self) -> io::Result<()> {
        let current = self.current_path();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            let is_generation = entry.file_name().to_string_lossy().starts_with(PREFIX);
            if is_generation && entry.path() != current {
                fs::remove_dir_all(entry.path())?;
            }
        }
        Ok(())
    }
}

/// Starts the first generation. A directory that holds state and no pointer has lost the pointer.
fn begin(path: &Path, pointer: &Path, name: &str) -> Result<(), OpenError> {
    let write = || -> io::Result<Option<PathBuf>> {
        for entry in fs::read_dir(path)? {
            let entry = entry?.path();
            if entry.is_dir() && fs::read_dir(&entry)?.next().is_some() {
                return Ok(Some(entry));
            }
        }
        durable::create_directory(&path.join(format!("{PREFIX}1")))?;
        record_file::write(pointer, MAGIC, &CurrentGeneration { number: 1 })?;
        Ok(None)
    };
    match write() {
        Ok(None) => Ok(()),
        Ok(Some(found)) => Err(OpenError::damaged(
            pointer.to_path_buf(),
            name,
            format!("it is missing, and {} is not empty", found.display()),
        )),
        Err(source) => Err(OpenError::Io {
            path: path.to_path_buf(),
            source,
        }),
    }
}
