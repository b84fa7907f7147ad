//! `lease_end/<moment>/<id>`: leases in the order in which they end. Written and removed with the lease.
//!
//! layout: [TAG][end by the clock for leases, milliseconds, u64 big-endian][id, as in `lease`] -> []

use tally_model::{Lease, LeaseId};

use super::lease::{decode_id, id_bytes};

pub(crate) const TAG: u8 = 16;

pub(crate) fn key(lease: &Lease) -> [u8; 17] {
    let mut key = [TAG; 17];
    key[1..9].copy_from_slice(&lease.ends_ms.to_be_bytes());
    key[9..].copy_from_slice(&id_bytes(lease.id));
    key
}

/// Where the rows of later moments begin.
pub(crate) fn after(moment_ms: u64) -> Vec<u8> {
    let moment = moment_ms.to_be_bytes();
    super::after_prefix(&[&[TAG], &moment[..]].concat())
}

pub(crate) fn decode_key(key: &[u8]) -> Result<LeaseId, String> {
    key.last_chunk::<8>()
        .map(|id| decode_id(*id))
        .ok_or_else(|| format!("the key {key:02x?} is too short for a lease"))
}
