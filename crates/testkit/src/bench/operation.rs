//! What clients do again and again, and a client that does it.

use std::fmt;

use anyhow::Result;
use clap::ValueEnum;
use tonic::transport::Channel;

use super::Writer;
use super::key_caller::{KeyCall, KeyCaller};

/// Keys of a range.
const RANGE: usize = 1_000;

/// What every client of a load does. Keys have values of 256 bytes and are drawn from 4,000.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Operation {
    /// A log server's change of its own state, under a tag.
    Command,
    /// Put of a key, without a tag.
    Put,
    /// Put of a key that nobody else changes, if it was not changed since; without a tag.
    Txn,
    /// Linearizable read of a key.
    Get,
    /// Read of a key, as far as the asked member has applied.
    GetSerializable,
    /// Linearizable read of 1,000 keys.
    Range,
    /// As `Put`, first without watchers, then while they are on the first client's member; ten are told of
    /// each key.
    Watch,
}

impl Operation {
    /// Appends to the log.
    pub fn writes(self) -> bool {
        match self {
            Self::Command | Self::Put | Self::Txn | Self::Watch => true,
            Self::Get | Self::GetSerializable | Self::Range => false,
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Command => "command",
            Self::Put => "put",
            Self::Txn => "txn",
            Self::Get => "get",
            Self::GetSerializable => "get-serializable",
            Self::Range => "range",
            Self::Watch => "watch",
        })
    }
}

/// One client of a load.
#[derive(Debug)]
pub(super) enum Client {
    Command(Writer),
    Keys(KeyCaller),
}

impl Client {
    /// Gets the client with this number ready; what it does goes over `channel`.
    pub(super) async fn provision(
        operation: Operation,
        number: usize,
        address: &str,
        channel: Channel,
    ) -> Result<Self> {
        let read = |keys, serializable| KeyCall::Read { keys, serializable };
        let what = match operation {
            Operation::Command => {
                let name = format!("bench-{number}");
                let writer = Writer::provision(address, channel, &name).await?;
                return Ok(Self::Command(writer));
            }
            Operation::Put | Operation::Watch => KeyCall::Put,
            Operation::Txn => KeyCall::Swap,
            Operation::Get => read(1, false),
            Operation::GetSerializable => read(1, true),
            Operation::Range => read(RANGE, false),
        };
        Ok(Self::Keys(KeyCaller::new(what, number, channel)))
    }

    /// Does it once, until it is answered as it should be, and returns how often a request had to
    /// be sent again.
    pub(super) async fn once(&mut self) -> Result<u64> {
        let repeats = match self {
            Self::Command(writer) => {
                writer.write().await?;
                &mut writer.repeats
            }
            Self::Keys(caller) => {
                caller.call().await?;
                &mut caller.repeats
            }
        };
        Ok(std::mem::take(repeats))
    }
}
