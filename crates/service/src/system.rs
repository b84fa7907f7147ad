//! The clock and the randomness of a real machine.

use std::time::{SystemTime, UNIX_EPOCH};

use tally_consensus::{Clock, Entropy};
use tally_model::Marker;

/// The machine's own.
pub(crate) struct System;

impl Clock for System {
    fn unix_ms(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        // A clock before 1970 is as good as none; apply keeps time from running backwards.
        let since = since.unwrap_or_default();
        since.as_millis().try_into().unwrap_or(u64::MAX)
    }
}

impl Entropy for System {
    fn next_u64(&self) -> u64 {
        rand::random()
    }
}

/// A marker for requests of this process itself.
pub(crate) fn fresh_marker() -> Marker {
    Marker {
        bits: rand::random(),
        created_unix_ms: System.unix_ms(),
    }
}
