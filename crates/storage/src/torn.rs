//! Tells a write that a crash cut off from damage, in files of RocksDB's log format: its write-ahead
//! logs and its manifests.
//!
//! RocksDB takes whatever does not read as a record for the end of the file, and drops it with all
//! that follows. An acknowledged entry must not end like that, so each file is read here before
//! RocksDB opens it, and nothing is changed. A crash leaves the beginning of a write, or all of it but
//! some sectors, which were never written and read as zeros. A record that is there as a whole and
//! does not have its checksum was changed afterwards: that is damage.
//!
//! layout (RocksDB, `db/log_format.h`), little-endian: blocks of 32 KiB; in each, records of [masked
//! CRC32C of all that follows the length, u32][length of the payload, u16][type, u8][number of the
//! file, u32, with types 5 to 8 only][payload]; what is shorter than a header at the end of a block is
//! skipped.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

const CURRENT: &str = "CURRENT";
const BLOCK_BYTES: usize = 32 << 10;
const HEADER_BYTES: usize = 7;
const LONG_HEADER_BYTES: usize = 11;
/// The part of a header that its checksum covers begins here, with the type.
const COVERED_FROM: usize = 6;
/// What a disk writes as a whole or not at all.
const SECTOR_BYTES: usize = 512;
/// A piece of a sector that ends a record may be zeros by chance when it is shorter.
const ZEROS_MIN: usize = 32;

/// What is wrong with a file.
#[derive(Debug)]
pub(crate) struct Damage {
    pub(crate) file: PathBuf,
    pub(crate) why: String,
}

/// How the records of a block end.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// Every record is sound.
    Sound,
    /// A write was cut off here.
    Torn,
    /// The record at this position was written as a whole and has changed.
    Damaged(usize),
}

/// Reads every file of the log format in the directory of a RocksDB instance, which may be missing, and
/// the file that says which manifest counts.
pub(crate) fn check(directory: &Path) -> io::Result<Result<(), Damage>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Ok(())),
        Err(error) => return Err(error),
    };
    let mut holds_tables = false;
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        holds_tables |= name.ends_with(".sst");
        if (name.ends_with(".log") || name.starts_with("MANIFEST-"))
            && let Some(position) = check_file(File::open(entry.path())?)?
        {
            return Ok(Err(Damage {
                file: entry.path(),
                why: format!(
                    "the record at byte {position} is there as a whole and does not have its checksum"
                ),
            }));
        }
    }
    let file = directory.join(CURRENT);
    let checked = match fs::read(&file) {
        Ok(content) => check_current(directory, &content),
        // RocksDB would begin anew.
        Err(error) if error.kind() == io::ErrorKind::NotFound && holds_tables => {
            Err("it is missing".to_owned())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => return Err(error),
    };
    Ok(checked.map_err(|why| Damage { file, why }))
}

/// It holds the name of a manifest that is there, and a line feed.
fn check_current(directory: &Path, content: &[u8]) -> Result<(), String> {
    let text = String::from_utf8_lossy(content);
    let manifest = text.strip_suffix('\n').filter(|name| {
        let number = name.strip_prefix("MANIFEST-");
        number.is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
    });
    match manifest {
        Some(name) if directory.join(name).is_file() => Ok(()),
        _ => Err(format!(
            "it says {text:?}, expected the name of a manifest that is there"
        )),
    }
}

/// Where the first damaged record begins, if there is one.
fn check_file(mut file: impl Read) -> io::Result<Option<u64>> {
    let mut block = Vec::with_capacity(BLOCK_BYTES);
    let mut begins = 0;
    loop {
        block.clear();
        file.by_ref()
            .take(BLOCK_BYTES as u64)
            .read_to_end(&mut block)?;
        match check_block(&block) {
            End::Sound if block.len() == BLOCK_BYTES => begins += BLOCK_BYTES as u64,
            End::Sound | End::Torn => return Ok(None),
            End::Damaged(position) => return Ok(Some(begins + position as u64)),
        }
    }
}

fn check_block(block: &[u8]) -> End {
    let mut position = 0;
    while let Some(header) = block.get(position..position + HEADER_BYTES) {
        let Some(end) = end_of(header).map(|length| position + length) else {
            return torn_or_damaged(block, position, block.len());
        };
        let Some(record) = block.get(position..end) else {
            let whole_block = block.len() == BLOCK_BYTES;
            if !whole_block && !differs_by_one_bit(&block[position..]) {
                return End::Torn;
            }
            return torn_or_damaged(block, position, block.len());
        };
        if !has_its_checksum(record) {
            return torn_or_damaged(block, position, end);
        }
        position = end;
    }
    End::Sound
}

/// Length of the record with this header, header included; `None` for one that no writer makes.
fn end_of(header: &[u8]) -> Option<usize> {
    let length = usize::from(u16::from_le_bytes([header[4], header[5]]));
    match header[6] {
        0 => None,
        5..=8 => Some(LONG_HEADER_BYTES + length),
        _ => Some(HEADER_BYTES + length),
    }
}

fn has_its_checksum(record: &[u8]) -> bool {
    let Some((stored, _)) = record.split_first_chunk::<4>() else {
        return false;
    };
    let computed = crc32c::crc32c(&record[COVERED_FROM..]);
    // Stored masked, so that a checksum over data that contains checksums stays one.
    let masked = computed.rotate_right(15).wrapping_add(0xa282_ead8);
    masked == u32::from_le_bytes(*stored)
}

