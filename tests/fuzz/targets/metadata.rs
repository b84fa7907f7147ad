//! Metadata of requests of the etcd API.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tally_service::fuzzing::metadata(data));
