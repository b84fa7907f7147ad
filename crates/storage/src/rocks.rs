//! How RocksDB is set up: small, quiet, and strict about what it reads.

use std::io;
use std::path::Path;

use rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, Cache, DB, DBCompressionType, DBRecoveryMode,
    ErrorKind, LogLevel, Options, ReadOptions, WriteOptions, properties,
};

use crate::filters;

/// Memory for blocks of the raft log, whose latest entries are kept in memory anyway.
const LOG_CACHE_BYTES: usize = 1 << 20;
/// Memory for blocks of one generation of the state, whose busy rows are kept beside it.
const STATE_CACHE_BYTES: usize = 3 << 20;
/// Memory for the latest writes of one instance; two such buffers exist while one is flushed.
const WRITE_BUFFER_BYTES: usize = 2 << 20;
/// The level that takes what was flushed: rewritten each time, so it must stay small against the rest.
const FIRST_LEVEL_BYTES: u64 = 16 << 20;
/// A table file of that level; files of each level below are twice as large.
const FIRST_LEVEL_FILE_BYTES: u64 = 4 << 20;
const OPEN_FILES_MAX: i32 = 128;
const BACKGROUND_JOBS_MAX: i32 = 2;
const MANIFEST_BYTES_MAX: usize = 4 << 20;
const INFO_LOG_BYTES_MAX: usize = 1 << 20;
const INFO_LOGS_MAX: usize = 2;
/// A table is merged when so many of so many neighbouring rows say that one is gone, or this share of all.
const DELETIONS_LOOKED_AT: usize = 32 << 10;
const DELETIONS_MAX: usize = 16 << 10;
const DELETIONS_SHARE_MAX: f64 = 0.5;
/// Read at once where everything is read in order.
const READ_AHEAD_BYTES: usize = 1 << 20;
const BLOOM_BITS_PER_KEY: f64 = 10.0;

fn options(cache_bytes: usize) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(&Cache::new_lru_cache(cache_bytes));
    table.set_bloom_filter(BLOOM_BITS_PER_KEY, false);
    table.set_cache_index_and_filter_blocks(true);
    // In parts that fit into the cache. As one block each they grow with the table, and what is larger than
    // a shard of the cache is read anew for every look-up.
    table.set_index_type(BlockBasedIndexType::TwoLevelIndexSearch);
    table.set_partition_filters(true);
    table.set_pin_top_level_index_and_filter(true);
    table.set_format_version(5);
    let mut options = Options::default();
    options.set_block_based_table_factory(&table);
    options.set_write_buffer_size(WRITE_BUFFER_BYTES);
    options.set_max_write_buffer_number(2);
    options.set_max_bytes_for_level_base(FIRST_LEVEL_BYTES);
    options.set_target_file_size_base(FIRST_LEVEL_FILE_BYTES);
    options.set_target_file_size_multiplier(2);
    options.set_max_background_jobs(BACKGROUND_JOBS_MAX);
    options.set_max_open_files(OPEN_FILES_MAX);
    options.set_max_manifest_file_size(MANIFEST_BYTES_MAX);
    options.set_paranoid_checks(true);
    // However often a row was written, reading it reads each of its versions.
    options.set_max_sequential_skip_in_iterations(u64::MAX);
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);
    options.set_skip_stats_update_on_db_open(true);
    // Merging a file reads its rows and not its filters, and takes the file away before it was checked.
    options.set_disable_auto_compactions(true);
    options.set_log_level(LogLevel::Warn);
    options.set_max_log_file_size(INFO_LOG_BYTES_MAX);
    options.set_keep_log_file_num(INFO_LOGS_MAX);
    options
}

/// Lets table files be merged, once all of them were checked.
pub(crate) fn merge_from_now_on(db: &DB) -> io::Result<()> {
    let merging = db.set_options(&[("disable_auto_compactions", "false")]);
    merging.map_err(|error| io::Error::other(error.into_string()))
}

/// Opens the instance of the raft log. Nothing is merged until [`merge_from_now_on`].
///
/// Recovery takes the write-ahead log up to the first record that is not whole. It cannot tell a
/// torn tail from a damaged acknowledged entry; the floor file does (see `log::floor`).
pub(crate) fn open_log(path: &Path) -> Result<DB, rocksdb::Error> {
    let mut options = options(LOG_CACHE_BYTES);
    options.create_if_missing(true);
    // An entry is gone before it was worth the time.
    options.set_compression_type(DBCompressionType::None);
    options.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
    DB::open(&options, path)
}

