//! Identifiers in text.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tally_proto::fuzzing::texts(data));
