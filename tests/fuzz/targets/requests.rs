//! Requests of clients, as they arrive.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tally_proto::fuzzing::requests(data));
