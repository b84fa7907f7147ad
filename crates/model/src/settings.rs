//! What a cluster was founded with. Part of the replicated state, so that every member decides alike.

use std::fmt;
use std::str::FromStr;

use crate::identifier::InvalidIdentifier;

/// Settings fixed when the cluster is founded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    pub retry_check: RetryCheck,
    /// The property that the read-write nodes must go on satisfying; `None` asks for nothing.
    pub replication: Option<Replication>,
    /// A session unused for longer is ended. Milliseconds, at least [`SESSION_IDLE_MS_MIN`].
    pub session_idle_ms: u64,
    /// Sessions kept at most; the least recently used one makes room. At least 1.
    pub sessions_max: u64,
    /// Outcomes kept for one session; a client with more unacknowledged requests is refused.
    pub outcomes_per_session_max: u64,
}

/// Shortest idle time that may be set, in milliseconds.
pub const SESSION_IDLE_MS_MIN: u64 = 1_000;

impl Default for Settings {
    fn default() -> Self {
        Self {
            retry_check: RetryCheck::Marker,
            replication: None,
            session_idle_ms: 24 * 3_600_000,
            sessions_max: 100_000,
            outcomes_per_session_max: 1_024,
        }
    }
}

/// How an activation tells a retry from a stranger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryCheck {
    /// Equal markers mean "my own earlier attempt".
    Marker,
    /// Later attempts accept what they find. Unsafe: two processes with one node id can both
    /// succeed, and a retry can take an operator's change for its own success.
    Relaxed,
}

impl RetryCheck {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Marker => "marker",
            Self::Relaxed => "relaxed",
        }
    }
}

impl fmt::Display for RetryCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for RetryCheck {
    type Err = InvalidIdentifier;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "marker" => Ok(Self::Marker),
            "relaxed" => Ok(Self::Relaxed),
            _ => Err(InvalidIdentifier {
                what: "retry check",
                problem: format!("found {text:?}, expected `marker` or `relaxed`"),
            }),
        }
    }
}

/// How many distinct places must stay writable, written `{zone: 2}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replication {
    pub scope: Scope,
    /// At least 1.
    pub copies: u32,
}

/// What counts as a distinct place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    Node,
    Zone,
    Region,
}

impl Scope {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Zone => "zone",
            Self::Region => "region",
        }
    }
}

impl fmt::Display for Replication {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{{}: {}}}", self.scope.as_str(), self.copies)
    }
}

impl FromStr for Replication {
    type Err = InvalidIdentifier;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parsed = text
            .trim()
            .strip_prefix('{')
            .and_then(|rest| rest.strip_suffix('}'))
            .and_then(|inner| inner.split_once(':'))
            .and_then(|(scope, copies)| {
                let scope = match scope.trim() {
                    "node" => Scope::Node,
                    "zone" => Scope::Zone,
                    "region" => Scope::Region,
                    _ => return None,
                };
                let copies = copies.trim().parse().ok().filter(|copies| *copies > 0)?;
                Some(Self { scope, copies })
            });
        parsed.ok_or_else(|| InvalidIdentifier {
            what: "replication",
            problem: format!("found {text:?}, expected {{node: N}}, {{zone: N}} or {{region: N}} with N of 1 or more"),
        })
    }
}
