//! Where the `tally` command is.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, anyhow, ensure};

static TALLY: OnceLock<Result<PathBuf, String>> = OnceLock::new();

/// The path of the `tally` command: `TALLY_BIN`, or the one of this executable's own profile, which
/// is built when it is missing.
///
/// # Errors
/// When there is none and it cannot be built.
pub(crate) fn tally() -> Result<&'static Path> {
    TALLY
        .get_or_init(|| find().map_err(|error| format!("{error:#}")))
        .as_deref()
        .map_err(|error| anyhow!(error.clone()))
}

fn find() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("TALLY_BIN") {
        let path = PathBuf::from(path);
        ensure!(
            path.is_file(),
            "TALLY_BIN names no file: {}",
            path.display()
        );
        return Ok(path);
    }
    let here = std::env::current_exe()?;
    let profile =
        profile_dir(&here).with_context(|| format!("no profile in {}", here.display()))?;
    let path = profile.join("tally");
    if !path.is_file() {
        build(profile.ends_with("release"))?;
    }
    ensure!(path.is_file(), "built, but not there: {}", path.display());
    Ok(path)
}

/// `target/debug` for `target/debug/deps/test-123` and for `target/debug/program`.
fn profile_dir(executable: &Path) -> Option<&Path> {
    let dir = executable.parent()?;
    if dir.ends_with("deps") {
        return dir.parent();
    }
    Some(dir)
}

fn build(release: bool) -> Result<()> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    cargo.args(["build", "--locked", "--package", "tally"]);
    if release {
        cargo.arg("--release");
    }
    let status = cargo.status().context("running cargo")?;
    ensure!(status.success(), "cargo build --package tally: {status}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_and_programs_find_the_same_profile() {
        let profile = Path::new("/t/target/debug");
        assert_eq!(profile_dir(&profile.join("deps/test-1")), Some(profile));
        assert_eq!(profile_dir(&profile.join("program")), Some(profile));
    }
}
