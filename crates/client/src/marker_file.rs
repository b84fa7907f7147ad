//! The marker on a log server's disk: written once, fsynced, and never replaced.
//!
//! `MARKER` in the log server's data directory is one line of JSON. It lives as long as the data beside
//! it; without it the log server cannot prove that the data is its own. It says whose the data is, name
//! and cluster, so that a directory never becomes two nodes.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tally_model::{ClusterId, Marker};

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
            Self::Io { path, .. } => {
                format!("make {} accessible, with room on its disk", path.display())
            }
        }
    }
}

/// What the file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MarkerFile {
    /// The log server's name.
    pub name: String,
    /// The cluster in which it has that name.
    pub cluster: ClusterId,
    /// What proves that the data beside the file is the log server's own.
    pub marker: Marker,
}

/// The file's fields.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Layout {
    format: u32,
    name: String,
    /// 32 hexadecimal digits.
    cluster: String,
    /// 32 hexadecimal digits, `@`, milliseconds since 1970.
    marker: String,
    /// CRC-32C of `marker`, 8 hexadecimal digits: a flipped digit would be another valid marker.
    /// Name and cluster need none, because any other than the expected one is refused.
    crc32c: String,
}

impl Layout {
    fn of(file: &MarkerFile) -> Self {
        let marker = file.marker.to_string();
        Self {
            format: FORMAT,
            name: file.name.clone(),
            cluster: file.cluster.to_string(),
            crc32c: check(&marker),
            marker,
        }
    }

    fn parse(self) -> Result<MarkerFile, String> {
        if self.format != FORMAT {
            return Err(format!("found format {}, expected {FORMAT}", self.format));
        }
        let expected = check(&self.marker);
        if self.crc32c != expected {
            let found = &self.crc32c;
            return Err(format!("found checksum {found:?}, expected {expected:?}"));
        }
        let marker = self.marker.parse().map_err(|error| format!("{error}"))?;
        let cluster = self.cluster.parse().map_err(|error| format!("{error}"))?;
        Ok(MarkerFile {
            name: self.name,
            cluster,
            marker,
        })
    }
}

fn check(text: &str) -> String {
    format!("{:08x}", crc32c::crc32c(text.as_bytes()))
}

/// What the file in `dir` says; `None` when there is no such file.
///
/// # Errors
/// When the file is there and cannot be read or trusted. It is left as it is.
pub fn read(dir: &Path) -> Result<Option<MarkerFile>, MarkerFileError> {
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
    decode(&bytes)
        .map(Some)
        .map_err(|problem| MarkerFileError::Damaged { path, problem })
}

/// What a file's bytes say, or what is wrong with them.
pub(crate) fn decode(bytes: &[u8]) -> Result<MarkerFile, String> {
    serde_json::from_slice::<Layout>(bytes)
        .map_err(|error| format!("found {} bytes that are not its JSON: {error}", bytes.len()))
        .and_then(Layout::parse)
}

/// The bytes of a file: one line.
pub(crate) fn encode(file: &MarkerFile) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(&Layout::of(file))?;
    line.push(b'\n');
    Ok(line)
}

