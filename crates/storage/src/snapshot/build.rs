//! Builds a snapshot out of a RocksDB checkpoint, while the state goes on changing.

use std::fs;
use std::io;
use std::path::Path;

use rocksdb::DB;
use rocksdb::checkpoint::Checkpoint;
use tally_proto::storage::{SnapshotFile, SnapshotMeta};

use super::digest::SnapshotDigest;
use super::shelf::Shelf;
use super::{SNAPSHOT_FILES_MAX, Snapshot, content};
use crate::failure::lock;
use crate::progress::Progress;
use crate::{durable, state};

impl Shelf {
    /// Builds a snapshot and makes it the current one; gives the current one when nothing was
    /// applied since it was made.
    pub(crate) fn build(&self, db: &DB) -> io::Result<Snapshot> {
        let _building = lock(&self.building);
        let stage = self.stage()?;
        let directory = stage.files();
        // The state has no write-ahead log: the checkpoint holds what was flushed, and flushes.
        Checkpoint::new(db)
            .and_then(|checkpoint| checkpoint.create_checkpoint(&directory))
            .map_err(|error| io::Error::other(error.into_string()))?;
        let files = list(&directory)?;
        // Entries were applied meanwhile, so only the checkpoint itself knows where it stands.
        let (applied, hash) = content::look(&directory, &files, state::position)?;
        let current = self.current();
        if let Some(current) = &current
            && current.meta().applied.as_ref() == Some(&applied)
        {
            return Ok(current.clone());
        }
        let mut digest = SnapshotDigest::default();
        let mut progress = Progress::of("a snapshot is read");
        for file in &files {
            let path = directory.join(&file.name);
            let before = current.as_ref();
            match before.and_then(|before| before.digest_of_link(file, &path)) {
                Some(known) => digest.add_known(file, known),
                None => {
                    durable::sync_file(&path)?;
                    digest.read(file, &path, &mut progress)?;
                }
            }
        }
        let meta = SnapshotMeta {
            applied: Some(applied),
            files,
            state_hash: hash.to_be_bytes().to_vec(),
        };
        let snapshot = stage.finish(meta, digest.finish())?;
        self.set_current(snapshot.clone());
        Ok(snapshot)
    }
}

/// The files of a directory, by name.
pub(super) fn list(directory: &Path) -> io::Result<Vec<SnapshotFile>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        files.push(SnapshotFile {
            name: entry.file_name().to_string_lossy().into_owned(),
            length: entry.metadata()?.len(),
        });
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    if files.len() > SNAPSHOT_FILES_MAX {
        return Err(io::Error::other(format!(
            "the state has {} files, at most {SNAPSHOT_FILES_MAX} are allowed",
            files.len()
        )));
    }
    Ok(files)
}
