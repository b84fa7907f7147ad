//! What a replica is given from outside, so that a whole member can run in a simulation.

use std::sync::Arc;

use tally_storage::{LogStore, StateStore};

use crate::link::Transport;

/// Wall-clock time for the stamps of entries.
pub trait Clock: Send + Sync + 'static {
    /// Milliseconds since 1970. May jump; apply never lets time run backwards.
    fn unix_ms(&self) -> u64;
}

/// Randomness for election timeouts.
pub trait Entropy: Send + Sync + 'static {
    /// 64 random bits.
    fn next_u64(&self) -> u64;
}

/// What a replica decides with but does not own.
#[derive(Clone)]
pub struct Deps {
    pub clock: Arc<dyn Clock>,
    pub entropy: Arc<dyn Entropy>,
    pub transport: Arc<dyn Transport>,
}

/// Where a replica keeps what it must not forget.
#[derive(Clone)]
pub struct Stores {
    pub log: LogStore,
    pub state: StateStore,
}
