//! Why a log server does not start, and why an append is not stored.

use std::path::PathBuf;

use tally_model::explanation::codes;

/// Why a log server does not start. What the cluster decided is no error, see
/// [`Start`](crate::Start).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The cluster did not answer, or the marker on disk cannot be used.
    #[error(transparent)]
    Client(#[from] tally_client::Error),
    /// The records cannot be opened.
    #[error("{}: {problem}", path.display())]
    Records {
        /// Their directory.
        path: PathBuf,
        /// What was found.
        problem: String,
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
            Self::Records { .. } => codes::DAMAGED,
            Self::Listen { .. } => codes::ADDRESS_IN_USE,
        }
    }

    /// What to do next, where there is something.
    pub fn next(&self) -> Option<String> {
        match self {
            Self::Client(error) => error.next(),
            Self::Records { path, .. } => Some(format!(
                "stop the other process on {}, or restore it",
                path.display()
            )),
            Self::Listen { .. } => None,
        }
    }
}

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
        // RocksDB keeps of ENOSPC only its text.
        if text.contains("No space left on device") {
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
        let error = StartError::Records {
            path: "/d/records".into(),
            problem: "lock is held".to_owned(),
        };
        assert_eq!(
            (error.code(), error.to_string().as_str()),
            ("T-018", "/d/records: lock is held")
        );
        assert!(error.next().is_some_and(|next| next.contains("/d/records")));
    }
}
