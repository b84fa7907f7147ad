//! The file `FLOOR`: a log that ends below it has lost what was acknowledged.
//!
//! RocksDB drops a torn tail of its write-ahead log silently, and cannot tell one from damage to an
//! entry that was acknowledged. So the last acknowledged id and the last vote are kept a second
//! time, in a file of their own. It is written before each acknowledgement, so that it is exact after
//! the process was killed, and fsynced lazily, so that after a power loss it trails: by
//! `FLOOR_LAG_MAX` at most while the log is written, not at all soon after it becomes idle or is
//! closed. Before entries below the floor are truncated, the floor is lowered, with an fsync.
//!
//! layout: two slots, at bytes 0 and 4096, written in turn, so that a torn write spares the other.
//! A slot is [CRC32C of the rest, u32][number of the write, u64][1 if an id follows, u8][its term,
//! u64][its leader, u64][its index, u64][term of the vote, u64; 0 for none], all big-endian. The
//! slot with the larger number counts.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tally_proto::storage::LogId;

use crate::durable::{self, at};

/// Longest time that the floor on disk trails a log that is being written.
pub(super) const FLOOR_LAG_MAX: Duration = Duration::from_secs(1);

/// Time without work after which the floor catches up.
pub(super) const FLOOR_IDLE: Duration = Duration::from_millis(50);

const FILE: &str = "FLOOR";
const SLOTS: [u64; 2] = [0, 4096];
pub(super) const SLOT_BYTES: usize = 4 + 8 + 1 + 3 * 8 + 8;

/// What the log must at least hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Level {
    /// An entry that was acknowledged and not truncated since.
    pub(super) last: Option<LogId>,
    /// Term of a vote that was acknowledged; 0 when none was.
    pub(super) vote_term: u64,
}

/// The open file.
pub(super) struct Floor {
    path: PathBuf,
    file: File,
    level: Level,
    durable: Level,
    /// Number of the last write.
    number: u64,
}

/// Creates the file for a log in which nothing was acknowledged yet.
pub(crate) fn format(directory: &Path) -> io::Result<()> {
    let file = OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .open(directory.join(FILE))?;
    for (slot, number) in SLOTS.into_iter().zip(1..) {
        file.write_all_at(&encode(number, Level::default()), slot)?;
    }
    file.sync_all()?;
    durable::sync_directory(directory)
}

/// Where the file is.
pub(super) fn path(directory: &Path) -> PathBuf {
    directory.join(FILE)
}

impl Floor {
    /// Opens the file. The inner error says why its content cannot be trusted.
    pub(super) fn open(directory: &Path) -> io::Result<Result<Self, String>> {
        let file = match OpenOptions::new()
            .read(true)
            .write(true)
            .open(path(directory))
        {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Err("it is missing".to_owned()));
            }
            Err(error) => return Err(error),
        };
        let mut newest: Option<(u64, Level)> = None;
        for slot in SLOTS {
            let mut bytes = [0; SLOT_BYTES];
            match file.read_exact_at(&mut bytes, slot) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => continue,
                Err(error) => return Err(error),
            }
            newest = [newest, decode(&bytes)]
                .into_iter()
                .flatten()
                .max_by_key(|(number, _)| *number);
        }
        Ok(match newest {
            Some((number, level)) => Ok(Self {
                path: path(directory),
                file,
                level,
                // It may stand in memory only, if the process before was killed.
                durable: Level::default(),
                number,
            }),
            None => Err("neither of its two slots has the checksum that it says".to_owned()),
        })
    }

    pub(super) fn level(&self) -> Level {
        self.level
    }

    /// The level that a power loss leaves at least.
    pub(super) fn durable_level(&self) -> Level {
        self.durable
    }

    /// Writes a new level, which survives the process from now on, and the machine after the next
    /// [`Floor::sync`].
    pub(super) fn note(&mut self, level: Level) -> io::Result<()> {
        if level == self.level {
            return Ok(());
        }
        let number = self.number + 1;
        let slot = SLOTS[(number % SLOTS.len() as u64) as usize];
        self.file
            .write_all_at(&encode(number, level), slot)
            .map_err(at(&self.path))?;
        self.number = number;
        self.level = level;
        Ok(())
    }

    /// Makes the level durable.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data().map_err(at(&self.path))?;
        self.durable = self.level;
        Ok(())
    }
}

pub(super) fn encode(number: u64, level: Level) -> [u8; SLOT_BYTES] {
    let id = level.last.unwrap_or_default();
    let mut rest = Vec::with_capacity(SLOT_BYTES);
    rest.extend_from_slice(&number.to_be_bytes());
    rest.push(u8::from(level.last.is_some()));
    for part in [id.term, id.leader, id.index, level.vote_term] {
        rest.extend_from_slice(&part.to_be_bytes());
    }
    let mut bytes = [0; SLOT_BYTES];
    bytes[..4].copy_from_slice(&crc32c::crc32c(&rest).to_be_bytes());
    bytes[4..].copy_from_slice(&rest);
    bytes
}

pub(super) fn decode(bytes: &[u8; SLOT_BYTES]) -> Option<(u64, Level)> {
    let (checksum, rest) = bytes.split_first_chunk::<4>()?;
    if crc32c::crc32c(rest) != u32::from_be_bytes(*checksum) {
        return None;
    }
    let (number, rest) = rest.split_first_chunk::<8>()?;
    let (present, rest) = rest.split_first()?;
    let mut parts = rest.chunks_exact(8).map(|part| {
        part.iter()
            .fold(0, |number: u64, byte| number << 8 | u64::from(*byte))
    });
    let (term, leader, index) = (parts.next()?, parts.next()?, parts.next()?);
    let vote_term = parts.next()?;
    let last = (*present == 1).then_some(LogId {
        term,
        leader,
        index,
    });
    Some((u64::from_be_bytes(*number), Level { last, vote_term }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn level(index: u64) -> Level {
        Level {
            last: Some(LogId {
                term: 3,
                leader: 7,
                index,
            }),
            vote_term: 4,
        }
    }

    #[test]
    fn the_newest_level_is_read_back() {
        let directory = tempfile::tempdir().unwrap();
        format(directory.path()).unwrap();
        let mut floor = Floor::open(directory.path()).unwrap().unwrap();
        assert_eq!(floor.level(), Level::default());
        for index in 0..5 {
            floor.note(level(index)).unwrap();
            floor.sync().unwrap();
            let reopened = Floor::open(directory.path()).unwrap().unwrap();
            assert_eq!(reopened.level(), level(index));
        }
    }

    #[test]
    fn a_torn_write_leaves_the_level_before_it() {
        let directory = tempfile::tempdir().unwrap();
        format(directory.path()).unwrap();
        let mut floor = Floor::open(directory.path()).unwrap().unwrap();
        floor.note(level(1)).unwrap();
        floor.note(level(2)).unwrap();
        let slot = SLOTS[(floor.number % 2) as usize];
        floor.file.write_all_at(&[0xff; 8], slot + 20).unwrap();
        let reopened = Floor::open(directory.path()).unwrap().unwrap();
        assert_eq!(reopened.level(), level(1));
    }

    #[test]
    fn a_file_without_a_whole_slot_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(path(directory.path()), [0; 8192]).unwrap();
        assert!(Floor::open(directory.path()).unwrap().is_err());
        std::fs::remove_file(path(directory.path())).unwrap();
        assert!(Floor::open(directory.path()).unwrap().is_err());
    }
}
