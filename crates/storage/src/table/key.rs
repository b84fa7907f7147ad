//! `key/<key>`: a key as it is now. Written by puts, removed when the key is deleted.
//!
//! layout: [TAG][key] -> mvccpb.KeyValue, its key left out

use bytes::Bytes;
use prost::Message;
use tally_model::KeyValue;
use tally_proto::mvcc::KeyValue as Stored;

pub(crate) const TAG: u8 = 12;

pub(crate) fn key(key: &[u8]) -> Vec<u8> {
    [&[TAG], key].concat()
}

/// The key of a row.
pub(crate) fn name(row: &[u8]) -> &[u8] {
    row.get(1..).unwrap_or_default()
}

pub(crate) fn encode(found: &KeyValue) -> Vec<u8> {
    let stored = Stored {
        key: Bytes::new(),
        ..found.into()
    };
    stored.encode_to_vec()
}

pub(crate) fn decode(row: &[u8], value: &[u8]) -> Result<KeyValue, String> {
    let stored = Stored::decode(value).map_err(|error| error.to_string())?;
    let stored = Stored {
        key: Bytes::copy_from_slice(name(row)),
        ..stored
    };
    KeyValue::try_from(stored).map_err(|error| error.to_string())
}