/// Opens one generation of the state. Nothing is merged until [`merge_from_now_on`].
pub(crate) fn open_state(path: &Path) -> Result<DB, rocksdb::Error> {
    let mut options = options(STATE_CACHE_BYTES);
    options.create_if_missing(true);
    compress_what_stays(&mut options);
    // Merged although nothing more comes, so that what they say is gone takes no room. Those of a command take away
    // its tag's earlier outcome and are far fewer.
    options.add_compact_on_deletion_collector_factory(
        DELETIONS_LOOKED_AT,
        DELETIONS_MAX,
        DELETIONS_SHARE_MAX,
    );
    DB::open(&options, path)
}

/// Compresses the levels that are not rewritten again and again.
fn compress_what_stays(options: &mut Options) {
    let uncompressed = [DBCompressionType::None; 2];
    let compressed = [DBCompressionType::Lz4; 5];
    options.set_compression_per_level(&[&uncompressed[..], &compressed].concat());
}

/// Opens a checkpoint to look into it. It may leave an info log behind, and nothing else.
pub(crate) fn open_checkpoint(path: &Path) -> Result<DB, rocksdb::Error> {
    DB::open_for_read_only(&options(STATE_CACHE_BYTES), path, false)
}

/// True when a write may be held up: until memory that was filled before is on disk, while more is half full, or until
/// tables are merged.
pub(crate) fn may_hold_up_writes(db: &DB) -> bool {
    // One that cannot be read tells nothing.
    let value = |property| db.property_int_value(property).ok().flatten();
    let value = |property| value(property).unwrap_or(0);
    let waits = value(properties::NUM_IMMUTABLE_MEM_TABLE) > 0;
    let half = WRITE_BUFFER_BYTES as u64 / 2;
    (waits && value(properties::CUR_SIZE_ACTIVE_MEM_TABLE) > half)
        || value(properties::ACTUAL_DELAYED_WRITE_RATE) > 0
        || value(properties::IS_WRITE_STOPPED) > 0
}

/// A write that is on disk when it returns.
pub(crate) fn synced() -> WriteOptions {
    let mut options = WriteOptions::default();
    options.set_sync(true);
    options
}

/// A write that survives the process, not the machine.
pub(crate) fn unsynced() -> WriteOptions {
    WriteOptions::default()
}

/// A write that survives nothing until the next flush.
pub(crate) fn unlogged() -> WriteOptions {
    let mut options = WriteOptions::default();
    options.disable_wal(true);
    options
}

/// Reads of keys below `until`.
pub(crate) fn bounded_by(until: Vec<u8>) -> ReadOptions {
    let mut options = ReadOptions::default();
    options.set_iterate_upper_bound(until);
    options
}

/// Reads of everything, once: the cache keeps what it has. Rows that a deleted range hides are read as
/// well, so that no block is left out.
#[expect(
    deprecated,
    reason = "it still works, and there is no other way to read what is hidden"
)]
pub(crate) fn once() -> ReadOptions {
    let mut options = ReadOptions::default();
    options.set_ignore_range_deletions(true);
    options.fill_cache(false);
    options.set_readahead_size(READ_AHEAD_BYTES);
    options
}

/// Reads every block: one that nobody asks for any more would be found when files are merged, long after
/// the member has begun to vote. The error names the file.
pub(crate) fn read_all(db: &DB) -> Result<(), String> {
    filters::check(db)?;
    let mut rows = db.raw_iterator_opt(once());
    rows.seek_to_first();
    while rows.valid() {
        rows.next();
    }
    rows.status().map_err(rocksdb::Error::into_string)
}

/// True when opening failed for a reason that lies outside the files: no space, no permission, too
/// many open files. Everything else means that the files are not what was written.
pub(crate) fn is_environment(error: &rocksdb::Error) -> bool {
    const SIGNS: [&str; 5] = [
        "No space left",
        "Disk quota exceeded",
        "Permission denied",
        "Too many open files",
        "Read-only file system",
    ];
    error.kind() == ErrorKind::IOError && SIGNS.iter().any(|sign| error.as_ref().contains(sign))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use rocksdb::WaitForCompactOptions;

    use super::*;

    /// Files that were flushed and not merged, once nothing is being merged.
    fn files(db: &DB) -> usize {
        let waited = db.wait_for_compact(&WaitForCompactOptions::default());
        assert_eq!(waited, Ok(()));
        let files = db.live_files().unwrap().into_iter();
        files.filter(|file| file.level == 0).count()
    }

    #[test]
    fn no_file_is_taken_away_before_all_were_checked() {
        let directory = tempfile::tempdir().unwrap();
        for open in [open_log, open_state] {
            let path = directory.path().join(format!("{open:?}"));
            let db = open(&path).unwrap();
            for value in 0..8u8 {
                db.put(b"key", [value]).unwrap();
                db.flush().unwrap();
            }
            assert_eq!(files(&db), 8);
            drop(db);
            let db = open(&path).unwrap();
            assert_eq!(files(&db), 8);
            merge_from_now_on(&db).unwrap();
            assert!(files(&db) < 8);
        }
    }
}
