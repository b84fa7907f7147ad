//! Looks into a snapshot's files as the state that they are.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::atomic::Ordering;

use rocksdb::DB;
use tally_proto::storage::SnapshotFile;

use super::{FILES, Snapshot, build};
use crate::{rocks, state};

impl Snapshot {
    /// Reads every row. The digest says that the files are those that were sent; this says that they
    /// were sound when they were gathered, which the digest of damaged ones does not. `InvalidData`
    /// when they were not.
    pub(crate) fn check_content(&self) -> io::Result<()> {
        let directory = self.held.path.join(FILES);
        let checked = look(&directory, &self.meta().files, |db| {
            let (applied, hash) = state::check(db)?;
            let meta = self.meta();
            match meta.applied.as_ref() == Some(&applied) && meta.state_hash == hash.to_be_bytes() {
                true => Ok(()),
                false => Err(format!("it stands at {:?}", applied.last_applied)),
            }
        });
        checked.map_err(|error| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!(
                    "{} does not hold what its metadata says: {error}",
                    directory.display()
                ),
            )
        })
    }

    /// The same, but only the first time that it is asked for.
    pub(crate) fn check_content_once(&self) -> io::Result<()> {
        match self.held.checked.swap(true, Ordering::AcqRel) {
            true => Ok(()),
            false => self.check_content(),
        }
    }
}

/// Opens the files, asks, and removes what the opening left behind.
pub(super) fn look<T>(
    directory: &Path,
    files: &[SnapshotFile],
    ask: impl FnOnce(&DB) -> Result<T, String>,
) -> io::Result<T> {
    let db =
        rocks::open_checkpoint(directory).map_err(|error| io::Error::other(error.into_string()))?;
    let found = ask(&db).map_err(io::Error::other);
    drop(db);
    for left in build::list(directory)? {
        if !files.iter().any(|file| file.name == left.name) {
            fs::remove_file(directory.join(left.name))?;
        }
    }
    found
}
