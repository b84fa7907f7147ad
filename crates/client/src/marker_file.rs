//! The marker on a log server's disk: written once, fsynced, and never replaced.
//!
//! `MARKER` in the log server's data directory is one line of JSON. It lives as long as the data beside
//! it; without it the log server cannot prove that the data is its own.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tally_model::Marker;

/// The file's name in the data directory.
pub const FILE_NAME: &str = "MARKER";

/// The layout that this version writes and reads.
const FORMAT: u32 = 1;

/// A marker file is never longer than this; one that is was not written by Tally.
const BYTES_MAX: u64 = 4096;

/// Why the marker cannot be used. Each names the file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MarkerFileError {
    /// The file is there and does not hold a marker.
    #[error("{} is damaged: {problem}", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What was found and what was expected.
        problem: String,
    },
    /// The file system refused.
    #[error("{}: {problem}", path.display())]
    Io {
        /// Which file or directory.
        path: PathBuf,
        /// What the system said.
        problem: String,
    },
}

impl MarkerFileError {
    /// What to do next.
    pub(crate) fn next(&self) -> String {
        match self {
            Self::Damaged { path, .. } => format!(
                "restore {} from a backup; never delete it while its data is needed",
                path.display()
            ),
            Self::Io { path, .. } => format!("mend access to {}", path.display()),
        }
    }
}

/// The file's fields.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Layout {
    format: u32,
    /// 32 hexadecimal digits, `@`, milliseconds since 1970.
    marker: String,
    /// CRC-32C of `marker`, 8 hexadecimal digits: a flipped digit would be another valid marker.
    crc32c: String,
}

impl Layout {
    fn of(marker: Marker) -> Self {
        let marker = marker.to_string();
        Self {
            format: FORMAT,
            crc32c: check(&marker),
            marker,
        }
    }

    fn marker(&self) -> Result<Marker, String> {
        if self.format != FORMAT {
            return Err(format!("found format {}, expected {FORMAT}", self.format));
        }
        let expected = check(&self.marker);
        if self.crc32c != expected {
            let found = &self.crc32c;
            return Err(format!("found checksum {found:?}, expected {expected:?}"));
        }
        self.marker.parse().map_err(|error| format!("{error}"))
    }
}

fn check(text: &str) -> String {
    format!("{:08x}", crc32c::crc32c(text.as_bytes()))
}

/// The marker in `dir`; `None` when there is no such file.
///
/// # Errors
/// When the file is there and cannot be read or trusted. It is left as it is.
pub fn read(dir: &Path) -> Result<Option<Marker>, MarkerFileError> {
    let path = dir.join(FILE_NAME);
    let bytes = match fs::metadata(&path) {
        Ok(found) if found.len() > BYTES_MAX => {
            let problem = format!("found {} bytes, expected at most {BYTES_MAX}", found.len());
            return Err(MarkerFileError::Damaged { path, problem });
        }
        Ok(_) => fs::read(&path).map_err(|error| refused(&path, &error))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(refused(&path, &error)),
    };
    let marker = serde_json::from_slice::<Layout>(&bytes)
        .map_err(|error| format!("found {} bytes that are not its JSON: {error}", bytes.len()))
        .and_then(|layout| layout.marker());
    marker
        .map(Some)
        .map_err(|problem| MarkerFileError::Damaged { path, problem })
}

/// Writes `marker` into `dir`, which is made when missing, and returns it once file and directory are
/// on disk. When there is a file already it is kept, and its marker is the one returned.
///
/// # Errors
/// When the disk refuses, or the file that is there already cannot be trusted.
pub fn create(dir: &Path, marker: Marker) -> Result<Marker, MarkerFileError> {
    make_dir(dir)?;
    if let Some(kept) = read(dir)? {
        return Ok(kept);
    }
    let path = dir.join(FILE_NAME);
    let staged = dir.join(format!("{FILE_NAME}.{:032x}.tmp", rand::random::<u128>()));
    let written = write(&staged, marker).and_then(|()| {
        // Unlike a rename, a link never replaces what another process may have put there meanwhile.
        fs::hard_link(&staged, &path)
    });
    let removed = fs::remove_file(&staged);
    match written {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        written => written
            .and(removed)
            .map_err(|error| refused(&path, &error))?,
    }
    sync_dir(dir)?;
    match read(dir)? {
        Some(marker) => Ok(marker),
        None => Err(MarkerFileError::Io {
            path,
            problem: "was written and is not there".to_owned(),
        }),
    }
}

fn write(staged: &Path, marker: Marker) -> io::Result<()> {
    let mut line = serde_json::to_vec(&Layout::of(marker))?;
    line.push(b'\n');
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(staged)?;
    file.write_all(&line)?;
    file.sync_all()
}

/// Makes the directory and puts every entry that leads to it on disk.
fn make_dir(dir: &Path) -> Result<(), MarkerFileError> {
    if dir.is_dir() {
        return Ok(());
    }
    if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        make_dir(parent)?;
    }
    match fs::create_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(refused(dir, &error)),
        _ => match dir.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => sync_dir(parent),
            _ => sync_dir(Path::new(".")),
        },
    }
}

fn sync_dir(dir: &Path) -> Result<(), MarkerFileError> {
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(|error| refused(dir, &error))
}

fn refused(path: &Path, error: &io::Error) -> MarkerFileError {
    MarkerFileError::Io {
        path: path.to_owned(),
        problem: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    const ONE: Marker = Marker {
        bits: 0x7f3a,
        created_unix_ms: 1_700_000_000_000,
    };
    const OTHER: Marker = Marker { bits: 1, ..ONE };

    #[test]
    fn a_marker_is_created_with_its_directory_and_nothing_is_left_beside_it() {
        let temporary = tempfile::tempdir().unwrap();
        let dir = temporary.path().join("a/b");
        assert_eq!(read(&dir), Ok(None));
        assert_eq!(create(&dir, ONE), Ok(ONE));
        assert_eq!(read(&dir), Ok(Some(ONE)));
        let names: Vec<_> = fs::read_dir(&dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(names, [FILE_NAME]);
    }

    #[test]
    fn a_marker_that_is_there_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        create(dir.path(), ONE).unwrap();
        assert_eq!(create(dir.path(), OTHER), Ok(ONE));
        assert_eq!(read(dir.path()), Ok(Some(ONE)));
    }

    #[test]
    fn a_damaged_marker_is_named_and_never_overwritten() {
        let whole = serde_json::to_string(&Layout::of(ONE)).unwrap();
        let flipped = whole.replacen("7f3a", "7f3b", 1);
        let newer = whole.replacen("\"format\":1", "\"format\":2", 1);
        let cut = whole[..whole.len() / 2].to_owned();
        let long = "x".repeat(5000);
        for damage in ["", "{}", &flipped, &newer, &cut, &long] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join(FILE_NAME);
            fs::write(&path, damage).unwrap();
            for error in [
                read(dir.path()).unwrap_err(),
                create(dir.path(), OTHER).unwrap_err(),
            ] {
                assert!(
                    matches!(error, MarkerFileError::Damaged { .. }),
                    "{damage}: {error:?}"
                );
                assert!(
                    error.to_string().contains(path.to_str().unwrap()),
                    "{error}"
                );
            }
            assert_eq!(fs::read_to_string(&path).unwrap(), damage);
        }
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let error = create(&file.join("below"), ONE).unwrap_err();
        assert!(
            error.to_string().contains(file.to_str().unwrap()),
            "{error}"
        );
    }
}
