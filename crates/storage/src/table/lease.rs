//! `lease/<id>`: a lease that is held. Written when it is granted and renewed; removed when it ends.
//!
//! layout: [TAG][id] -> tally.storage.v1.Lease
//!
//! An id is an i64, big-endian, its first bit turned over so that ids sort as numbers.

use tally_model::LeaseId;
pub(crate) use tally_proto::storage::Lease as Stored;

pub(crate) const TAG: u8 = 15;

/// An id as part of a key.
pub(crate) fn id_bytes(id: LeaseId) -> [u8; 8] {
    (id.0 ^ i64::MIN).to_be_bytes()
}

/// See [`id_bytes`].
pub(crate) fn decode_id(bytes: [u8; 8]) -> LeaseId {
    LeaseId(i64::from_be_bytes(bytes) ^ i64::MIN)
}

pub(crate) fn key(id: LeaseId) -> [u8; 9] {
    let mut key = [TAG; 9];
    key[1..].copy_from_slice(&id_bytes(id));
    key
}
