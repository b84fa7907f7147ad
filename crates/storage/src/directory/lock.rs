//! The file `LOCK`: held with flock(2) while a process has the directory open. Its content means
//! nothing, and it is never removed.

use std::fs::{File, OpenOptions};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::OpenError;

/// The lock; released when the last store that was opened under it is gone.
pub(crate) struct DirectoryLock {
    _file: File,
}

impl DirectoryLock {
    pub(super) fn take(directory: &Path) -> Result<Self, OpenError> {
        let path = directory.join("LOCK");
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(|source| OpenError::Io {
                path: path.clone(),
                source,
            })?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { _file: file }),
            Err(Errno::WOULDBLOCK) => Err(OpenError::Locked {
                path: directory.to_path_buf(),
            }),
            Err(errno) => Err(OpenError::Io {
                path,
                source: errno.into(),
            }),
        }
    }
}
