//! Identifiers and markers.

use tally_model::{ClusterId, Marker, SetBy, StorageState};

use super::DecodeError;
use crate::{storage, v1};

/// Exactly 16 bytes as a number, big endian.
pub fn bytes_16(what: &'static str, bytes: &[u8]) -> Result<u128, DecodeError> {
    let bytes: [u8; 16] = bytes.try_into().map_err(|_| {
        DecodeError::new(
            what,
            format!("found {} bytes, expected exactly 16", bytes.len()),
        )
    })?;
    Ok(u128::from_be_bytes(bytes))
}

/// 16 bytes, or none at all.
pub(crate) fn cluster_id(bytes: &[u8]) -> Result<Option<ClusterId>, DecodeError> {
    if bytes.is_empty() {
        Ok(None)
    } else {
        bytes_16("cluster_id", bytes).map(ClusterId).map(Some)
    }
}

pub(crate) fn hash_32(what: &'static str, bytes: &[u8]) -> Result<[u8; 32], DecodeError> {
    bytes.try_into().map_err(|_| {
        DecodeError::new(
            what,
            format!("found {} bytes, expected exactly 32", bytes.len()),
        )
    })
}

/// The same conversions for the two packages that have a marker and a storage state of their own.
macro_rules! shared {
    ($package:ident) => {
        impl From<Marker> for $package::Marker {
            fn from(marker: Marker) -> Self {
                Self {
                    bits: marker.bits.to_be_bytes().to_vec(),
                    created_unix_ms: marker.created_unix_ms,
                }
            }
        }

        impl TryFrom<$package::Marker> for Marker {
            type Error = DecodeError;

            fn try_from(marker: $package::Marker) -> Result<Self, DecodeError> {
                let bits = bytes_16("marker", &marker.bits)?;
                Ok(Self {
                    bits,
                    created_unix_ms: marker.created_unix_ms,
                })
            }
        }

        impl From<StorageState> for $package::StorageState {
            fn from(state: StorageState) -> Self {
                match state {
                    StorageState::Provisioning => Self::Provisioning,
                    StorageState::ReadWrite => Self::ReadWrite,
                    StorageState::ReadOnly => Self::ReadOnly,
                    StorageState::DataLoss => Self::DataLoss,
                    StorageState::Gone => Self::Gone,
                    StorageState::Disabled => Self::Disabled,
                    StorageState::Removed => Self::Removed,
                }
            }
        }

        impl $package::StorageState {
            /// The model's state for a number from the wire; `None` for `UNSPECIFIED`.
            pub fn decode_optional(number: i32) -> Result<Option<StorageState>, DecodeError> {
                let state = Self::try_from(number).map_err(|_| {
                    DecodeError::new(
                        "storage state",
                        format!("found the number {number}, which is none"),
                    )
                })?;
                Ok(match state {
                    Self::Unspecified => None,
                    Self::Provisioning => Some(StorageState::Provisioning),
                    Self::ReadWrite => Some(StorageState::ReadWrite),
                    Self::ReadOnly => Some(StorageState::ReadOnly),
                    Self::DataLoss => Some(StorageState::DataLoss),
                    Self::Gone => Some(StorageState::Gone),
                    Self::Disabled => Some(StorageState::Disabled),
                    Self::Removed => Some(StorageState::Removed),
                })
            }

            /// As `decode_optional`, but `UNSPECIFIED` is an error.
            pub fn decode_required(number: i32) -> Result<StorageState, DecodeError> {
                Self::decode_optional(number)?.ok_or_else(|| DecodeError::missing("storage state"))
            }
        }
    };
}

shared!(storage);
shared!(v1);

impl From<SetBy> for storage::SetBy {
    fn from(by: SetBy) -> Self {
        match by {
            SetBy::Node => Self::Node,
            SetBy::Operator => Self::Operator,
        }
    }
}

pub(crate) fn set_by(number: i32) -> Result<SetBy, DecodeError> {
    match storage::SetBy::try_from(number) {
        Ok(storage::SetBy::Node) => Ok(SetBy::Node),
        Ok(storage::SetBy::Operator) => Ok(SetBy::Operator),
        Ok(storage::SetBy::Unspecified) | Err(_) => Err(DecodeError::new(
            "set_by",
            format!("found the number {number}, expected 1 or 2"),
        )),
    }
}
