//! What reading every row leaves out of a table file: the filters, which RocksDB goes on without when
//! they are damaged, and the bytes of the footer that fill it up.
//!
//! layout (RocksDB, `table/format.h` and `table/block_based/`, format version 5): blocks, each followed
//! by [type, u8][checksum, u32, little-endian]; at the end a footer of [type of the checksums, u8][handle
//! of the metaindex][handle of the index][zeros up to 41 bytes][version, u32][magic, u64]. A handle is
//! [offset, varint][size, varint]. The metaindex names the block that lists the filters. Both are blocks
//! of entries, [shared, varint][own, varint][length of the value, varint, in the metaindex only][own
//! bytes of the key][value], with the offsets of their restarts at the end; in the list of filters each
//! entry is a restart.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rocksdb::DB;
use xxhash_rust::xxh3::xxh3_64;

const FOOTER_BYTES: usize = 53;
/// Checksum type and handles, filled up with zeros.
const HANDLES_BYTES: usize = 41;
const TRAILER_BYTES: usize = 5;
/// The lower half of XXH3 over the block, changed by its type.
const XXH3: u8 = 4;
const TYPE_FACTOR: u32 = 0x6b90_83d9;
const FILTERS: &[u8] = b"partitionedfilter.";

/// Where a block is, without its trailer.
#[derive(Clone, Copy, Debug)]
struct Handle {
    offset: u64,
    size: usize,
}

/// Looks at every table file that counts. The error names the file.
pub(crate) fn check(db: &DB) -> Result<(), String> {
    for live in db.live_files().map_err(rocksdb::Error::into_string)? {
        let path = db.path().join(live.name.trim_start_matches('/'));
        match File::open(&path) {
            Ok(file) => check_table(&file, live.size as u64, &path)?,
            // Merged into others meanwhile, which reads all of its rows.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(format!("{}: {error}", path.display())),
        }
    }
    Ok(())
}

fn check_table(file: &File, length: u64, path: &Path) -> Result<(), String> {
    let named = |why: String| format!("{}: {why}", path.display());
    let footer_at = length.checked_sub(FOOTER_BYTES as u64);
    let footer_at = footer_at.ok_or_else(|| named("it is too short".to_owned()))?;
    let footer = read(file, footer_at, FOOTER_BYTES).map_err(named)?;
    let mut rest = &footer[1..HANDLES_BYTES];
    let handles = (handle(&mut rest), handle(&mut rest));
    let (Some(metaindex), Some(_)) = handles else {
        return Err(named("its footer has no handles".to_owned()));
    };
    if footer[0] != XXH3 || rest.iter().any(|byte| *byte != 0) {
        return Err(named("its footer is not as it was written".to_owned()));
    }
    let metaindex = block(file, metaindex).map_err(named)?;
    let Some(list) = filter_list(&metaindex) else {
        return Ok(());
    };
    let list = block(file, list).map_err(named)?;
    let filters = listed(&list).ok_or_else(|| named("its list of filters is none".to_owned()))?;
    for filter in filters {
        block(file, filter).map_err(named)?;
    }
    Ok(())
}

fn read(file: &File, offset: u64, length: usize) -> Result<Vec<u8>, String> {
    let said = |error: io::Error| format!("byte {offset}: {error}");
    let end = offset.checked_add(length as u64);
    let file_end = file.metadata().map_err(said)?.len();
    // A size that is not as it was written must not become an allocation.
    if end.is_none_or(|end| end > file_end) {
        return Err(format!(
            "{length} bytes from byte {offset} are more than there are"
        ));
    }
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, offset).map_err(said)?;
    Ok(bytes)
}

/// The content of a block that has its checksum.
fn block(file: &File, Handle { offset, size }: Handle) -> Result<Vec<u8>, String> {
    let mut bytes = read(file, offset, size.saturating_add(TRAILER_BYTES))?;
    let trailer = bytes.split_off(size);
    let checksum = xxh3_64(&bytes) as u32 ^ u32::from(trailer[0]).wrapping_mul(TYPE_FACTOR);
    if checksum.to_le_bytes() != trailer[1..] {
        return Err(format!(
            "the block at byte {offset} does not have its checksum"
        ));
    }
    Ok(bytes)
}

/// Where the list of filters is; `None` for a table without filters.
fn filter_list(metaindex: &[u8]) -> Option<Handle> {
    let mut rest = entries(metaindex)?;
    let mut key = Vec::new();
    while !rest.is_empty() {
        let shared = varint(&mut rest)?;
        let (own, value) = (varint(&mut rest)?, varint(&mut rest)?);
        key.truncate(usize::try_from(shared).ok()?);
        key.extend_from_slice(take(&mut rest, own)?);
        let mut value = take(&mut rest, value)?;
        if key.starts_with(FILTERS) {
            return handle(&mut value);
        }
    }
    None
}

fn listed(list: &[u8]) -> Option<Vec<Handle>> {
    let mut rest = entries(list)?;
    let mut filters = Vec::new();
    while !rest.is_empty() {
        let _shared = varint(&mut rest)?;
        let own = varint(&mut rest)?;
        take(&mut rest, own)?;
        filters.push(handle(&mut rest)?);
    }
    Some(filters)
}

/// The entries of a block, without its restarts.
fn entries(block: &[u8]) -> Option<&[u8]> {
    let (rest, count) = block.split_last_chunk::<4>()?;
    let restarts = usize::try_from(u32::from_le_bytes(*count)).ok()?;
    let restarts = restarts.checked_mul(4)?;
    rest.get(..rest.len().checked_sub(restarts)?)
}

fn handle(bytes: &mut &[u8]) -> Option<Handle> {
    let (offset, size) = (varint(bytes)?, varint(bytes)?);
    let size = usize::try_from(size).ok()?;
    Some(Handle { offset, size })
}

fn take<'a>(bytes: &mut &'a [u8], count: u64) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(usize::try_from(count).ok()?)?;
    *bytes = rest;
    Some(taken)
}

/// Seven bits in each byte, the lowest first; all but the last have the eighth.
fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}
