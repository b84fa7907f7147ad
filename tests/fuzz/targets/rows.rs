//! Rows of the replicated state.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tally_storage::fuzzing::rows(data));
