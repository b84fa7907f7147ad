//! Ctrl-C and SIGTERM: the two ways in which a person or a service manager ends a process.

use tally_model::explanation::codes;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::exit::Failure;

/// Listens from its making on, so that no signal is missed.
#[derive(Debug)]
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Must be called in a runtime.
    pub(crate) fn listen() -> Result<Self, Failure> {
        let listen = |kind| {
            signal(kind).map_err(|error| {
                Failure::fault(codes::HALTED, format!("cannot listen for signals: {error}"))
            })
        };
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
        })
    }

    /// Resolves with the first signal.
    pub(crate) async fn asked_to_end(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
