//! `lease_key/<id>/<key>`: a key that ends with a lease. Written by the put that says so; removed when the
//! key is put under another lease or none, or deleted.
//!
//! layout: [TAG][id, as in `lease`][key] -> []

use bytes::Bytes;
use tally_model::LeaseId;

use super::lease::id_bytes;

pub(crate) const TAG: u8 = 17;

/// Begins the rows of a lease.
pub(crate) fn prefix(id: LeaseId) -> Vec<u8> {
    [&[TAG], &id_bytes(id)[..]].concat()
}

pub(crate) fn key(id: LeaseId, key: &[u8]) -> Vec<u8> {
    [&prefix(id), key].concat()
}

pub(crate) fn decode_key(row: &[u8]) -> Result<Bytes, String> {
    row.get(prefix(LeaseId(0)).len()..)
        .map(Bytes::copy_from_slice)
        .ok_or_else(|| format!("the key {row:02x?} is too short for a lease's key"))
}
