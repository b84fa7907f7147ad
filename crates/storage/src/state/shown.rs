//! What every reader looks at, so that it need not be read and decoded for each of them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};

use tally_model::Globals;

/// The globals as the last batch left them, for views of that state and of no other one.
#[derive(Default)]
pub(super) struct ShownGlobals {
    /// Counts the beginnings and the ends of changes of the state: odd during one.
    changes: AtomicU64,
    globals: RwLock<Option<Globals>>,
}

/// What [`ShownGlobals`] were before a view was opened.
pub(super) struct Seen {
    changes: u64,
    globals: Option<Globals>,
}

impl ShownGlobals {
    /// To be asked for before a view is opened.
    pub(super) fn before(&self) -> Seen {
        let changes = self.changes.load(Ordering::SeqCst);
        let globals = self.globals.read().unwrap_or_else(PoisonError::into_inner);
        Seen {
            changes,
            globals: globals.clone(),
        }
    }

    /// The globals of a view that was opened since; `None` if the state may have changed meanwhile.
    pub(super) fn after(&self, seen: Seen) -> Option<Globals> {
        let stood = seen.changes.is_multiple_of(2);
        let stands = stood && self.changes.load(Ordering::SeqCst) == seen.changes;
        seen.globals.filter(|_| stands)
    }

    /// Runs what changes the state, one at a time, and notes the globals that it gives: `None` when they
    /// are not known. After a change that failed none are given any more.
    pub(super) fn change<T, E>(
        &self,
        change: impl FnOnce() -> Result<(T, Option<Globals>), E>,
    ) -> Result<T, E> {
        self.changes.fetch_add(1, Ordering::SeqCst);
        let (changed, globals) = change()?;
        *self.globals.write().unwrap_or_else(PoisonError::into_inner) = globals;
        self.changes.fetch_add(1, Ordering::SeqCst);
        Ok(changed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn globals(sessions: u64) -> Globals {
        Globals {
            sessions,
            ..Globals::default()
        }
    }

    fn change(shown: &ShownGlobals, globals: Option<Globals>) {
        let changed: Result<(), ()> = shown.change(|| Ok(((), globals)));
        assert_eq!(changed, Ok(()));
    }

    #[test]
    fn a_view_has_the_globals_of_its_state() {
        let shown = ShownGlobals::default();
        assert_eq!(shown.after(shown.before()), None);
        change(&shown, Some(globals(3)));
        assert_eq!(shown.after(shown.before()), Some(globals(3)));
        change(&shown, None);
        assert_eq!(shown.after(shown.before()), None);
    }

    #[test]
    fn a_view_that_is_opened_during_a_change_has_none() {
        let shown = ShownGlobals::default();
        change(&shown, Some(globals(3)));
        let before = shown.before();
        let during: Result<(), ()> = shown.change(|| {
            assert_eq!(shown.after(shown.before()), None);
            Ok(((), Some(globals(4))))
        });
        assert_eq!(during, Ok(()));
        assert_eq!(shown.after(before), None);
        assert_eq!(shown.after(shown.before()), Some(globals(4)));
    }

    #[test]
    fn after_a_change_that_failed_no_view_has_any() {
        let shown = ShownGlobals::default();
        change(&shown, Some(globals(3)));
        let failed: Result<(), _> = shown.change(|| Err("broken"));
        assert_eq!(failed, Err("broken"));
        assert_eq!(shown.after(shown.before()), None);
    }
}
