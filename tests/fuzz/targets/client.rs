//! What a client reads: answers, the file `MARKER`, tokens.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tally_client::fuzzing::client(data));
