//! `state_hash`: hash of all rows of the replicated tables, whatever their order: the wrapping sum
//! of XXH3-128 over each row's key and value. Written with every batch that changed a row; lives
//! for ever.
//!
//! layout: [TAG] -> [hash, u128 big-endian]

use xxhash_rust::xxh3::Xxh3Default;

pub(crate) const TAG: u8 = 2;

pub(crate) const KEY: [u8; 1] = [TAG];

pub(crate) fn encode(hash: u128) -> [u8; 16] {
    hash.to_be_bytes()
}

pub(crate) fn decode(value: &[u8]) -> Result<u128, String> {
    let bytes = value
        .try_into()
        .map_err(|_| format!("found {} bytes, expected 16", value.len()))?;
    Ok(u128::from_be_bytes(bytes))
}

/// What one row adds to the hash.
pub(crate) fn row(key: &[u8], value: &[u8]) -> u128 {
    let mut hasher = Xxh3Default::new();
    hasher.update(key);
    hasher.update(value);
    hasher.digest128()
}
