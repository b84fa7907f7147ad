//! How much of a fault test to run, and which numbers it draws.

use anyhow::{Context, Result};

/// `short` in every test run; `long` where `TALLY_TEST_LONG` is set, as `scripts/test --long` does.
pub fn rounds(short: usize, long: usize) -> usize {
    if std::env::var_os("TALLY_TEST_LONG").is_some() {
        long
    } else {
        short
    }
}

/// The seed of this run: `TALLY_TEST_SEED`, or a fresh one. Printed, so that a failure can be run
/// again.
///
/// # Errors
/// When the variable holds no number.
pub fn seed() -> Result<u64> {
    let seed = match std::env::var("TALLY_TEST_SEED") {
        Ok(text) => text.parse().context("TALLY_TEST_SEED takes a number")?,
        Err(_) => rand::random(),
    };
    eprintln!("seed {seed}; the same again: TALLY_TEST_SEED={seed}");
    Ok(seed)
}
