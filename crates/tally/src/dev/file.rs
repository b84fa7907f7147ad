//! `dev.json` in the data directory: which ports the members have, and how to reach a running `dev`.
//! The ports stay as they are, because the members know one another by them.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tally_model::explanation::codes;

use crate::exit::Failure;

const FILE_NAME: &str = "dev.json";

/// What is remembered between runs and told to the commands that order a running `dev` about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DevFile {
    /// Absent when no `dev` runs, or one did not end by itself.
    pub(super) control: Option<Control>,
    pub(super) members: Vec<MemberAddresses>,
}

/// How to reach a running `dev`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Control {
    /// Port on 127.0.0.1.
    pub(super) port: u16,
    /// Random; who can read this file may give orders, nobody else.
    pub(super) secret: String,
}

/// A member's name and addresses, HOST:PORT each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MemberAddresses {
    pub(super) name: String,
    pub(super) client: String,
    pub(super) peer: String,
    pub(super) http: String,
}

fn path(dir: &Path) -> PathBuf {
    dir.join(FILE_NAME)
}

impl DevFile {
    /// What the directory remembers; `None` when no `dev` ever ran on it.
    pub(super) fn read(dir: &Path) -> Result<Option<Self>, Failure> {
        let path = path(dir);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                let found = format!("cannot read {}: {error}", path.display());
                return Err(Failure::fault(codes::DAMAGED, found));
            }
        };
        serde_json::from_str(&text).map(Some).map_err(|error| {
            let found = format!("{}: {error}", path.display());
            let failure = Failure::fault(codes::DAMAGED, found);
            failure.expected("the file as `tally dev` wrote it, or an empty directory")
        })
    }

    /// Replaces what the directory remembers, in one step. Only this user may read it.
    pub(super) fn write(&self, dir: &Path) -> Result<(), Failure> {
        write_json(&path(dir), self)
    }
}

/// Finds out whether `write_json` could write to `path`, and leaves nothing behind.
pub(super) fn probe(path: &Path) -> std::io::Result<()> {
    let unfinished = unfinished(path);
    create(&unfinished)?;
    std::fs::remove_file(unfinished)
}

/// Where a document is written before it is renamed to `path`.
fn unfinished(path: &Path) -> PathBuf {
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(".unfinished");
    PathBuf::from(unfinished)
}

fn create(path: &Path) -> std::io::Result<File> {
    std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
}

/// Writes a document beside `path` and renames it to `path`, so that nobody reads half of it.
pub(super) fn write_json(path: &Path, document: &impl Serialize) -> Result<(), Failure> {
    let written = || {
        let mut text = serde_json::to_string_pretty(document)?;
        text.push('\n');
        let unfinished = unfinished(path);
        let mut file = create(&unfinished)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&unfinished, path)
    };
    written().map_err(|error: std::io::Error| {
        Failure::fault(
            codes::HALTED,
            format!("cannot write {}: {error}", path.display()),
        )
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn file() -> DevFile {
        DevFile {
            control: Some(Control {
                port: 4,
                secret: "ab".to_owned(),
            }),
            members: vec![MemberAddresses {
                name: "n1".to_owned(),
                client: "127.0.0.1:1".to_owned(),
                peer: "127.0.0.1:2".to_owned(),
                http: "127.0.0.1:3".to_owned(),
            }],
        }
    }

    #[test]
    fn what_is_written_is_read_and_kept_from_others() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(DevFile::read(dir.path()).unwrap(), None);
        file().write(dir.path()).unwrap();
        assert_eq!(DevFile::read(dir.path()).unwrap(), Some(file()));
        let mode = std::fs::metadata(path(dir.path()))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        let files = std::fs::read_dir(dir.path()).unwrap();
        assert_eq!(files.count(), 1, "the unfinished file is left behind");
    }

    #[test]
    fn the_file_keeps_its_names() {
        let found = serde_json::to_value(file()).unwrap();
        let expected = serde_json::json!({
            "control": { "port": 4, "secret": "ab" },
            "members": [{
                "name": "n1",
                "client": "127.0.0.1:1",
                "peer": "127.0.0.1:2",
                "http": "127.0.0.1:3",
            }],
        });
        assert_eq!(found, expected);
    }

    #[test]
    fn a_damaged_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(path(dir.path()), "{").unwrap();
        let failure = DevFile::read(dir.path()).unwrap_err();
        assert_eq!(failure.code, codes::DAMAGED);
        assert!(failure.found.contains("dev.json"), "{failure}");
    }
}
