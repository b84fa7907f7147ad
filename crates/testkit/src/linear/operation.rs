//! What was recorded, in the terms of the model.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use tally_proto::v1::{self, StorageState};
use v1::answer::Outcome;
use v1::effect::Kind;
use v1::set_state_request::Actor;

use crate::call::Call;
use crate::load::{Recorded, Seen, Sent};

/// Who asks for an activation or a registration.
pub(super) type Bits = Vec<u8>;

/// A command or a read about one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Operation {
    pub(super) invoked: Instant,
    /// `None` when no answer came.
    pub(super) returned: Option<Instant>,
    pub(super) what: What,
    pub(super) came: Came,
}

/// What was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum What {
    Register {
        marker: Option<Bits>,
    },
    Activate {
        marker: Bits,
        incarnation: u64,
    },
    SetOwn {
        marker: Bits,
        incarnation: u64,
        to: StorageState,
    },
    SetByOperator {
        expected: u64,
        to: StorageState,
    },
    Read,
}

/// What was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Came {
    /// It took effect. `incarnation` after a registration only. `now` is known when this was the
    /// first answer to the tag.
    Applied {
        revision: u64,
        incarnation: Option<u64>,
        now: StorageState,
    },
    /// It had taken effect before, under another tag.
    Replayed {
        since: u64,
    },
    /// The repeat of an answer that was lost: it took effect under this tag or, for a node that shows
    /// its marker, before.
    Repeated {
        since: u64,
        incarnation: Option<u64>,
    },
    Refused {
        code: String,
    },
    Seen {
        node: Option<v1::Node>,
    },
    /// Nothing.
    Nothing,
}

/// Everything about each node by name.
pub(super) fn by_node(recorded: &Recorded) -> Result<BTreeMap<String, Vec<Operation>>> {
    let mut nodes: BTreeMap<String, Vec<Operation>> = BTreeMap::new();
    for sent in &recorded.sent {
        let operation = of_sent(sent).with_context(|| format!("{sent:?}"))?;
        nodes.entry(sent.name.clone()).or_default().push(operation);
    }
    for seen in &recorded.seen {
        let operation = of_seen(seen.clone());
        nodes.entry(seen.name.clone()).or_default().push(operation);
    }
    Ok(nodes)
}

fn of_seen(seen: Seen) -> Operation {
    Operation {
        invoked: seen.invoked,
        returned: Some(seen.returned),
        what: What::Read,
        came: Came::Seen { node: seen.node },
    }
}

fn of_sent(sent: &Sent) -> Result<Operation> {
    let answered = sent.answered.as_ref();
    Ok(Operation {
        invoked: sent.invoked,
        returned: answered.map(|(at, _)| *at),
        what: what(&sent.call)?,
        came: answered.map_or(Ok(Came::Nothing), |(_, answer)| came(answer))?,
    })
}

fn what(call: &Call) -> Result<What> {
    let bits = |marker: &Option<v1::Marker>| marker.as_ref().map(|marker| marker.bits.clone());
    let needed = |marker| bits(marker).context("no marker");
    Ok(match call {
        Call::Register(ask) => What::Register {
            marker: bits(&ask.marker),
        },
        Call::Activate(ask) => What::Activate {
            marker: needed(&ask.marker)?,
            incarnation: ask.incarnation,
        },
        Call::SetState(ask) => match ask.actor.as_ref().context("no actor")? {
            Actor::ByNode(node) => What::SetOwn {
                marker: needed(&node.marker)?,
                incarnation: node.incarnation,
                to: ask.to(),
            },
            Actor::ByOperator(operator) => {
                ensure!(operator.force.is_none(), "a forced change is not modelled");
                What::SetByOperator {
                    expected: operator.expected_revision,
                    to: ask.to(),
                }
            }
        },
    })
}

fn came(answer: &v1::Answer) -> Result<Came> {
    let incarnation = |effect: &Option<v1::Effect>| match effect.as_ref()?.kind.as_ref()? {
        Kind::NodeRegistered(node) => Some(node.incarnation),
        _ => None,
    };
    Ok(match answer.outcome.as_ref().context("no outcome")? {
        Outcome::Applied(_) if answer.repeat => bail!("applied, and yet a repeat"),
        Outcome::Applied(applied) => Came::Applied {
            revision: applied.revision,
            incarnation: incarnation(&applied.effect),
            now: answer.now(),
        },
        Outcome::Replayed(replayed) if answer.repeat => Came::Repeated {
            since: replayed.since,
            incarnation: incarnation(&replayed.effect),
        },
        Outcome::Replayed(replayed) => Came::Replayed {
            since: replayed.since,
        },
        Outcome::Refused(refused) => Came::Refused {
            code: refused.code.clone(),
        },
    })
}
