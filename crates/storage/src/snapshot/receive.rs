//! Takes a snapshot from another member, chunk by chunk, and refuses anything but what its
//! metadata announced.

use std::fs::File;
use std::io::{self, Write};
use std::sync::Arc;

use tally_proto::storage::{SnapshotFile, SnapshotMeta};

use super::digest::SnapshotDigest;
use super::shelf::{Shelf, Stage};
use super::{FILE_NAME_BYTES_MAX, SNAPSHOT_FILES_MAX, Snapshot};
use crate::durable;

/// A snapshot that is being received. Dropping an unfinished one removes what it has written.
pub struct SnapshotReceiver {
    stage: Stage,
    meta: SnapshotMeta,
    /// Position of the file that is being written in the announced files.
    position: usize,
    open: Option<(File, u64)>,
    digest: SnapshotDigest,
}

impl Shelf {
    /// Begins to receive a snapshot.
    pub(crate) fn receive(self: Arc<Self>, meta: SnapshotMeta) -> io::Result<SnapshotReceiver> {
        check(&meta)?;
        let stage = self.stage()?;
        durable::create_directory(&stage.files())?;
        Ok(SnapshotReceiver {
            stage,
            meta,
            position: 0,
            open: None,
            digest: SnapshotDigest::default(),
        })
    }
}

impl SnapshotReceiver {
    /// Takes the next bytes. Files come in the announced order, each from its beginning to its
    /// end. After an error the receiver is of no further use.
    pub fn write(&mut self, file: &str, offset: u64, data: &[u8]) -> io::Result<()> {
        self.advance()?;
        let Some(announced) = self.meta.files.get(self.position) else {
            return Err(refused(format!(
                "{file} comes after everything that was announced"
            )));
        };
        let Some((open, written)) = &mut self.open else {
            return Err(refused(format!(
                "{file} comes after everything that was announced"
            )));
        };
        if announced.name != file || *written != offset {
            return Err(refused(format!(
                "bytes of {file} from {offset}, expected {} from {written}",
                announced.name
            )));
        }
        if data.len() as u64 > announced.length - *written {
            return Err(refused(format!(
                "{} more bytes of {file} at {offset}, which is to have {}",
                data.len(),
                announced.length
            )));
        }
        open.write_all(data)?;
        self.digest.add(data);
        *written += data.len() as u64;
        Ok(())
    }

    /// Ends: everything announced must have come and have this digest. The snapshot is durable on
    /// return. It is not the current one until it is installed, and goes when it is dropped before.
    pub fn finish(mut self, digest: &[u8]) -> io::Result<Snapshot> {
        self.advance()?;
        if let Some(missing) = self.meta.files.get(self.position) {
            let written = self.open.as_ref().map_or(0, |(_, written)| *written);
            return Err(refused(format!(
                "{} ends at {written}, expected {} bytes",
                missing.name, missing.length
            )));
        }
        let found = self.digest.finish();
        if found.snapshot != digest {
            return Err(refused(
                "its digest is not the one that was announced".to_owned(),
            ));
        }
        self.stage.finish(self.meta, found)
    }

    /// Closes the open file when it is whole, and opens the next one that has bytes to come.
    fn advance(&mut self) -> io::Result<()> {
        while let Some(announced) = self.meta.files.get(self.position) {
            match &self.open {
                Some((_, written)) if *written < announced.length => return Ok(()),
                Some((file, _)) => {
                    file.sync_all()?;
                    self.open = None;
                    self.position += 1;
                }
                None => {
                    self.digest.begin(announced);
                    let file = File::create_new(self.stage.files().join(&announced.name))?;
                    self.open = Some((file, 0));
                }
            }
        }
        Ok(())
    }
}

/// Refuses metadata that could do harm or can never be satisfied.
fn check(meta: &SnapshotMeta) -> io::Result<()> {
    if meta.files.len() > SNAPSHOT_FILES_MAX {
        return Err(refused(format!(
            "{} files, at most {SNAPSHOT_FILES_MAX} are allowed",
            meta.files.len()
        )));
    }
    if !meta.files.is_sorted_by(|a, b| a.name < b.name) {
        return Err(refused(
            "its files are not announced by name, each once".to_owned(),
        ));
    }
    match meta.files.iter().find(|file| !is_plain(file)) {
        Some(file) => Err(refused(format!(
            "{:?} is not the name of a file",
            file.name
        ))),
        None => Ok(()),
    }
}

/// True for names that stay inside the directory they are created in.
fn is_plain(file: &SnapshotFile) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    (1..=FILE_NAME_BYTES_MAX).contains(&file.name.len())
        && file.name.chars().all(allowed)
        && !file.name.starts_with('.')
}

fn refused(what: String) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("a received snapshot is refused: {what}"),
    )
}
