//! Why a request about keys was not done.

use crate::answer::Refused;
use crate::error::Error;

/// Why a request about keys was not done. All but [`KeyError::Unanswered`] are the cluster's last word:
/// nothing was changed, and the same request would be told the same.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// What keys were at this revision was given up.
    #[error("the revision has been compacted")]
    Compacted {
        /// The first revision that can still be watched, where that was told.
        first_kept: Option<u64>,
    },
    /// The store has not come to this revision.
    #[error("the revision is one that the store has not come to")]
    FutureRevision,
    /// A put was to keep a value or a lease, and there is no such key.
    #[error("there is no such key whose value or lease could be kept")]
    KeyNotFound,
    /// The lease was never granted, was revoked, or has ended.
    #[error("there is no such lease: it was never granted, was revoked, or has ended")]
    LeaseNotFound,
    /// A lease with this id is held.
    #[error("a lease with this id is held already")]
    LeaseExists,
    /// The key is one that the cluster itself writes.
    #[error("{}", found.found)]
    KeyReserved {
        /// In the cluster's words.
        found: Refused,
    },
    /// Refused for another reason, such as too many leases.
    #[error("{}", _0.found)]
    Refused(Refused),
    /// There was no answer; see there what may have happened and what to do.
    #[error(transparent)]
    Unanswered(#[from] Error),
}

impl From<Refused> for KeyError {
    fn from(refused: Refused) -> Self {
        match refused.code.as_str() {
            "T-501" => Self::KeyNotFound,
            "T-502" => Self::LeaseNotFound,
            "T-503" => Self::Compacted { first_kept: None },
            "T-504" => Self::FutureRevision,
            "T-505" => Self::KeyReserved { found: refused },
            "T-506" => Self::LeaseExists,
            _ => Self::Refused(refused),
        }
    }
}

impl KeyError {
    /// The stable code; `tally explain CODE` says more.
    pub fn code(&self) -> &str {
        match self {
            Self::KeyNotFound => "T-501",
            Self::LeaseNotFound => "T-502",
            Self::Compacted { .. } => "T-503",
            Self::FutureRevision => "T-504",
            Self::KeyReserved { .. } => "T-505",
            Self::LeaseExists => "T-506",
            Self::Refused(refused) => &refused.code,
            Self::Unanswered(error) => error.code(),
        }
    }

    /// What to do next, where there is something.
    pub fn next(&self) -> Option<String> {
        let next = match self {
            Self::Compacted {
                first_kept: Some(first),
            } => {
                return Some(format!(
                    "read the keys as they are now, then watch from revision {first} or later"
                ));
            }
            Self::Compacted { first_kept: None } => {
                "read the keys as they are now: leave the revision out"
            }
            Self::FutureRevision => "leave the revision out; each cluster counts its own",
            Self::KeyNotFound => "put the key with a value and, if it is to end, a lease",
            Self::LeaseNotFound => "tally kv lease list, or grant another: tally kv lease grant 60",
            Self::LeaseExists => "ask again without an id, so that a fresh one is drawn",
            Self::KeyReserved { .. } => "choose a key that does not begin with \\x00tally/",
            Self::Refused(refused) => {
                let explained = format!("tally explain {}", refused.code);
                return Some(refused.next().map_or(explained, str::to_owned));
            }
            Self::Unanswered(error) => return error.next(),
        };
        Some(next.to_owned())
    }
}
