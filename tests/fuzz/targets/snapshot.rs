//! Frames of a snapshot on its way to a member's disk. The directory is in memory where it can be,
//! because every file is fsynced.
#![no_main]

use std::path::Path;
use std::sync::LazyLock;

use tempfile::TempDir;

static SCRATCH: LazyLock<TempDir> = LazyLock::new(|| {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() {
        TempDir::with_prefix_in("tally-fuzz-", memory)
    } else {
        TempDir::with_prefix("tally-fuzz-")
    };
    made.unwrap_or_else(|error| panic!("no directory to receive snapshots in: {error}"))
});

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    tally_storage::fuzzing::snapshot(SCRATCH.path(), data);
});
