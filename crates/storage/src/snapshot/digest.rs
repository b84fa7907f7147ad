//! The digest of a snapshot: SHA-256 over every file, by name, as [length of the name, u32
//! big-endian][name][length of the file, u64 big-endian][SHA-256 of its bytes].
//!
//! A table file never changes and stands in one snapshot after another. With a digest of its own it is
//! read for the first of them only.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use sha2::{Digest, Sha256};
use tally_proto::storage::SnapshotFile;

use crate::durable::at;
use crate::progress::Progress;

/// Bytes read at once.
const READ_BYTES: usize = 64 << 10;

/// SHA-256 of the bytes of one file.
pub(super) type FileDigest = [u8; 32];

/// What the bytes of a snapshot come to.
pub(super) struct Digests {
    pub(super) snapshot: [u8; 32],
    /// In the order of the files.
    pub(super) files: Vec<FileDigest>,
}

/// Reads the files of a directory once.
pub(super) fn of_files(directory: &Path, files: &[SnapshotFile]) -> io::Result<Digests> {
    let mut digest = SnapshotDigest::default();
    let mut progress = Progress::of("a snapshot is read as a whole");
    for file in files {
        digest.read(file, &directory.join(&file.name), &mut progress)?;
    }
    Ok(digest.finish())
}

/// Computes the digest while the files go by in order.
#[derive(Default)]
pub(super) struct SnapshotDigest {
    snapshot: Sha256,
    files: Vec<FileDigest>,
    open: Option<Sha256>,
}

impl SnapshotDigest {
    /// The bytes of this file follow.
    pub(super) fn begin(&mut self, file: &SnapshotFile) {
        self.end();
        self.announce(file);
        self.open = Some(Sha256::default());
    }

    pub(super) fn add(&mut self, bytes: &[u8]) {
        if let Some(open) = &mut self.open {
            open.update(bytes);
        }
    }

    /// A file that was read before.
    pub(super) fn add_known(&mut self, file: &SnapshotFile, digest: FileDigest) {
        self.end();
        self.announce(file);
        self.add_file(digest);
    }

    /// Reads a file, which must have the length that was announced.
    pub(super) fn read(
        &mut self,
        file: &SnapshotFile,
        path: &Path,
        progress: &mut Progress,
    ) -> io::Result<()> {
        let mut buffer = vec![0; READ_BYTES];
        let mut open = File::open(path).map_err(at(path))?;
        let mut length = 0;
        self.begin(file);
        loop {
            match open.read(&mut buffer).map_err(at(path))? {
                0 => break,
                bytes => {
                    self.add(&buffer[..bytes]);
                    progress.add(bytes);
                    length += bytes as u64;
                }
            }
        }
        if length != file.length {
            return Err(io::Error::other(format!(
                "{} has {length} bytes, expected {}",
                path.display(),
                file.length
            )));
        }
        Ok(())
    }

    pub(super) fn finish(mut self) -> Digests {
        self.end();
        Digests {
            snapshot: self.snapshot.finalize().into(),
            files: self.files,
        }
    }

    fn announce(&mut self, file: &SnapshotFile) {
        // The length of a name is bounded by what a file system allows.
        self.snapshot.update((file.name.len() as u32).to_be_bytes());
        self.snapshot.update(file.name.as_bytes());
        self.snapshot.update(file.length.to_be_bytes());
    }

    fn add_file(&mut self, digest: FileDigest) {
        self.snapshot.update(digest);
        self.files.push(digest);
    }

    /// No more bytes of the file that was begun.
    fn end(&mut self) {
        if let Some(open) = self.open.take() {
            self.add_file(open.finalize().into());
        }
    }
}
