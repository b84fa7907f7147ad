//! `applied`: where the state stands in the log, and the membership. Written with every
//! batch of entries, together with their effects; lives for ever.
//!
//! layout: [TAG] -> tally.storage.v1.AppliedState

pub(crate) const TAG: u8 = 1;

pub(crate) const KEY: [u8; 1] = [TAG];
