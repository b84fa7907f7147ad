//! Why a log server does not start, and why an append is not stored.

use std::path::{Path, PathBuf};

use tally_model::explanation::codes;

/// Why a log server does not start. What the cluster decided is no error, see
/// [`Start`](crate::Start).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The cluster did not answer, or the marker on disk cannot be used.
    #[error(transparent)]
    Client(#[from] tally_client::Error),
    /// The address for its clients is one that none can reach.
    #[error(
        "found {address} as the address for clients, which stands for every address of this machine, expected one that they can reach"
    )]
    Advertise {
        /// The address.
        address: String,
    },
    /// The records cannot be opened.
    #[error("{}: {problem}", path.display())]
    Records {
        /// Their directory.
        path: PathBuf,
        /// What was found.
        problem: String,
    },
    /// Another process has the records open.
    #[error("another process has {} open: {problem}", path.display())]
    RecordsLocked {
        /// Their directory.
        path: PathBuf,
        /// What was found.
        problem: String,
    },
    /// There is no room on the disk to open the records. Nothing of them is lost.
    #[error(
        "the disk that holds {} is full: {problem}; {}",
        path.display(),
        if *told { "the cluster knows that it does not write" } else { "the cluster was not told" }
    )]
    DiskFull {
        /// The records' directory.
        path: PathBuf,
        /// What was found.
        problem: String,
        /// True when the cluster knows that the node does not write.
        told: bool,
    },
    /// The listener cannot be used.
    #[error("the listener cannot be used: {problem}")]
    Listen {
        /// What the system said.
        problem: String,
    },
}

impl StartError {
    /// The stable code; `tally explain CODE` says more.
    pub fn code(&self) -> &str {
        match self {
            Self::Client(error) => error.code(),
            Self::Advertise { .. } => codes::INVALID_CONFIG,
            Self::Records { .. } => codes::DAMAGED,
            Self::RecordsLocked { .. } => codes::DIRECTORY_LOCKED,
            Self::DiskFull { .. } => codes::HALTED,
            Self::Listen { .. } => codes::ADDRESS_IN_USE,
        }
    }

    /// What to do next, where there is something.
    pub fn next(&self) -> Option<String> {
        match self {
            Self::Client(error) => error.next(),
            Self::Advertise { .. } => Some("add --advertise HOST:PORT".to_owned()),
            Self::Records { path, .. } => Some(format!("restore {}", path.display())),
            Self::RecordsLocked { path, .. } => {
                Some(format!("stop the other process on {}", path.display()))
            }
            Self::DiskFull { path, .. } => Some(format!(
                "make room on the disk that holds {}, start the log server again, then: \
                 tally node set-state NAME read-write",
                path.display()
            )),
            Self::Listen { .. } => None,
        }
    }

    /// Reads why the records in a directory were not opened, when it was not for lack of room.
    pub(crate) fn opening(path: &Path, problem: String) -> Self {
        let path = path.to_owned();
        if LOCKED.iter().any(|locked| problem.contains(locked)) {
            Self::RecordsLocked { path, problem }
        } else {
            Self::Records { path, problem }
        }
    }
}

/// True when the reason is a full disk. RocksDB keeps of ENOSPC only its text.
pub(crate) fn is_no_space(problem: &str) -> bool {
    problem.contains("No space left on device")
}

/// Texts of RocksDB when another process, or this one, has a database open.
const LOCKED: [&str; 2] = ["lock hold by current process", "While lock file"];

/// Why records were not stored or not read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RecordsError {
    /// There is no room on the disk.
    #[error("the disk is full: {0}")]
    Full(String),
    /// The disk refused for another reason; nothing more can be trusted to it.
    #[error("the disk failed: {0}")]
    Failed(String),
    /// More appends wait than may.
    #[error("{0} appends are waiting already")]
    Overloaded(usize),
}

impl From<rocksdb::Error> for RecordsError {
    fn from(error: rocksdb::Error) -> Self {
        let text = error.to_string();
        if is_no_space(&text) {
            Self::Full(text)
        } else {
            Self::Failed(text)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_error_has_a_code_and_names_what_it_is_about() {
        let path = Path::new("/d/records");
        for (problem, code, next) in [
            ("Corruption: bad magic", "T-018", "restore"),
            (
                "IO error: While lock file: /d/records/LOCK",
                "T-013",
                "stop the other",
            ),
        ] {
            let error = StartError::opening(path, problem.to_owned());
            let said = error.to_string();
            assert_eq!(error.code(), code);
            assert!(
                said.contains("/d/records") && said.contains(problem),
                "{said}"
            );
            assert!(
                error.next().is_some_and(|found| found.starts_with(next)),
                "{error:?}"
            );
        }
    }
}
