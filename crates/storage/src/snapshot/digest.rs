//! The digest of a snapshot: SHA-256 over every file, by name, as [length of the name, u32
//! big-endian][name][length of the file, u64 big-endian][bytes].

use sha2::{Digest, Sha256};
use tally_proto::storage::SnapshotFile;

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
