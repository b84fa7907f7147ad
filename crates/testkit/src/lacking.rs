//! What this machine cannot do, although a test needs it.

use anyhow::{Error, Result, bail};

/// Says loudly that a test does not run here, and why.
///
/// # Errors
/// Where `CI` is set: there every test runs, or the run fails.
pub fn lacking(what: &str, why: &Error) -> Result<()> {
    let ci = std::env::var_os("CI").is_some_and(|value| !value.is_empty());
    if ci {
        bail!("{what} cannot be tested here, and CI is set: {why:#}");
    }
    eprintln!("NOT TESTED: {what}: {why:#}");
    Ok(())
}
