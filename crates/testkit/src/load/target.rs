//! Nodes that operators may change, shared among the writers of one load.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rand::seq::IndexedRandom;

/// The latest nodes; older ones are left alone, so that the history of each stays short.
const TARGETS_MAX: usize = 6;

/// See the module. Clones share the list.
#[derive(Clone, Debug, Default)]
pub(super) struct Targets(Arc<Mutex<VecDeque<String>>>);

impl Targets {
    /// Adds a node, if it is not there yet.
    pub(super) fn publish(&self, name: &str) {
        let mut names = self.lock();
        if names.iter().any(|known| known == name) {
            return;
        }
        if names.len() == TARGETS_MAX {
            names.pop_front();
        }
        names.push_back(name.to_owned());
    }

    /// Any of them; `None` when there is none yet.
    pub(super) fn pick(&self) -> Option<String> {
        let mut names = self.lock();
        names.make_contiguous().choose(&mut rand::rng()).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
