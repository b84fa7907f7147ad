//! The data directory of one member: who it belongs to, and that nobody else has it open.
//!
//! ```text
//! IDENTITY      member id, name, cluster id, format (see `identity`)
//! LOCK          held while a process has the directory open
//! FLOOR         the last acknowledged log id, trailing (see `log::floor`)
//! log/          the raft log, a RocksDB instance
//! state/        CURRENT_GENERATION, and gen-N/, a RocksDB instance
//! snapshots/    snap-N/: META and files/; stage-N/ while one is being made
//! ```

mod error;
mod identity;
mod lock;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};

use tally_model::{ClusterId, MemberId};
use tally_proto::storage::{Identity, LogId};

pub use error::{JoinError, OpenError};
pub(crate) use lock::DirectoryLock;

use crate::durable;
use crate::failure::lock as hold;
use crate::log::{self, LogOptions, LogStore};
use crate::state::{StateOptions, StateStore};

/// What a member brings when it opens its directory.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    /// The member's name; a directory that was formatted for another one is refused.
    pub name: String,
    /// Digest of the initial cluster, kept when the directory is formatted; empty for none.
    pub formation: Vec<u8>,
    /// The id to format an empty directory with: random, never used before.
    pub fresh_member: MemberId,
}

/// A data directory, open and locked. The stores opened from it keep the lock by themselves.
pub struct DataDir {
    path: PathBuf,
    lock: Arc<DirectoryLock>,
    identity: Mutex<Identity>,
    was_empty: bool,
    /// What the log says is purged, once the log is open: the state must reach it.
    purged: OnceLock<Option<LogId>>,
}

impl DataDir {
    /// Opens a directory, and formats it first when it is missing or holds nothing of a member's. After an error nothing
    /// was changed in a directory that held something.
    pub fn open(path: &Path, options: &OpenOptions) -> Result<Self, OpenError> {
        let io = |source| OpenError::Io {
            path: path.to_path_buf(),
            source,
        };
        durable::create_directory(path).map_err(io)?;
        let lock = Arc::new(DirectoryLock::take(path)?);
        let (identity, was_empty) = match identity::read(path, &options.name)? {
            Some(identity) => (identity, false),
            None => (format(path, options)?, true),
        };
        identity::check(path, &identity, &options.name)?;
        Ok(Self {
            path: path.to_path_buf(),
            lock,
            identity: Mutex::new(identity),
            was_empty,
            purged: OnceLock::new(),
        })
    }

    /// True when this very open formatted the directory.
    pub fn was_empty(&self) -> bool {
        self.was_empty
    }

    /// A copy of the identity as it stands on disk.
    pub fn identity(&self) -> Identity {
        hold(&self.identity).clone()
    }

    /// The member that the directory belongs to.
    pub fn member(&self) -> MemberId {
        MemberId(hold(&self.identity).member)
    }

    /// The cluster that the member has joined.
    pub fn cluster(&self) -> Option<ClusterId> {
        identity::cluster(&hold(&self.identity))
    }

    /// Where the directory is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Binds the directory to a cluster, for ever. Durable on return; asking again for the same
    /// cluster changes nothing.
    pub fn join(&self, cluster: ClusterId) -> Result<(), JoinError> {
        let mut identity = hold(&self.identity);
        match identity::cluster(&identity) {
            Some(present) if present == cluster => return Ok(()),
            Some(present) => {
                return Err(JoinError::OtherCluster {
                    present,
                    asked: cluster,
                });
            }
            None => {}
        }
        let mut joined = identity.clone();
        joined.cluster_id = cluster.0.to_be_bytes().to_vec();
        identity::write(&self.path, &joined)?;
        *identity = joined;
        Ok(())
    }

    /// Opens the raft log and checks every entry in it.
    pub fn open_log(&self, options: LogOptions) -> Result<LogStore, OpenError> {
        let store = LogStore::open(&self.path, self.name(), self.lock.clone(), options)?;
        let _ = self.purged.set(store.bounds().purged);
        Ok(store)
    }

    /// Opens the state. The log is opened before it: a state that does not reach the purged part
    /// of the log can never be completed and is refused.
    pub fn open_state(&self, options: StateOptions) -> Result<StateStore, OpenError> {
        let store = StateStore::open(&self.path, self.name(), self.lock.clone(), options)?;
        let purged = self.purged.get().copied().flatten();
        let applied = store.applied().last_applied;
        match purged {
            Some(purged) if applied.is_none_or(|applied| applied.index < purged.index) => {
                let reached =
                    applied.map_or("nothing".to_owned(), |id| format!("entry {}", id.index));
                Err(OpenError::damaged(
                    self.path.join("state"),
                    &self.name(),
                    format!(
                        "it has applied {reached}, and the log is purged up to {}",
                        purged.index
                    ),
                ))
            }
            _ => Ok(store),
        }
    }

    fn name(&self) -> String {
        hold(&self.identity).name.clone()
    }
}

/// Makes an empty directory a member's. The identity comes last: without it the directory counts
/// as empty.
fn format(path: &Path, options: &OpenOptions) -> Result<Identity, OpenError> {
    for part in ["log", "state", "snapshots"] {
        if holds_something(&path.join(part)).map_err(|source| OpenError::Io {
            path: path.join(part),
            source,
        })? {
            return Err(OpenError::damaged(
                path.join(identity::FILE),
                &options.name,
                format!("it is missing, and {part}/ is not empty"),
            ));
        }
    }
    let fresh = identity::fresh(options);
    let write = || -> io::Result<()> {
        log::format(path)?;
        identity::write(path, &fresh)
    };
    write().map_err(|source| OpenError::Io {
        path: path.to_path_buf(),
        source,
    })?;
    Ok(fresh)
}

fn holds_something(path: &Path) -> io::Result<bool> {
    match fs::read_dir(path) {
        Ok(mut entries) => Ok(entries.next().is_some()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}
