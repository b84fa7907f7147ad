//! The search for an order that explains a history: that of `porcupine-rs` (Wing and Gong, with Lowe's
//! memory of what was tried), in a thread of its own that stops when its time is over.

use std::fmt::Debug;
use std::hash::Hash;
use std::marker::PhantomData;
use std::time::{Duration, Instant};

use porcupine::{CheckResult, Model};

/// What a search found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Linearizable,
    NotLinearizable,
    /// The search did not end in time.
    Unknown,
}

/// An object as it would be if one operation came after the other.
pub(crate) trait Sequential: Clone + Debug + Default + Eq + Hash + Send + Sync {
    type Operation: Clone + Debug + Send + Sync + Timed;

    /// The object after an operation that was answered as it was; `None` when it cannot have been
    /// answered so here.
    fn after(&self, operation: &Self::Operation) -> Option<Self>;
}

/// When an operation was under way.
pub(crate) trait Timed {
    fn invoked(&self) -> Instant;
    /// `None` when no answer came.
    fn returned(&self) -> Option<Instant>;
}

/// One object, as the checker wants it.
#[derive(Clone)]
struct One<S>(PhantomData<S>);

impl<S: Sequential> Model for One<S> {
    type State = S;
    type Op = S::Operation;
    type Metadata = ();

    fn init() -> S {
        S::default()
    }

    fn step(state: &S, operation: &S::Operation) -> (bool, S) {
        let after = state.after(operation);
        (after.is_some(), after.unwrap_or_else(|| state.clone()))
    }
}

/// Looks for an order of operations on one object.
pub(crate) fn search<S: Sequential>(operations: &[S::Operation], deadline: Instant) -> Verdict {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Verdict::Unknown;
    }
    match porcupine::check_operations_timeout(&history::<S>(operations), left) {
        CheckResult::Ok => Verdict::Linearizable,
        CheckResult::Illegal => Verdict::NotLinearizable,
        CheckResult::Unknown => Verdict::Unknown,
    }
}

/// Times are nanoseconds since the first call; of equal ones the checker takes calls first, so that
/// nothing is ordered that may not be. What was not answered may take effect until the very end, where
/// it may as well never have.
fn history<S: Sequential>(operations: &[S::Operation]) -> Vec<porcupine::Operation<One<S>>> {
    let begin = operations.iter().map(Timed::invoked).min();
    let since = |at: Instant| {
        let passed = begin.map_or(Duration::ZERO, |begin| at.duration_since(begin));
        i64::try_from(passed.as_nanos()).unwrap_or(i64::MAX)
    };
    operations
        .iter()
        .map(|operation| porcupine::Operation {
            client_id: None,
            call_time: since(operation.invoked()),
            return_time: operation.returned().map_or(i64::MAX, since),
            op: operation.clone(),
            metadata: None,
        })
        .collect()
}
