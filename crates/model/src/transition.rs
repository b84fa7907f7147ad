//! Storage-state transitions after activation: a table, and the one function that reads it.

use std::collections::BTreeSet;

use crate::change::Change;
use crate::command::{Actor, Force, SetStorageState};
use crate::draft::Draft;
use crate::history::Event;
use crate::identifier::{Incarnation, Marker, NodeName, Revision, Tag};
use crate::node::{Node, SetBy};
use crate::outcome::{Alarm, Effect, Outcome};
use crate::refusal::Refusal;
use crate::settings::{Replication, Scope};
use crate::storage_state::StorageState;
use crate::view::View;

use StorageState::{DataLoss, Disabled, Provisioning, ReadOnly, ReadWrite};

/// What a transition requires beyond the proof of who asks (a node's marker and incarnation, an
/// operator's expected revision), which every transition requires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Guard {
    /// The remaining read-write nodes still satisfy the cluster's replication.
    KeepsReplication,
    /// The present state was set by the node itself.
    SetByNode,
}

/// One row of the table.
struct Transition {
    from: StorageState,
    to: StorageState,
    who: SetBy,
    guards: &'static [Guard],
    /// Conditions that cannot stop the transition but are reported with it.
    alarms: &'static [Guard],
}

const fn row(
    from: StorageState,
    to: StorageState,
    who: SetBy,
    guards: &'static [Guard],
    alarms: &'static [Guard],
) -> Transition {
    Transition {
        from,
        to,
        who,
        guards,
        alarms,
    }
}

/// Every transition that may be asked for. Activation is not one of them: it binds a marker.
const TRANSITIONS: &[Transition] = &[
    row(Provisioning, Disabled, SetBy::Operator, &[], &[]),
    row(
        ReadWrite,
        ReadOnly,
        SetBy::Operator,
        &[Guard::KeepsReplication],
        &[],
    ),
    // A full disk cannot wait for permission.
    row(
        ReadWrite,
        ReadOnly,
        SetBy::Node,
        &[],
        &[Guard::KeepsReplication],
    ),
    row(ReadOnly, ReadWrite, SetBy::Operator, &[], &[]),
    row(ReadOnly, ReadWrite, SetBy::Node, &[Guard::SetByNode], &[]),
    row(
        ReadWrite,
        DataLoss,
        SetBy::Operator,
        &[],
        &[Guard::KeepsReplication],
    ),
    row(
        ReadWrite,
        DataLoss,
        SetBy::Node,
        &[],
        &[Guard::KeepsReplication],
    ),
    row(ReadOnly, DataLoss, SetBy::Operator, &[], &[]),
    row(ReadOnly, DataLoss, SetBy::Node, &[], &[]),
];

/// States that `who` may ask for from `from`, without force.
pub fn allowed_from(from: StorageState, who: SetBy) -> Vec<StorageState> {
    TRANSITIONS
        .iter()
        .filter(|row| row.from == from && row.who == who)
        .map(|row| row.to)
        .collect()
}

/// Moves a node along the table, or past it when an operator forces it.
pub(crate) fn set_storage_state(
    draft: &mut Draft<impl View>,
    tag: Tag,
    ask: &SetStorageState,
) -> Outcome {
    let Some(node) = draft.view.node(ask.node) else {
        return Outcome::Refused(Refusal::UnknownNode { node: ask.node });
    };
    match &ask.actor {
        Actor::Node {
            marker,
            incarnation,
        } => by_node(draft, tag, ask, node, *marker, *incarnation),
        Actor::Operator {
            expected_revision,
            force,
        } => by_operator(draft, tag, ask, node, *expected_revision, force.as_ref()),
    }
}

fn by_node(
    draft: &mut Draft<impl View>,
    tag: Tag,
    ask: &SetStorageState,
    node: Node,
    offered: Marker,
    incarnation: Incarnation,
) -> Outcome {
    let stored = match node.binding {
        None => return Outcome::Refused(Refusal::MarkerNotBound { node: node.id }),
        Some(bound) => bound.marker,
    };
    if stored != offered {
        draft.claim(&node, Some(offered), tag);
        return Outcome::Refused(Refusal::MarkerMismatch {
            node: node.id,
            stored,
            offered,
        });
    }
    if incarnation != node.incarnation {
        return Outcome::Refused(Refusal::StaleIncarnation {
            node: node.id,
            current: node.incarnation,
            offered: incarnation,
        });
    }
    if node.storage_state == ask.to {
        let (since, to) = (node.state_revision, ask.to);
        let effect = Effect::StorageStateSet {
            node: node.id,
            from: to,
            to,
            alarms: Vec::new(),
        };
        return Outcome::Replayed { since, effect };
    }
    along_table(draft, tag, ask, node, SetBy::Node)
}

fn by_operator(
    draft: &mut Draft<impl View>,
    tag: Tag,
    ask: &SetStorageState,
    node: Node,
    expected: Option<Revision>,
    force: Option<&Force>,
) -> Outcome {
    if expected.is_some_and(|expected| expected != node.revision)
        || (expected.is_none() && force.is_none())
    {
        return Outcome::Refused(Refusal::RevisionMismatch {
            node: node.id,
            current: node.revision,
            expected,
        });
    }
    match force {
        None => along_table(draft, tag, ask, node, SetBy::Operator),
        Some(force) => past_table(draft, tag, ask, node, force),
    }
}

