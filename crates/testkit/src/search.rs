//! The search for an order that explains a history: that of `todc-utils` (Wing and Gong, with Lowe's
//! memory of what was tried), and a bound on how long it may take, which the crate does not have.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::hash::Hash;
use std::marker::PhantomData;
use std::time::Instant;

use todc_utils::linearizability::WGLChecker;
use todc_utils::linearizability::history::{Action, History};
use todc_utils::specifications::Specification;

/// What a search found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Linearizable,
    NotLinearizable,
    /// The search did not end in time.
    Unknown,
}

/// An object as it would be if one operation came after the other.
pub(crate) trait Sequential: Clone + Debug + Default + Eq + Hash {
    type Operation: Clone + Debug + Timed;

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

thread_local! {
    /// When the search of this thread gives up.
    static DEADLINE: Cell<Option<Instant>> = const { Cell::new(None) };
}

fn is_late() -> bool {
    DEADLINE
        .get()
        .is_some_and(|deadline| Instant::now() >= deadline)
}

/// One object, as the checker wants it.
struct One<S>(PhantomData<S>);

impl<S: Sequential> Specification for One<S> {
    type State = S;
    type Operation = S::Operation;

    fn init() -> S {
        S::default()
    }

    fn apply(operation: &S::Operation, state: &S) -> (bool, S) {
        // Once nothing is possible any more, the checker soon gives up.
        let after = (!is_late()).then(|| state.after(operation)).flatten();
        let possible = after.is_some();
        (possible, after.unwrap_or_else(|| state.clone()))
    }
}

/// Looks for an order of operations on one object.
pub(crate) fn search<S: Sequential>(operations: &[S::Operation], deadline: Instant) -> Verdict {
    if operations.is_empty() {
        return Verdict::Linearizable;
    }
    DEADLINE.set(Some(deadline));
    let found = WGLChecker::<One<S>>::is_linearizable(history(operations));
    let late = is_late();
    DEADLINE.set(None);
    match (found, late) {
        (true, _) => Verdict::Linearizable,
        (false, true) => Verdict::Unknown,
        (false, false) => Verdict::NotLinearizable,
    }
}

/// Calls and answers in the order of time. What was not answered may take effect until the very end,
/// where it may as well never have.
fn history<O: Clone + Timed>(operations: &[O]) -> History<O> {
    let mut events = BTreeMap::new();
    for (number, operation) in operations.iter().enumerate() {
        let (call, answer) = (operation.invoked(), operation.returned());
        // Of equal times the call comes first, so that nothing is ordered that may not be. `None` is
        // the smallest, hence the flag before it.
        events.insert(
            (false, Some(call), 0, number),
            Action::Call(operation.clone()),
        );
        events.insert(
            (answer.is_none(), answer, 1, number),
            Action::Response(operation.clone()),
        );
    }
    let events = events.into_iter();
    History::from_actions(
        events
            .map(|((.., number), action)| (number, action))
            .collect(),
    )
}
