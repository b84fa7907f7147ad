//! Says in the log how far something has come that reads a lot, so that a long start is no riddle.

use std::time::{Duration, Instant};

/// Nothing is said before this time, and again after each such time.
const SAID_EVERY: Duration = Duration::from_secs(5);

/// Bytes between two looks at the clock.
const LOOK_EVERY_BYTES: u64 = 1 << 20;

/// What is done, and how much of it was.
pub(crate) struct Progress {
    what: &'static str,
    bytes: u64,
    looked_at: u64,
    begun: Instant,
    said: Instant,
}

impl Progress {
    pub(crate) fn of(what: &'static str) -> Self {
        let now = Instant::now();
        Self {
            what,
            bytes: 0,
            looked_at: 0,
            begun: now,
            said: now,
        }
    }

    pub(crate) fn add(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
        if self.bytes - self.looked_at < LOOK_EVERY_BYTES {
            return;
        }
        self.looked_at = self.bytes;
        if self.said.elapsed() >= SAID_EVERY {
            self.said = Instant::now();
            let mib = self.bytes >> 20;
            tracing::info!(
                mib,
                seconds = self.begun.elapsed().as_secs(),
                "{}",
                self.what
            );
        }
    }
}
