//! Why a data directory cannot be used.

use std::io;
use std::path::{Path, PathBuf};

use tally_model::ClusterId;
use tally_model::explanation::codes;

/// Why a directory or a store in it was not opened. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error("{} is in use by another process", path.display())]
    Locked { path: PathBuf },
    /// It belongs to another member, or a newer Tally wrote it.
    #[error("{} {found}, expected {expected}", path.display())]
    Foreign {
        path: PathBuf,
        found: String,
        expected: String,
        next: String,
    },
    /// What was read is not what was written.
    #[error("{} is damaged: {why}", file.display())]
    Damaged {
        file: PathBuf,
        why: String,
        next: String,
    },
    /// The system refused: no permission, no space.
    #[error("{}", unusable(path, source))]
    Io { path: PathBuf, source: io::Error },
}

/// RocksDB passes on the system's words only.
fn is_full(source: &io::Error) -> bool {
    ["No space left", "Disk quota exceeded"]
        .iter()
        .any(|words| source.to_string().contains(words))
}

/// The error may name the file by itself.
fn unusable(path: &Path, source: &io::Error) -> String {
    let (place, said) = (path.display().to_string(), source.to_string());
    match said
        .strip_prefix(&place)
        .and_then(|rest| rest.strip_prefix(": "))
    {
        Some(why) => format!("{place} cannot be used: {why}"),
        None => format!("{place} cannot be used: {said}"),
    }
}

impl OpenError {
    pub(crate) fn damaged(file: PathBuf, name: &str, why: impl Into<String>) -> Self {
        Self::Damaged {
            file,
            why: why.into(),
            next: format!(
                "acknowledged data may be gone, so the member must not vote on this directory again. move the \
                 directory away and start the member on an empty one, then run `tally member replace {name}` \
                 against the others"
            ),
        }
    }

    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Locked { .. } => codes::DIRECTORY_LOCKED,
            Self::Foreign { .. } => codes::FOREIGN_DIRECTORY,
            Self::Damaged { .. } => codes::DAMAGED,
            Self::Io { source, .. } if is_full(source) => codes::HALTED,
            Self::Io { .. } => codes::INVALID_CONFIG,
        }
    }

    /// What to do about it.
    pub fn next(&self) -> String {
        match self {
            Self::Locked { .. } => {
                "stop the other process, or give this member a directory of its own".to_owned()
            }
            Self::Foreign { next, .. } | Self::Damaged { next, .. } => next.clone(),
            Self::Io { path, source } if is_full(source) => format!(
                "make room on the disk of {}, then start the process again: nothing that was acknowledged \
                 is lost",
                path.display()
            ),
            Self::Io { path, .. } => {
                format!(
                    "check owner, permissions and free space of {}",
                    path.display()
                )
            }
        }
    }
}

/// Why a directory was not bound to a cluster.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// It is bound to another one. Nothing was changed.
    #[error("the directory belongs to cluster {present}, asked to join {asked}")]
    OtherCluster {
        present: ClusterId,
        asked: ClusterId,
    },
    /// The identity could not be written; the member must stop.
    #[error("the identity cannot be written: {0}")]
    Io(#[from] io::Error),
}

impl JoinError {
    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::OtherCluster { .. } => codes::FOREIGN_DIRECTORY,
            Self::Io(_) => codes::HALTED,
        }
    }
}
