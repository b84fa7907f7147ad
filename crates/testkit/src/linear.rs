//! Is there one order of everything that was recorded, in which each command and each read comes
//! between its call and its answer and finds what it was answered with? Each node is checked by itself,
//! which is enough: a history is linearizable when its part about every single object is (Herlihy and
//! Wing, 1990, locality).
//!
//! The search is that of `todc-utils` (Wing and Gong, with Lowe's memory of what was tried).

mod model;
mod operation;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use todc_utils::linearizability::WGLChecker;
use todc_utils::linearizability::history::{Action, History};
use todc_utils::specifications::Specification;

use crate::load::Recorded;
use model::NodeState;
use operation::{Operation, What};

/// For the nodes of one record together; an ordinary record takes a fraction of a second.
const SEARCHED_WITHIN: Duration = Duration::from_secs(60);

/// What a search found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Linearizable,
    NotLinearizable,
    /// The search did not end in time.
    Unknown,
}

/// What was found to be linearizable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Searched {
    pub nodes: usize,
    /// Commands that were answered.
    pub commands: usize,
    /// Reads; only those that were answered are recorded.
    pub reads: usize,
    /// Commands without an answer, which may have taken effect or not.
    pub unanswered: usize,
}

impl Searched {
    /// The same, if it was enough to say something: nothing at all is linearizable too.
    ///
    /// # Errors
    /// When fewer commands or reads were answered.
    pub fn at_least(self, commands: usize, reads: usize) -> Result<Self> {
        ensure!(
            self.commands >= commands && self.reads >= reads,
            "{self}, which is too little: expected {commands} commands and {reads} reads"
        );
        Ok(self)
    }

    fn count(&mut self, operation: &Operation) {
        *match (&operation.what, operation.returned) {
            (What::Read, _) => &mut self.reads,
            (_, Some(_)) => &mut self.commands,
            (_, None) => &mut self.unanswered,
        } += 1;
    }
}

impl fmt::Display for Searched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} answered commands, {} reads and {} commands without an answer on {} nodes are linearizable",
            self.commands, self.reads, self.unanswered, self.nodes
        )
    }
}

impl Recorded {
    /// Looks for an order that explains everything.
    ///
    /// # Errors
    /// When there is none for a node, or when none was found in a minute: not to know is a failure.
    pub fn linearizable(&self) -> Result<Searched> {
        self.linearizable_within(SEARCHED_WITHIN)
    }

    fn linearizable_within(&self, within: Duration) -> Result<Searched> {
        let deadline = Instant::now() + within;
        let mut searched = Searched::default();
        for (name, operations) in operation::by_node(self)? {
            searched.nodes += 1;
            for operation in &operations {
                searched.count(operation);
            }
            match search(&operations, deadline) {
                Verdict::Linearizable => {}
                Verdict::NotLinearizable => bail!(
                    "what was seen of {name} is not linearizable: {}",
                    told(&operations)
                ),
                Verdict::Unknown => bail!(
                    "unknown whether what was seen of {name} is linearizable: no order of its {} operations was found in {within:?}",
                    operations.len()
                ),
            }
        }
        Ok(searched)
    }
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

/// One node, as the checker wants it.
struct OneNode;

impl Specification for OneNode {
    type State = NodeState;
    type Operation = Operation;

    fn init() -> NodeState {
        NodeState::default()
    }

    fn apply(operation: &Operation, state: &NodeState) -> (bool, NodeState) {
        // The checker has no bound of its own. Once nothing is possible any more, it soon gives up.
        let after = (!is_late()).then(|| state.after(operation)).flatten();
        let possible = after.is_some();
        (possible, after.unwrap_or_else(|| state.clone()))
    }
}

fn search(operations: &[Operation], deadline: Instant) -> Verdict {
    if operations.is_empty() {
        return Verdict::Linearizable;
    }
    DEADLINE.set(Some(deadline));
    let found = WGLChecker::<OneNode>::is_linearizable(history(operations));
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
fn history(operations: &[Operation]) -> History<Operation> {
    let mut events = BTreeMap::new();
    for (number, operation) in operations.iter().enumerate() {
        let (call, answer) = (operation.invoked, operation.returned);
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

/// The operations by the time of their calls, for people.
fn told(operations: &[Operation]) -> String {
    let mut sorted: Vec<&Operation> = operations.iter().collect();
    sorted.sort_by_key(|operation| operation.invoked);
    let Some(begin) = sorted.first().map(|operation| operation.invoked) else {
        return String::new();
    };
    let lines = sorted.iter().map(|operation| {
        let since = |at: Instant| at.duration_since(begin).as_micros();
        let returned = operation
            .returned
            .map_or("-".to_owned(), |at| since(at).to_string());
        let (what, came) = (&operation.what, &operation.came);
        format!(
            "\n{:>10} {returned:>10} us  {what:?}: {came:?}",
            since(operation.invoked)
        )
    });
    lines.collect()
}

#[cfg(test)]
#[path = "linear/tests.rs"]
mod tests;
