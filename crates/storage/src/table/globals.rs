//! `globals`: counters and facts of which there is one each. Written by nearly every command; lives
//! for ever.
//!
//! layout: [TAG] -> tally.storage.v1.Globals

pub(crate) use tally_proto::storage::Globals as Stored;

pub(crate) const TAG: u8 = 3;

pub(crate) const KEY: [u8; 1] = [TAG];
