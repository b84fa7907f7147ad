//! The digest of a snapshot: SHA-256 over every file, by name, as [length of the name, u32
//! big-endian][name][length of the file, u64 big-endian][bytes].

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use sha2::{Digest, Sha256};
use tally_proto::storage::SnapshotFile;

use crate::durable::at;
use crate::progress::Progress;

/// Bytes read at once.
const READ_BYTES: usize = 64 << 10;

/// Reads the files of a directory once.
pub(super) fn of_files(directory: &Path, files: &[SnapshotFile]) -> io::Result<[u8; 32]> {
    let mut digest = SnapshotDigest::default();
    let mut progress = Progress::of("a snapshot is read as a whole");
    let mut buffer = vec![0; READ_BYTES];
    for file in files {
        let path = directory.join(&file.name);
        let mut open = File::open(&path).map_err(at(&path))?;
        let mut length = 0;
        digest.begin(file);
        loop {
            match open.read(&mut buffer).map_err(at(&path))? {
                0 => break,
                bytes => {
                    digest.add(&buffer[..bytes]);
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
    }
    Ok(digest.finish())
}

/// Computes the digest while the files go by in order.
#[derive(Default)]
pub(super) struct SnapshotDigest {
    sha: Sha256,
}

impl SnapshotDigest {
    /// The bytes of this file follow.
    pub(super) fn begin(&mut self, file: &SnapshotFile) {
        // The length of a name is bounded by what a file system allows.
        self.sha.update((file.name.len() as u32).to_be_bytes());
        self.sha.update(file.name.as_bytes());
        self.sha.update(file.length.to_be_bytes());
    }

    pub(super) fn add(&mut self, bytes: &[u8]) {
        self.sha.update(bytes);
    }

    pub(super) fn finish(self) -> [u8; 32] {
        self.sha.finalize().into()
    }
}
