//! What a log server embeds to use Tally, and what the `tally` command is built on.
//!
//! A command goes out under a tag and, when its answer is lost, again under the same tag, to any
//! member, until the deadline; the cluster recognises the repeat. What may have happened is never
//! reported as failed: past the deadline the error is [`Error::Unknown`] with the tag, and
//! [`Client::resume`] settles it. Refusals are answers, not errors. Nothing here panics.
//!
//! Keys of the etcd API are in [`keys`]: there what the cluster refuses is an error, as clients of etcd
//! expect.
//!
//! Knows the public protocols and two files on the log server's disk, its marker and its lock; knows
//! nothing of how the cluster decides.
//!
//! # A log server
//!
//! ```no_run
#![doc = include_str!("../examples/log_server.rs")]
//! ```
#![warn(missing_docs)]

mod answer;
mod builder;
mod call;
mod client;
mod cluster;
mod command;
mod connection;
mod directory_lock;
mod error;
mod follow;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
pub mod keys;
pub mod log_server;
pub mod marker_file;
mod read;
mod retry;
mod session;
mod token;
mod watch;

pub use answer::{Answer, Outcome, Refused};
pub use builder::{ATTEMPT_MAX_DEFAULT, ClientBuilder, DEADLINE_DEFAULT, fresh_marker};
pub use client::Client;
pub use cluster::MemberStatus;
pub use command::{Activate, By, Register, SetState};
pub use error::Error;
pub use marker_file::{MarkerFile, MarkerFileError};
pub use read::{Consistency, Which};
pub use tally_model::{
    Alarm, ClusterId, Effect, Incarnation, KeyAnswer, Marker, NodeId, Revision, StorageState,
};
/// The public messages, as reads return them.
pub use tally_proto::v1;
pub use token::{InvalidToken, TagToken};
pub use watch::{Watch, WatchItem};
