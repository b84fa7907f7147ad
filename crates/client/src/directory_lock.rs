//! The file `LOCK` in a log server's data directory: held with flock(2) for as long as a process is the
//! log server. Its content means nothing, and it is never removed.

use std::fs::{File, OpenOptions};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::error::Error;
use crate::marker_file::refused;

/// The file's name in the data directory.
const FILE_NAME: &str = "LOCK";

/// The lock; released when it is dropped, and when the process ends, however it does.
#[derive(Debug)]
pub(crate) struct DirectoryLock {
    _file: File,
}

impl DirectoryLock {
    /// Takes it without waiting.
    pub(crate) fn take(dir: &Path) -> Result<Self, Error> {
        let path = dir.join(FILE_NAME);
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(|error| refused(&path, &error))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { _file: file }),
            Err(Errno::WOULDBLOCK) => Err(Error::DirectoryLocked {
                dir: dir.to_owned(),
            }),
            Err(errno) => Err(refused(&path, &errno.into()).into()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use tally_model::explanation::codes;

    use super::*;

    #[test]
    fn a_directory_has_one_holder_until_it_lets_go() {
        let dir = tempfile::tempdir().unwrap();
        let held = DirectoryLock::take(dir.path()).unwrap();
        let error = DirectoryLock::take(dir.path()).unwrap_err();
        assert_eq!(error.code(), codes::DIRECTORY_LOCKED);
        assert!(
            error.to_string().contains(dir.path().to_str().unwrap()),
            "{error}"
        );
        drop(held);
        assert!(DirectoryLock::take(dir.path()).is_ok());
    }
}
