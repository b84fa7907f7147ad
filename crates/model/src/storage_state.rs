//! Storage states and what each permits.

use std::fmt;
use std::str::FromStr;

use crate::identifier::InvalidIdentifier;

/// What a log server may do. The first six have Restate's names and meanings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StorageState {
    /// Known, never active, holds nothing.
    Provisioning,
    /// Reads and writes.
    ReadWrite,
    /// Reads only; what it holds counts.
    ReadOnly,
    /// What it held may be lost; never counts as having seen a record.
    DataLoss,
    /// Permanently gone.
    Gone,
    /// Deliberately not a storage node.
    Disabled,
    /// Tombstone: name and id stay reserved.
    Removed,
}

/// What a state permits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permits {
    pub read: bool,
    pub write: bool,
    /// May be put into new nodesets.
    pub new_nodesets: bool,
    /// Its answers count towards an f-majority.
    pub authoritative: bool,
}

const fn permits(read: bool, write: bool, new_nodesets: bool, authoritative: bool) -> Permits {
    Permits {
        read,
        write,
        new_nodesets,
        authoritative,
    }
}

impl StorageState {
    /// Every state, in the order of the enum.
    pub const ALL: [Self; 7] = [
        Self::Provisioning,
        Self::ReadWrite,
        Self::ReadOnly,
        Self::DataLoss,
        Self::Gone,
        Self::Disabled,
        Self::Removed,
    ];

    /// The one table of what states permit.
    pub const fn permits(self) -> Permits {
        match self {
            //                              read   write  new    authoritative
            Self::Provisioning => permits(false, false, true, true),
            Self::ReadWrite => permits(true, true, true, true),
            Self::ReadOnly => permits(true, false, false, true),
            Self::DataLoss => permits(true, false, false, false),
            Self::Gone => permits(false, false, false, false),
            Self::Disabled => permits(false, false, false, false),
            Self::Removed => permits(false, false, false, false),
        }
    }

    /// The state's name as people and the wire's JSON see it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Provisioning => "provisioning",
            Self::ReadWrite => "read-write",
            Self::ReadOnly => "read-only",
            Self::DataLoss => "data-loss",
            Self::Gone => "gone",
            Self::Disabled => "disabled",
            Self::Removed => "removed",
        }
    }
}

impl fmt::Display for StorageState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for StorageState {
    type Err = InvalidIdentifier;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or_else(|| {
                let names: Vec<_> = Self::ALL.iter().map(|state| state.as_str()).collect();
                InvalidIdentifier {
                    what: "storage state",
                    problem: format!("found {text:?}, expected one of {}", names.join(", ")),
                }
            })
    }
}