/// Writes `file` into `dir`, which is made when missing, and returns it once file and directory are on
/// disk. When there is one already it is kept, and what it says is returned.
///
/// # Errors
/// When the disk refuses, or the file that is there already cannot be trusted.
pub fn create(dir: &Path, file: &MarkerFile) -> Result<MarkerFile, MarkerFileError> {
    make_dir(dir)?;
    if let Some(kept) = read_durable(dir)? {
        return Ok(kept);
    }
    let path = dir.join(FILE_NAME);
    let staged = dir.join(format!("{FILE_NAME}.{:032x}.tmp", rand::random::<u128>()));
    let written = write(&staged, file).and_then(|()| {
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
    match read_durable(dir)? {
        Some(file) => Ok(file),
        None => Err(MarkerFileError::Io {
            path,
            problem: "was written and is not there".to_owned(),
        }),
    }
}

/// As [`read`], and puts what was read on disk first: an earlier process may have died between writing
/// the file and syncing it, and a marker that the machine can still forget must not be shown to anyone.
pub(crate) fn read_durable(dir: &Path) -> Result<Option<MarkerFile>, MarkerFileError> {
    let file = read(dir)?;
    if file.is_some() {
        let path = dir.join(FILE_NAME);
        File::open(&path)
            .and_then(|file| file.sync_all())
            .map_err(|error| refused(&path, &error))?;
        sync_dir(dir)?;
    }
    Ok(file)
}

fn write(staged: &Path, file: &MarkerFile) -> io::Result<()> {
    let line = encode(file)?;
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(staged)?;
    file.write_all(&line)?;
    file.sync_all()
}

/// Makes the directory and puts every entry that leads to it on disk, also when it is there already: an
/// earlier process may have died in between.
pub(crate) fn make_dir(dir: &Path) -> Result<(), MarkerFileError> {
    let parent = match dir.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    if dir.is_dir() {
        return match File::open(parent).and_then(|parent| parent.sync_all()) {
            // Where this process may not even look it made nothing either.
            Err(error) if error.kind() != io::ErrorKind::PermissionDenied => {
                Err(refused(parent, &error))
            }
            _ => Ok(()),
        };
    }
    if parent != Path::new(".") {
        make_dir(parent)?;
    }
    match fs::create_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(refused(dir, &error)),
        _ => sync_dir(parent),
    }
}

fn sync_dir(dir: &Path) -> Result<(), MarkerFileError> {
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(|error| refused(dir, &error))
}

pub(crate) fn refused(path: &Path, error: &io::Error) -> MarkerFileError {
    MarkerFileError::Io {
        path: path.to_owned(),
        problem: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    const MARKER: Marker = Marker {
        bits: 0x7f3a,
        created_unix_ms: 1_700_000_000_000,
    };

    fn one() -> MarkerFile {
        MarkerFile {
            name: "ls1".to_owned(),
            cluster: ClusterId(0xc1),
            marker: MARKER,
        }
    }

    fn other() -> MarkerFile {
        MarkerFile {
            name: "ls2".to_owned(),
            marker: Marker { bits: 1, ..MARKER },
            ..one()
        }
    }

    #[test]
    fn a_marker_is_created_with_its_directory_and_nothing_is_left_beside_it() {
        let temporary = tempfile::tempdir().unwrap();
        let dir = temporary.path().join("a/b");
        assert_eq!(read(&dir), Ok(None));
        assert_eq!(create(&dir, &one()), Ok(one()));
        assert_eq!(read(&dir), Ok(Some(one())));
        let names: Vec<_> = fs::read_dir(&dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(names, [FILE_NAME]);
    }

    #[test]
    fn the_file_is_one_line_that_says_whose_the_data_is() {
        let dir = tempfile::tempdir().unwrap();
        create(dir.path(), &one()).unwrap();
        let line = fs::read_to_string(dir.path().join(FILE_NAME)).unwrap();
        let expected = concat!(
            r#"{"format":1,"name":"ls1","cluster":"000000000000000000000000000000c1","#,
            r#""marker":"00000000000000000000000000007f3a@1700000000000","crc32c":"CRC"}"#,
            "\n"
        );
        let crc = check(&MARKER.to_string());
        assert_eq!(line, expected.replace("CRC", &crc));
    }

    #[test]
    fn a_marker_that_is_there_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        create(dir.path(), &one()).unwrap();
        assert_eq!(create(dir.path(), &other()), Ok(one()));
        assert_eq!(read(dir.path()), Ok(Some(one())));
    }

    #[test]
    fn a_damaged_marker_is_named_and_never_overwritten() {
        let whole = serde_json::to_string(&Layout::of(&one())).unwrap();
        let flipped = whole.replacen("7f3a", "7f3b", 1);
        let newer = whole.replacen("\"format\":1", "\"format\":2", 1);
        let unknown = whole.replacen("\"format\"", "\"more\":1,\"format\"", 1);
        let nameless = whole.replacen("\"name\":\"ls1\",", "", 1);
        let no_cluster = whole.replacen("0000c1", "zz", 1);
        let cut = whole[..whole.len() / 2].to_owned();
        let long = "x".repeat(5000);
        for damage in [
            "",
            "{}",
            &flipped,
            &newer,
            &unknown,
            &nameless,
            &no_cluster,
            &cut,
            &long,
        ] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join(FILE_NAME);
            fs::write(&path, damage).unwrap();
            for error in [
                read(dir.path()).unwrap_err(),
                create(dir.path(), &other()).unwrap_err(),
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
        let error = create(&file.join("below"), &one()).unwrap_err();
        assert!(
            error.to_string().contains(file.to_str().unwrap()),
            "{error}"
        );
    }
}
