//! Requests of the etcd API in JSON.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tally_gateway::fuzzing::json(data));
