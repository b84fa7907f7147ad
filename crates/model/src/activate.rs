//! Activation: `provisioning` to `read-write`, the transition that Tally exists for.

use crate::change::Change;
use crate::command::ActivateNode;
use crate::draft::Draft;
use crate::history::Event;
use crate::identifier::{Revision, Tag};
use crate::node::{Binding, Node, SetBy};
use crate::outcome::{Effect, Outcome};
use crate::refusal::Refusal;
use crate::settings::RetryCheck;
use crate::storage_state::StorageState;
use crate::view::View;

/// Moves a node from `provisioning` to `read-write` and binds its marker in the same step.
///
/// Idempotent by marker: the owner asking again is answered with what happened the first time,
/// whatever the state has become since. Source of the rule: restatedev/restate#2563.
pub(crate) fn activate(draft: &mut Draft<impl View>, tag: Tag, ask: &ActivateNode) -> Outcome {
    let Some(node) = draft.view.node(ask.node) else {
        return Outcome::Refused(Refusal::UnknownNode { node: ask.node });
    };
    match draft.settings().retry_check {
        RetryCheck::Marker => by_marker(draft, tag, ask, node),
        RetryCheck::Relaxed => relaxed(draft, tag, ask, node),
    }
}

fn by_marker(draft: &mut Draft<impl View>, tag: Tag, ask: &ActivateNode, node: Node) -> Outcome {
    if let Some(bound) = node.binding
        && bound.marker != ask.marker
    {
        draft.claim(&node, Some(ask.marker), tag);
        let (stored, offered) = (bound.marker, ask.marker);
        return Outcome::Refused(Refusal::MarkerMismatch {
            node: node.id,
            stored,
            offered,
        });
    }
    if let Some(refusal) = fenced(&node, ask) {
        return Outcome::Refused(refusal);
    }
    match (node.binding, node.storage_state) {
        (Some(bound), _) => replayed(bound.since, ask),
        (None, StorageState::Provisioning) => accept(draft, tag, ask, node),
        (None, state) => Outcome::Refused(Refusal::NotProvisioning {
            node: node.id,
            state,
        }),
    }
}

/// The unsafe check: the first attempt insists on `provisioning`, later ones accept `read-write`,
/// whoever made it so.
fn relaxed(draft: &mut Draft<impl View>, tag: Tag, ask: &ActivateNode, node: Node) -> Outcome {
    if let Some(refusal) = fenced(&node, ask) {
        return Outcome::Refused(refusal);
    }
    match node.storage_state {
        StorageState::Provisioning => accept(draft, tag, ask, node),
        StorageState::ReadWrite if ask.attempt > 1 => replayed(node.state_revision, ask),
        state => Outcome::Refused(Refusal::NotProvisioning {
            node: node.id,
            state,
        }),
    }
}

fn fenced(node: &Node, ask: &ActivateNode) -> Option<Refusal> {
    (ask.incarnation != node.incarnation).then_some(Refusal::StaleIncarnation {
        node: node.id,
        current: node.incarnation,
        offered: ask.incarnation,
    })
}

fn replayed(since: Revision, ask: &ActivateNode) -> Outcome {
    let effect = Effect::NodeActivated {
        node: ask.node,
        incarnation: ask.incarnation,
    };
    Outcome::Replayed { since, effect }
}

fn accept(draft: &mut Draft<impl View>, tag: Tag, ask: &ActivateNode, node: Node) -> Outcome {
    let revision = draft.revise();
    let event = Event::Transitioned {
        from: node.storage_state,
        to: StorageState::ReadWrite,
        marker: Some(ask.marker),
        forced: false,
    };
    let node = Node {
        storage_state: StorageState::ReadWrite,
        binding: Some(Binding {
            marker: ask.marker,
            since: revision,
        }),
        set_by: SetBy::Node,
        revision,
        state_revision: revision,
        state_unix_ms: draft.unix_ms(),
        ..node
    };
    draft.record(node.id, SetBy::Node, tag, event, "");
    draft.push(Change::StorageStateChanged { node });
    let effect = Effect::NodeActivated {
        node: ask.node,
        incarnation: ask.incarnation,
    };
    Outcome::Applied { revision, effect }
}
