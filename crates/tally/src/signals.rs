//! Ctrl-C and SIGTERM: the two ways in which a person or a service manager ends a process.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag::register_conditional_shutdown;
use tally_model::explanation::codes;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::exit::{Exit, Failure};

/// Listens from its making on, so that no signal is missed.
#[derive(Debug)]
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    /// Once true, the next signal ends the process in its handler, whatever hangs.
    asked: Arc<AtomicBool>,
}

impl Signals {
    /// Must be called in a runtime.
    pub(crate) fn listen() -> Result<Self, Failure> {
        let failed =
            |error| Failure::fault(codes::HALTED, format!("cannot listen for signals: {error}"));
        let asked = Arc::new(AtomicBool::new(false));
        for number in [SIGINT, SIGTERM] {
            let code = i32::from(Exit::Broken.code());
            register_conditional_shutdown(number, code, asked.clone()).map_err(failed)?;
        }
        Ok(Self {
            interrupt: signal(SignalKind::interrupt()).map_err(failed)?,
            terminate: signal(SignalKind::terminate()).map_err(failed)?,
            asked,
        })
    }

    /// Resolves with the first signal. From then on the next one ends the process at once.
    pub(crate) async fn asked_to_end(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
        self.asked.store(true, Ordering::SeqCst);
    }
}
