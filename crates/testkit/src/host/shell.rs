//! Programs of the system that make and change networks.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

/// Runs a program to its end.
///
/// # Errors
/// When it cannot be started or fails; the message carries what it said.
pub(super) fn run(program: &str, arguments: &[&str]) -> Result<()> {
    output(program, arguments).map(drop)
}

/// The same, and returns what it wrote to its standard output.
///
/// # Errors
/// As for [`run`].
pub(super) fn output(program: &str, arguments: &[&str]) -> Result<String> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null());
    let ended = command
        .output()
        .with_context(|| format!("running {program}"))?;
    ensure!(
        ended.status.success(),
        "{program} {}: {}: {}",
        arguments.join(" "),
        ended.status,
        String::from_utf8_lossy(&ended.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&ended.stdout).into_owned())
}
