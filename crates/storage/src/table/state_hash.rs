//! `state_hash`: hash of all rows of the replicated tables, whatever their order: the wrapping sum
//! of XXH3-128 over each row's key and value. Written with every batch that changed a row; lives
//! for ever.
//!
//! layout: [TAG] -> [hash, u128 big-endian]

use xxhash_rust::xxh3::{Xxh3Default, xxh3_128};

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

/// Rows up to this size are hashed in one go, for which they must lie in one piece. Above it XXH3 works
/// in another way, for which the hasher is no slower.
const ONE_PIECE_BYTES_MAX: usize = 240;

/// What one row adds to the hash.
pub(crate) fn row(key: &[u8], value: &[u8]) -> u128 {
    let mut piece = [0; ONE_PIECE_BYTES_MAX];
    let end = key.len() + value.len();
    if let Some(piece) = piece.get_mut(..end) {
        let (first, second) = piece.split_at_mut(key.len());
        first.copy_from_slice(key);
        second.copy_from_slice(value);
        return xxh3_128(piece);
    }
    let mut hasher = Xxh3Default::new();
    hasher.update(key);
    hasher.update(value);
    hasher.digest128()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_hashes_to_the_same_whatever_its_size() {
        let bytes: Vec<u8> = (0..=255).chain(0..=255).collect();
        for size in [0, 1, 16, 17, 128, 239, 240, 241, 242, 512] {
            for split in [0, 1, 9, 17] {
                let (key, value) = bytes[..size].split_at(split.min(size));
                let mut hasher = Xxh3Default::new();
                hasher.update(key);
                hasher.update(value);
                assert_eq!(row(key, value), hasher.digest128(), "{size} at {split}");
            }
        }
    }
}
