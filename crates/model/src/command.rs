//! What can be asked of the replicated state. Commands are verbs; they carry everything that their
//! decision needs, since apply may look at nothing else.

use crate::identifier::{
    ClusterId, Incarnation, LeaseId, Location, Marker, NodeId, NodeName, Revision, Sequence, Tag,
};
use crate::keys::KeyOp;
use crate::lease::{GrantLease, PassLeaseTime};
use crate::settings::Settings;
use crate::storage_state::StorageState;

/// A command and who asked for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Present on every command that belongs to a session; absent on `Found`, `OpenSession`,
    /// `RenewLease`, `PassLeaseTime` and `ReclaimVersions`.
    pub tagged: Option<Tagged>,
    pub command: Command,
}

/// Who asked, and which of its requests this is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tagged {
    pub tag: Tag,
    /// The marker under which the session was opened: keeps one requester from using another's session
    /// by accident. It is no secret; every reader of a node sees the node's marker. Not compared when
    /// the requester shows none.
    pub marker: Option<Marker>,
    /// Every request with a smaller sequence is answered and may be forgotten. At least 1.
    pub acknowledged: Sequence,
    /// Digest of the command's canonical bytes: tells a repeat from another request under its tag.
    pub digest: u128,
}

/// Everything that changes replicated state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// First entry of a cluster: its identity and settings.
    Found(Found),
    OpenSession(OpenSession),
    CloseSession,
    /// Asks what became of the tag it is sent under, and makes sure that nothing more becomes of it.
    SettleRequest,
    RegisterNode(RegisterNode),
    ActivateNode(ActivateNode),
    SetStorageState(SetStorageState),
    /// Reads and writes keys.
    Keys(KeyOp),
    /// Gives up what keys were before a revision.
    Compact(Compact),
    GrantLease(GrantLease),
    RevokeLease(LeaseId),
    /// A sign of life of a lease's holder. Needs no tag: a second one does no harm.
    RenewLease(LeaseId),
    /// Sent by the leader itself, without a tag; what it counts on tells whether it still holds.
    PassLeaseTime(PassLeaseTime),
    /// Removes some of what was given up. Sent by the leader itself, without a tag: doing it once more
    /// than needed does no harm.
    ReclaimVersions,
}

impl Command {
    /// True when the leader itself sends it, one at a time, so that what has to go on does.
    pub fn is_the_leaders_own(&self) -> bool {
        matches!(self, Self::PassLeaseTime(_) | Self::ReclaimVersions)
    }

    /// True when applying it may take so long that others notice: it is about a range of keys, or about keys that it
    /// does not name.
    pub fn may_take_long(&self) -> bool {
        match self {
            Self::Keys(op) => op.may_be_about_many(),
            Self::RevokeLease(_) | Self::PassLeaseTime(_) | Self::ReclaimVersions => true,
            Self::Found(_)
            | Self::OpenSession(_)
            | Self::CloseSession
            | Self::SettleRequest
            | Self::RegisterNode(_)
            | Self::ActivateNode(_)
            | Self::SetStorageState(_)
            | Self::Compact(_)
            | Self::GrantLease(_)
            | Self::RenewLease(_) => false,
        }
    }
}

/// What a cluster begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub cluster: ClusterId,
    pub settings: Settings,
}

/// Ends reads and watches of revisions before this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compact {
    pub revision: Revision,
}

/// Begins a requester's numbered requests, under its marker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenSession {
    pub marker: Marker,
}

/// Sent by a log server at each start, or by an operator to reserve a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisterNode {
    pub name: NodeName,
    /// The marker found on the log server's disk; `None` when there is none (yet).
    pub marker: Option<Marker>,
    /// Where clients of the log server reach it; shown to operators, at most
    /// [`ADDRESS_BYTES_MAX`] bytes.
    pub address: String,
    pub location: Location,
}

/// Longest address of a log server in bytes.
pub const ADDRESS_BYTES_MAX: usize = 256;

/// Longest reason that an operator may give, in bytes.
pub const REASON_BYTES_MAX: usize = 1024;

/// `provisioning` to `read-write`, and the binding of the marker, in one step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActivateNode {
    pub node: NodeId,
    pub marker: Marker,
    pub incarnation: Incarnation,
    /// 1 for the first attempt of a process, more for its retries. Only the relaxed retry check
    /// looks at it.
    pub attempt: u32,
}

/// Moves a node from its storage state to another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetStorageState {
    pub node: NodeId,
    pub to: StorageState,
    pub actor: Actor,
    /// Free text for the history, at most [`REASON_BYTES_MAX`] bytes.
    pub reason: String,
}

/// Who asks for a transition, with what proves the right to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Actor {
    /// The log server itself.
    Node {
        marker: Marker,
        incarnation: Incarnation,
    },
    /// A person. The expected revision is that of the node when the person looked at it.
    Operator {
        expected_revision: Option<Revision>,
        force: Option<Force>,
    },
}

/// An operator's override of the transition table: any state but `removed` to any other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Force {
    /// The node's name, typed again.
    pub confirm_name: String,
}
