//! How much there is of something, as long as it is.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Something that there may be only so much of in a member. Clones count together.
#[derive(Clone, Debug, Default)]
pub(crate) struct Amount(Arc<AtomicUsize>);

impl Amount {
    pub(super) fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn add(&self, more: usize) -> Share {
        self.0.fetch_add(more, Ordering::Relaxed);
        Share {
            of: self.clone(),
            amount: more,
        }
    }

    pub(super) fn add_up_to(&self, more: usize, max: usize) -> Option<Share> {
        let share = self.add(more);
        (self.get() <= max).then_some(share)
    }
}

/// A part of an amount, given back when this is dropped.
#[derive(Debug)]
pub(crate) struct Share {
    of: Amount,
    amount: usize,
}

impl Drop for Share {
    fn drop(&mut self) {
        self.of.0.fetch_sub(self.amount, Ordering::Relaxed);
    }
}
