//! Why a request got no answer. Refusals are answers and do not appear here.

use std::path::PathBuf;

use tally_model::explanation::codes;
use tally_proto::fault::Fault;

use crate::marker_file::MarkerFileError;
use crate::token::TagToken;

/// Why a request got no answer, and what sending it again would risk.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The client was asked for something that cannot be, before anything was sent.
    #[error("{found}")]
    Usage {
        /// What was found and what was expected.
        found: String,
    },
    /// A member turned the call down for good. Nothing was applied, and asking the same again would
    /// bring the same.
    #[error("{found}")]
    Rejected {
        /// Stable code, for example `T-004`.
        code: String,
        /// What was found, in one line.
        found: String,
        /// The command that would help.
        next: Option<String>,
    },
    /// Members answered, but until the deadline none could lead. Nothing was applied.
    #[error("no leader until the deadline; last found: {last}")]
    NoLeader {
        /// Who was asked.
        endpoints: Vec<String>,
        /// The last finding.
        last: String,
    },
    /// No member answered until the deadline. Nothing was applied.
    #[error("no member answered until the deadline; last found: {last}")]
    Unreachable {
        /// Who was asked.
        endpoints: Vec<String>,
        /// The last finding.
        last: String,
    },
    /// The deadline passed while the request may have been applied. Only [`Client::resume`] with this
    /// tag settles it.
    ///
    /// [`Client::resume`]: crate::Client::resume
    #[error("the outcome is unknown; last found: {last}")]
    Unknown {
        /// Names the request.
        tag: TagToken,
        /// The last finding.
        last: String,
    },
    /// A call that carries no tag lost its answer; look at the cluster before asking again.
    #[error("{call} was not answered and may have happened; found: {last}")]
    Unclear {
        /// Which call, for example `transfer-leader`.
        call: &'static str,
        /// The last finding.
        last: String,
    },
    /// The marker on this machine's disk cannot be trusted, read or written, or its directory cannot be
    /// used.
    #[error(transparent)]
    MarkerFile(#[from] MarkerFileError),
    /// The data directory is another log server's, or the same one's in another cluster. Nothing was
    /// registered and nothing written.
    #[error("{} belongs to {found}, expected {expected}", path.display())]
    ForeignDirectory {
        /// The marker file that says so.
        path: PathBuf,
        /// Whose the data is.
        found: String,
        /// Who was to be started.
        expected: String,
    },
    /// Another process is the log server of this data directory. Nothing was sent.
    #[error("another process has {} open", dir.display())]
    DirectoryLocked {
        /// The data directory.
        dir: PathBuf,
    },
}

impl Error {
    /// The stable code; `tally explain CODE` says more.
    pub fn code(&self) -> &str {
        match self {
            Self::Usage { .. } => codes::INVALID_CONFIG,
            Self::Rejected { code, .. } => code,
            Self::NoLeader { .. } | Self::Unreachable { .. } => codes::NO_LEADER,
            Self::Unknown { .. } | Self::Unclear { .. } => codes::OUTCOME_UNKNOWN,
            Self::MarkerFile(MarkerFileError::Damaged { .. }) => codes::DAMAGED,
            Self::MarkerFile(MarkerFileError::Io { .. }) => codes::INVALID_CONFIG,
            Self::ForeignDirectory { .. } => codes::FOREIGN_DIRECTORY,
            Self::DirectoryLocked { .. } => codes::DIRECTORY_LOCKED,
        }
    }

    /// What to run next, where there is something.
    pub fn next(&self) -> Option<String> {
        match self {
            Self::Usage { .. } => None,
            Self::Rejected { next, .. } => next.clone(),
            Self::NoLeader { .. } | Self::Unreachable { .. } | Self::Unclear { .. } => {
                Some("tally cluster status".to_owned())
            }
            Self::Unknown { tag, .. } => Some(format!("tally resume {tag}")),
            Self::MarkerFile(error) => Some(error.next()),
            Self::ForeignDirectory { .. } => {
                Some("start each log server with a data directory of its own".to_owned())
            }
            Self::DirectoryLocked { dir } => {
                Some(format!("stop the other process on {}", dir.display()))
            }
        }
    }

    /// The tag of a request whose outcome is unknown.
    pub fn tag(&self) -> Option<TagToken> {
        match self {
            Self::Unknown { tag, .. } => Some(*tag),
            _ => None,
        }
    }

    pub(crate) fn rejected(fault: Fault) -> Self {
        Self::Rejected {
            code: fault.code,
            found: fault.found,
            next: (!fault.next.is_empty()).then_some(fault.next),
        }
    }
}