/// True when another length or type, one bit away, makes the bytes begin with a sound record: it did
/// not reach beyond the end of the file when it was written.
fn differs_by_one_bit(bytes: &[u8]) -> bool {
    let mut mended = bytes.to_vec();
    (4 * 8..HEADER_BYTES * 8).any(|bit| {
        mended[bit / 8] ^= 1 << (bit % 8);
        let end = end_of(&mended);
        let sound = end
            .and_then(|end| mended.get(..end))
            .is_some_and(has_its_checksum);
        mended[bit / 8] ^= 1 << (bit % 8);
        sound
    })
}

/// Judges a record that is not sound: a crash leaves sectors of zeros in it.
fn torn_or_damaged(block: &[u8], begin: usize, end: usize) -> End {
    let mut from = begin;
    while from < end {
        let until = (from / SECTOR_BYTES + 1) * SECTOR_BYTES;
        let piece = &block[from..until.min(end)];
        let enough = from == begin || piece.len() >= ZEROS_MIN;
        if enough && piece.iter().all(|byte| *byte == 0) {
            return End::Torn;
        }
        from = until;
    }
    End::Damaged(begin)
}

/// A record as RocksDB writes it.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn record(kind: u8, payload: &[u8]) -> Vec<u8> {
    let covered = [&[kind][..], payload].concat();
    let masked = crc32c::crc32c(&covered)
        .rotate_right(15)
        .wrapping_add(0xa282_ead8);
    let length = (payload.len() as u16).to_le_bytes();
    [&masked.to_le_bytes()[..], &length, &covered].concat()
}

/// Reads any bytes behind sound records: what is said to be damaged is among them.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn behind_sound_records(bytes: &[u8]) {
    let sound = [record(1, b"one"), record(1, &[b'x'; 700])].concat();
    let content = [&sound, bytes].concat();
    let found = check_file(content.as_slice());
    let Ok(found) = found else {
        panic!("memory cannot be read: {found:?}");
    };
    if let Some(position) = found {
        assert!((sound.len()..content.len()).contains(&(position as usize)));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    /// Payloads of several lengths without a zero in them.
    fn sound() -> Vec<u8> {
        let lengths = [40, 700, 1, 2_000, 90];
        lengths
            .into_iter()
            .flat_map(|length| record(1, &vec![b'x'; length]))
            .collect()
    }

    fn checked(content: &[u8]) -> Option<u64> {
        check_file(content).unwrap()
    }

    #[test]
    fn what_was_written_is_sound_over_several_blocks() {
        let mut content = record(2, &vec![b'x'; BLOCK_BYTES - HEADER_BYTES]);
        content.extend(record(4, b"the rest"));
        content.extend(sound());
        assert_eq!(checked(&content), None);
        content[BLOCK_BYTES + HEADER_BYTES + 2] ^= 1;
        assert_eq!(checked(&content), Some(BLOCK_BYTES as u64));
    }

    #[test]
    fn the_file_that_names_the_manifest_names_one_that_is_there() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        assert!(check(directory.path()).unwrap().is_ok(), "not begun");
        fs::write(at("MANIFEST-000005"), []).unwrap();
        assert!(check(directory.path()).unwrap().is_ok(), "about to begin");
        fs::write(at("CURRENT"), "MANIFEST-000005\n").unwrap();
        assert!(check(directory.path()).unwrap().is_ok());
        for wrong in [
            "MANIFEST-000004\n",
            "MANIFEST-000005",
            "MANIFEST-00000?\n",
            "",
        ] {
            fs::write(at("CURRENT"), wrong).unwrap();
            let damage = check(directory.path()).unwrap().unwrap_err();
            assert_eq!(damage.file, at("CURRENT"), "{wrong:?}");
        }
        fs::remove_file(at("CURRENT")).unwrap();
        fs::write(at("000007.sst"), []).unwrap();
        assert!(check(directory.path()).unwrap().is_err(), "it was there");
    }

    #[test]
    fn every_flipped_bit_is_damage() {
        let content = sound();
        for bit in 0..content.len() * 8 {
            let mut flipped = content.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(checked(&flipped).is_some(), "bit {bit}");
        }
    }

    #[test]
    fn a_file_that_ends_anywhere_is_torn() {
        let content = sound();
        for length in 0..content.len() {
            assert_eq!(checked(&content[..length]), None, "{length} bytes");
        }
    }

    #[test]
    fn a_write_without_some_of_its_sectors_is_torn() {
        let content = sound();
        let last = content.len() - record(1, &[b'x'; 90]).len();
        let long = last - record(1, &vec![b'x'; 2_000]).len();
        for sector in long / SECTOR_BYTES..=last / SECTOR_BYTES {
            let mut torn = content[..last].to_vec();
            let from = (sector * SECTOR_BYTES).max(long);
            let until = ((sector + 1) * SECTOR_BYTES).min(last);
            torn[from..until].fill(0);
            assert_eq!(checked(&torn), None, "sector {sector}");
        }
        let mut unwritten = content.clone();
        unwritten.extend([0; 4096]);
        assert_eq!(checked(&unwritten), None);
    }
}
