//! A small real log server: appends and reads records, and is a user of the Tally cluster like any
//! other. It accepts appends in `read-write` only, follows its own state, and makes itself `read-only`
//! when its disk is full.
//!
//! Knows the cluster through [`tally_client`] alone.
#![warn(missing_docs)]

mod disk;
mod error;
mod follow;
mod options;
mod records;
mod server;
mod service;
mod standing;
mod writer;

pub use error::StartError;
pub use options::{
    FREE_BYTES_MIN_DEFAULT, FREE_SPACE_CHECK_EVERY_DEFAULT, FreeBytes, LogServerOptions,
};
pub use records::{DATA_BYTES_MAX, READ_BYTES_MAX, READ_RECORDS_MAX};
pub use server::{LogServer, Running, Start};
pub use standing::Ended;
pub use tally_client::log_server::{Identity, Started};
