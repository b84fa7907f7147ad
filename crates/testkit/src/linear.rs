//! Is there one order of everything that was recorded, in which each command and each read comes
//! between its call and its answer and finds what it was answered with? Each node is checked by itself,
//! which is enough: a history is linearizable when its part about every single object is (Herlihy and
//! Wing, 1990, locality).

mod model;
mod operation;

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use crate::load::Recorded;
use crate::search::{Sequential, Timed, Verdict, search};
use model::NodeState;
use operation::{Operation, What};

/// For the nodes of one record together; an ordinary record takes a fraction of a second.
const SEARCHED_WITHIN: Duration = Duration::from_secs(60);

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
            match search::<NodeState>(&operations, deadline) {
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

impl Timed for Operation {
    fn invoked(&self) -> Instant {
        self.invoked
    }

    fn returned(&self) -> Option<Instant> {
        self.returned
    }
}

impl Sequential for NodeState {
    type Operation = Operation;

    fn after(&self, operation: &Operation) -> Option<Self> {
        Self::after(self, operation)
    }
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
