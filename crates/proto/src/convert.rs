//! Conversion between messages and the model. What comes from a disk or a socket is checked here,
//! once; inside, the model's types are trusted.

mod command;
mod identifier;
mod keys;
mod outcome;
mod public;
mod refusal;
mod request;
mod state;

pub use command::{decode_request, digest, encode_request};
pub use identifier::bytes_16;
pub use keys::{MalformedKeys, TXN_DEPTH_MAX, txn};

/// Why bytes are not the message that they were meant to be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {problem}")]
pub struct DecodeError {
    /// The field or message, for example `tag.sequence`.
    pub what: &'static str,
    /// What was found and what is allowed.
    pub problem: String,
}

impl DecodeError {
    pub(crate) fn new(what: &'static str, problem: impl Into<String>) -> Self {
        Self {
            what,
            problem: problem.into(),
        }
    }

    pub(crate) fn missing(what: &'static str) -> Self {
        Self::new(what, "found nothing, expected a value")
    }
}

impl From<tally_model::InvalidIdentifier> for DecodeError {
    fn from(invalid: tally_model::InvalidIdentifier) -> Self {
        Self {
            what: invalid.what,
            problem: invalid.problem,
        }
    }
}

/// A message field that must be there.
pub(crate) fn required<T>(what: &'static str, field: Option<T>) -> Result<T, DecodeError> {
    field.ok_or_else(|| DecodeError::missing(what))
}

/// The conversions take references; these take values, for callers that have one to give.
macro_rules! by_value {
    ($($model:ident => $($package:ident)::+),* $(,)?) => {$(
        impl From<tally_model::$model> for $($package)::+ {
            fn from(value: tally_model::$model) -> Self {
                Self::from(&value)
            }
        }
    )*};
}

by_value! {
    Request => crate::storage::Request,
    Tagged => crate::storage::Tagged,
    Command => crate::storage::Command,
    Settings => crate::storage::Settings,
    Answer => crate::storage::Answer,
    Outcome => crate::storage::Outcome,
    Effect => crate::storage::Effect,
    Refusal => crate::storage::Refusal,
    StoredOutcome => crate::storage::StoredOutcome,
    Node => crate::storage::Node,
    Claim => crate::storage::Claim,
    Session => crate::storage::Session,
    HistoryEntry => crate::storage::HistoryEntry,
    Globals => crate::storage::Globals,
    Answer => crate::v1::Answer,
    Node => crate::v1::Node,
    Claim => crate::v1::Claim,
    HistoryEntry => crate::v1::HistoryEntry,
}
