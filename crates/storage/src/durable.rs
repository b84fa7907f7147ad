//! Fsync in the right order: a file's bytes, then the directory that names it. Every error names the
//! file.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

/// Names the file of an error; its kind stays.
pub(crate) fn at(path: &Path) -> impl FnOnce(io::Error) -> io::Error + '_ {
    move |error| io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// Makes the names in a directory durable.
pub(crate) fn sync_directory(path: &Path) -> io::Result<()> {
    sync_file(path)
}

/// Makes one file's bytes and length durable.
pub(crate) fn sync_file(path: &Path) -> io::Result<()> {
    File::open(path)
        .and_then(|file| file.sync_all())
        .map_err(at(path))
}

/// Creates a directory and those above it, as far as they are missing, and makes every new name
/// durable, and that of the directory itself in any case: an earlier attempt may have stopped halfway.
pub(crate) fn create_directory(path: &Path) -> io::Result<()> {
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    if let Some(parent) = parent.filter(|parent| !parent.exists()) {
        create_directory(parent)?;
    }
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
        created => created.map_err(at(path))?,
    }
    sync_directory(parent.unwrap_or(Path::new(".")))
}

/// Replaces a file as a whole: after a crash it has either its old content or the new one.
pub(crate) fn replace_file(path: &Path, content: &[u8]) -> io::Result<()> {
    let staged = path.with_extension("new");
    let write = || {
        let mut file = File::create(&staged)?;
        file.write_all(content)?;
        file.sync_all()
    };
    write().map_err(at(&staged))?;
    rename(&staged, path)
}

/// Renames a directory and makes the new name durable. Both lie in the same parent.
pub(crate) fn rename_directory(from: &Path, to: &Path) -> io::Result<()> {
    rename(from, to)
}

fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to).map_err(at(to))?;
    match to.parent() {
        Some(parent) => sync_directory(parent),
        None => Ok(()),
    }
}
