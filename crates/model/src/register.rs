//! Registration of log servers: names, ids and incarnations.

use crate::change::Change;
use crate::command::RegisterNode;
use crate::draft::Draft;
use crate::history::Event;
use crate::identifier::{Incarnation, NodeId, Tag};
use crate::node::{Node, SetBy};
use crate::outcome::{Effect, Outcome};
use crate::refusal::Refusal;
use crate::settings::RetryCheck;
use crate::storage_state::StorageState;
use crate::view::View;

/// Admits a new node as `provisioning`, or a known one's next incarnation if it shows the marker
/// that it is bound to. Older incarnations are fenced from then on.
pub(crate) fn register(draft: &mut Draft<impl View>, tag: Tag, ask: &RegisterNode) -> Outcome {
    let Some(node) = draft.view.node_by_name(&ask.name) else {
        return admit(draft, tag, ask);
    };
    if node.storage_state == StorageState::Removed {
        return Outcome::Refused(Refusal::NameRemoved {
            name: node.name,
            node: node.id,
        });
    }
    if draft.settings().retry_check == RetryCheck::Marker
        && let Some(refusal) = refuse_stranger(&node, ask)
    {
        draft.claim(&node, ask.marker, tag);
        return Outcome::Refused(refusal);
    }
    accept(
        draft,
        tag,
        Node {
            incarnation: Incarnation(node.incarnation.0 + 1),
            address: ask.address.clone(),
            location: ask.location.clone(),
            ..node
        },
    )
}

/// Why the requester is not the node's owner; `None` when it is, or when nobody is yet.
fn refuse_stranger(node: &Node, ask: &RegisterNode) -> Option<Refusal> {
    let stored = node.binding?.marker;
    match ask.marker {
        Some(offered) if offered == stored => None,
        Some(offered) => Some(Refusal::MarkerMismatch {
            node: node.id,
            stored,
            offered,
        }),
        None => Some(Refusal::MarkerMissing {
            node: node.id,
            stored,
        }),
    }
}

fn admit(draft: &mut Draft<impl View>, tag: Tag, ask: &RegisterNode) -> Outcome {
    let revision = draft.revise();
    draft.globals.last_node = NodeId(draft.globals.last_node.0 + 1);
    let node = Node {
        id: draft.globals.last_node,
        name: ask.name.clone(),
        address: ask.address.clone(),
        location: ask.location.clone(),
        storage_state: StorageState::Provisioning,
        incarnation: Incarnation(1),
        binding: None,
        set_by: SetBy::Node,
        created_revision: revision,
        revision,
        state_revision: revision,
        state_unix_ms: draft.unix_ms(),
        claims_dropped: 0,
    };
    accept(draft, tag, node)
}

fn accept(draft: &mut Draft<impl View>, tag: Tag, node: Node) -> Outcome {
    let revision = draft.revise();
    let node = Node { revision, ..node };
    let (id, incarnation) = (node.id, node.incarnation);
    draft.push(Change::NodeRegistered { node });
    draft.record(id, SetBy::Node, tag, Event::Registered { incarnation }, "");
    Outcome::Applied {
        revision,
        effect: Effect::NodeRegistered {
            node: id,
            incarnation,
        },
    }
}
