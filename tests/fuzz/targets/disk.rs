//! What stands on a member's disk beside the state: record files, `FLOOR`, rows of the log.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tally_storage::fuzzing::disk(data));
