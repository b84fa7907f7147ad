//! The file `META` of a snapshot: written before the snapshot gets its name, never changed.
//!
//! layout: a record file with the magic `TALLYSNP`, holding tally.storage.v1.StoredSnapshot

use std::io;
use std::path::Path;

use tally_proto::storage::{SnapshotMeta, StoredSnapshot};

use crate::record_file::{self, ReadError};

const FILE: &str = "META";
const MAGIC: [u8; 8] = *b"TALLYSNP";

pub(super) fn write(directory: &Path, meta: &SnapshotMeta, digest: [u8; 32]) -> io::Result<()> {
    let stored = StoredSnapshot {
        meta: Some(meta.clone()),
        digest: digest.to_vec(),
    };
    record_file::write(&directory.join(FILE), MAGIC, &stored)
}

/// Reads a snapshot's metadata and checks that its files have the lengths that it says. `Err` says
/// why the snapshot cannot be used.
pub(super) fn read(directory: &Path) -> Result<(SnapshotMeta, [u8; 32]), String> {
    let stored: StoredSnapshot = match record_file::read(&directory.join(FILE), MAGIC) {
        Ok(stored) => stored,
        Err(ReadError::Missing) => return Err(format!("{FILE} is missing")),
        Err(ReadError::Damaged(why)) => return Err(format!("{FILE}: {why}")),
        Err(ReadError::Io(error)) => return Err(format!("{FILE}: {error}")),
    };
    let digest = stored.digest.try_into().map_err(|found: Vec<u8>| {
        format!("{FILE}: a digest of {} bytes, expected 32", found.len())
    })?;
    let meta = stored.meta.unwrap_or_default();
    for file in &meta.files {
        let path = directory.join(super::FILES).join(&file.name);
        let found = path
            .metadata()
            .map_err(|error| format!("{}: {error}", file.name))?
            .len();
        if found != file.length {
            return Err(format!(
                "{} has {found} bytes, expected {}",
                file.name, file.length
            ));
        }
    }
    Ok((meta, digest))
}
