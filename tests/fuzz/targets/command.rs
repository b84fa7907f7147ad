//! What the `tally` command reads: configuration files, what `dev` remembers, orders to it.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tally_cli::fuzzing::command(data));
