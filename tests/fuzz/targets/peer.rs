//! Messages from another member.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tally_consensus::fuzzing::peer(data));
