//! Reads a snapshot for another member, chunk by chunk.

use std::fs::File;
use std::io::{self, Read};

use bytes::Bytes;
use tally_proto::storage::SnapshotFile;

use super::Snapshot;
use super::digest::SnapshotDigest;

/// One piece of a snapshot on its way to another member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SnapshotPiece {
    /// Bytes of a file, from `offset`. Files come by name, each from its beginning to its end;
    /// there is no chunk for an empty one.
    Chunk {
        file: String,
        offset: u64,
        data: Bytes,
    },
    /// Everything was sent.
    End { digest: [u8; 32] },
}

/// A snapshot's content, in order. Ends after `End` or the first error; an error means that the
/// files are not what they were when the snapshot was made.
pub struct SnapshotFrames {
    snapshot: Snapshot,
    chunk_bytes_max: usize,
    /// Position in the snapshot's files.
    position: usize,
    open: Option<(File, u64)>,
    digest: SnapshotDigest,
    ended: bool,
}

impl SnapshotFrames {
    pub(super) fn new(snapshot: Snapshot, chunk_bytes_max: usize) -> Self {
        Self {
            snapshot,
            chunk_bytes_max,
            position: 0,
            open: None,
            digest: SnapshotDigest::default(),
            ended: false,
        }
    }

    fn next_piece(&mut self) -> io::Result<SnapshotPiece> {
        while let Some(file) = self.snapshot.meta().files.get(self.position).cloned() {
            if let Some((data, offset)) = self.read_chunk(&file)? {
                return Ok(SnapshotPiece::Chunk {
                    file: file.name,
                    offset,
                    data,
                });
            }
            self.open = None;
            self.position += 1;
        }
        let digest = std::mem::take(&mut self.digest).finish().snapshot;
        if digest != self.snapshot.digest() {
            return Err(damaged(
                "the digest is not the one that it had when it was made",
            ));
        }
        self.ended = true;
        Ok(SnapshotPiece::End { digest })
    }

    /// The next bytes of a file and their offset; `None` at its end.
    fn read_chunk(&mut self, file: &SnapshotFile) -> io::Result<Option<(Bytes, u64)>> {
        let (open, offset) = match &mut self.open {
            Some(open) => open,
            none => {
                self.digest.begin(file);
                none.insert((File::open(self.snapshot.file_path(&file.name))?, 0))
            }
        };
        let left = file.length - *offset;
        let wanted = left.min(self.chunk_bytes_max as u64);
        if wanted == 0 {
            return Ok(None);
        }
        let mut data = vec![0; wanted as usize];
        open.read_exact(&mut data)
            .map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => {
                    damaged(&format!("{} is shorter than it was", file.name))
                }
                _ => error,
            })?;
        self.digest.add(&data);
        let at = *offset;
        *offset += wanted;
        Ok(Some((data.into(), at)))
    }
}

fn damaged(what: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("a snapshot is damaged: {what}"),
    )
}

impl Iterator for SnapshotFrames {
    type Item = io::Result<SnapshotPiece>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let piece = self.next_piece();
        self.ended |= piece.is_err();
        Some(piece)
    }
}