fn along_table(
    draft: &mut Draft<impl View>,
    tag: Tag,
    ask: &SetStorageState,
    node: Node,
    who: SetBy,
) -> Outcome {
    let row = TRANSITIONS
        .iter()
        .find(|row| (row.from, row.to, row.who) == (node.storage_state, ask.to, who));
    let Some(row) = row else {
        return not_allowed(&node, ask.to, who);
    };
    for guard in row.guards {
        if let Some(refusal) = check(*guard, draft, &node, ask.to) {
            return Outcome::Refused(refusal);
        }
    }
    let alarms = row
        .alarms
        .iter()
        .filter_map(|guard| alarm(*guard, draft, &node, ask.to))
        .collect();
    accept(draft, tag, ask, node, who, alarms)
}

fn not_allowed(node: &Node, to: StorageState, who: SetBy) -> Outcome {
    Outcome::Refused(Refusal::TransitionNotAllowed {
        node: node.id,
        from: node.storage_state,
        to,
        allowed: allowed_from(node.storage_state, who),
    })
}

fn past_table(
    draft: &mut Draft<impl View>,
    tag: Tag,
    ask: &SetStorageState,
    node: Node,
    force: &Force,
) -> Outcome {
    let reason_given = !ask.reason.trim().is_empty();
    if force.confirm_name != node.name.as_str() || !reason_given {
        return Outcome::Refused(Refusal::ForceNotConfirmed {
            node: node.id,
            name: node.name,
            confirmed: force.confirm_name.clone(),
            reason_given,
        });
    }
    if node.storage_state == StorageState::Removed || node.storage_state == ask.to {
        return not_allowed(&node, ask.to, SetBy::Operator);
    }
    let alarms = alarm(Guard::KeepsReplication, draft, &node, ask.to)
        .into_iter()
        .collect();
    accept(draft, tag, ask, node, SetBy::Operator, alarms)
}

fn check(guard: Guard, draft: &Draft<impl View>, node: &Node, to: StorageState) -> Option<Refusal> {
    match guard {
        Guard::KeepsReplication => {
            let left = writable_after(draft, node, to)?;
            (!left.satisfied()).then_some(Refusal::ReplicationUnsatisfied {
                needed: left.needed,
                writable: left.places,
                already: left.names,
            })
        }
        Guard::SetByNode => (node.set_by != SetBy::Node).then_some(Refusal::NotSetByNode {
            node: node.id,
            state: node.storage_state,
        }),
    }
}

fn alarm(guard: Guard, draft: &Draft<impl View>, node: &Node, to: StorageState) -> Option<Alarm> {
    match check(guard, draft, node, to)? {
        Refusal::ReplicationUnsatisfied {
            needed, writable, ..
        } => Some(Alarm::ReplicationUnsatisfied {
            needed: needed.copies,
            writable,
        }),
        _ => None,
    }
}

/// What would be writable once `node` is in `to`.
struct Writable {
    needed: Replication,
    places: u32,
    names: Vec<NodeName>,
}

impl Writable {
    fn satisfied(&self) -> bool {
        self.places >= self.needed.copies
    }
}

/// `None` when the cluster asks for no replication.
fn writable_after(draft: &Draft<impl View>, node: &Node, to: StorageState) -> Option<Writable> {
    let needed = draft.settings().replication?;
    let writable: Vec<Node> = draft
        .view
        .nodes()
        .into_iter()
        .filter(|other| {
            let state = if other.id == node.id {
                to
            } else {
                other.storage_state
            };
            state.permits().write
        })
        .collect();
    let places: BTreeSet<String> = writable
        .iter()
        .map(|node| match needed.scope {
            Scope::Node => node.id.to_string(),
            Scope::Zone => node.location.as_str().to_owned(),
            Scope::Region => node.location.region().to_owned(),
        })
        .collect();
    Some(Writable {
        needed,
        places: u32::try_from(places.len()).unwrap_or(u32::MAX),
        names: writable.into_iter().map(|node| node.name).collect(),
    })
}

fn accept(
    draft: &mut Draft<impl View>,
    tag: Tag,
    ask: &SetStorageState,
    node: Node,
    who: SetBy,
    alarms: Vec<Alarm>,
) -> Outcome {
    let revision = draft.revise();
    let from = node.storage_state;
    let forced = matches!(ask.actor, Actor::Operator { force: Some(_), .. });
    let marker = node.binding.map(|bound| bound.marker);
    let node = Node {
        storage_state: ask.to,
        set_by: who,
        revision,
        state_revision: revision,
        state_unix_ms: draft.unix_ms(),
        ..node
    };
    let event = Event::Transitioned {
        from,
        to: ask.to,
        marker,
        forced,
    };
    draft.record(node.id, who, tag, event, &ask.reason);
    let effect = Effect::StorageStateSet {
        node: node.id,
        from,
        to: ask.to,
        alarms,
    };
    draft.push(Change::StorageStateChanged { node });
    Outcome::Applied { revision, effect }
}
