//! Agrees on an order of commands with the other members.
//!
//! The only crate that knows openraft; its types stop at this crate's edge. Clock, randomness,
//! network and disk are handed in. Knows nothing of sockets, of how bytes reach a disk, or of what a
//! command means.

mod confirm;
mod deps;
mod forward;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod hashes;
mod incoming;
mod leadership;
mod link;
mod manage;
mod membership;
mod propose;
mod raft;
mod read;
mod replacing;
mod replica;
mod snapshot;
mod status;
mod succession;

pub use deps::{Clock, Deps, Entropy, Stores};
pub use link::{Answers, LinkError, PeerLink, Presence, Transport};
pub use manage::ManageError;
pub use membership::{Member, Membership};
pub use propose::{NotAccepted, ProposeError};
pub use raft::conformance;
pub use read::{Consistency, ReadError};
pub use replica::{Replica, ReplicaOptions, StartError};
pub use status::{AppliedMark, Counters, HashMismatch, Role, Status};
