//! The one-way door of a store that can no longer trust its disk.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// Called once when a store fails, with a one-line message. The process must stop: a failed fsync
/// that is tried again reports success for pages that are lost.
pub type OnFailure = Arc<dyn Fn(&str) + Send + Sync>;

/// Remembers the first failure; everything after it is refused.
pub(crate) struct Failure {
    what: OnceLock<String>,
    on_failure: OnFailure,
}

impl Failure {
    pub(crate) fn new(on_failure: OnFailure) -> Self {
        Self {
            what: OnceLock::new(),
            on_failure,
        }
    }

    /// Fails the store, for good, and gives the error to answer with.
    pub(crate) fn fail(&self, what: impl Into<String>) -> io::Error {
        let mut first = false;
        let what = self.what.get_or_init(|| {
            first = true;
            what.into()
        });
        if first {
            (self.on_failure)(what);
        }
        Self::refusal(what)
    }

    /// An error when the store has failed.
    pub(crate) fn check(&self) -> io::Result<()> {
        match self.what.get() {
            None => Ok(()),
            Some(what) => Err(Self::refusal(what)),
        }
    }

    pub(crate) fn found(&self) -> Option<String> {
        self.what.get().cloned()
    }

    fn refusal(what: &str) -> io::Error {
        io::Error::other(format!(
            "the store has failed and accepts nothing more: {what}"
        ))
    }
}

/// Locks a mutex whose holders never leave its content half-changed, so that another thread's
/// panic is no reason to panic here.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
