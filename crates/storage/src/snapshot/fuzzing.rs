//! What [`crate::fuzzing`] needs of a snapshot's inside.

use tally_proto::storage::SnapshotMeta;

use super::digest::SnapshotDigest;

/// The digest of files with this content, in their order.
pub(crate) fn digest_of(meta: &SnapshotMeta, contents: &[&[u8]]) -> [u8; 32] {
    let mut digest = SnapshotDigest::default();
    for (file, content) in meta.files.iter().zip(contents) {
        digest.begin(file);
        digest.add(content);
    }
    digest.finish().snapshot
}
