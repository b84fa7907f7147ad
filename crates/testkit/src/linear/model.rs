//! One node as a sequence of commands and reads would see it: written from the design's table, not from
//! the product's code, of which this knows nothing.

use StorageState::{DataLoss, Disabled, Provisioning, ReadOnly, ReadWrite};
use tally_proto::v1::{self, Actor, StorageState};

use super::operation::{Bits, Came, Operation, What};

/// When something last changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Revision {
    At(u64),
    /// By a command whose answer nobody has seen: somewhere above.
    Above(u64),
}

impl Revision {
    fn least(self) -> u64 {
        match self {
            Self::At(revision) => revision,
            Self::Above(revision) => revision + 1,
        }
    }

    fn may_be(self, seen: u64) -> bool {
        match self {
            Self::At(revision) => revision == seen,
            Self::Above(revision) => seen > revision,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Node {
    state: StorageState,
    incarnation: u64,
    /// Marker, and revision of the activation.
    binding: Option<(Bits, Revision)>,
    set_by: Actor,
    revision: Revision,
    state_revision: Revision,
}

/// The node, once it is registered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct NodeState(Option<Node>);

/// What must become of a command.
enum Must {
    Accept(Change),
    /// It was so before.
    Replay(Revision),
    Refuse(&'static str),
}

enum Change {
    Register,
    Bind(Bits),
    Move(StorageState, Actor),
}

impl NodeState {
    /// The state after an operation that was answered as it was; `None` when it cannot have been
    /// answered so here.
    pub(super) fn after(&self, operation: &Operation) -> Option<Self> {
        if let Came::Seen { node } = &operation.came {
            return self.seen(node.as_ref());
        }
        // It depends on a revision that nobody has seen.
        if let (Came::Refused { code }, What::SetByOperator { expected, .. }) =
            (&operation.came, &operation.what)
            && code == "T-411"
            && self.may_differ(*expected)
        {
            return Some(self.clone());
        }
        match (&operation.came, self.must(&operation.what)) {
            (
                Came::Applied {
                    revision,
                    incarnation,
                    now,
                },
                Must::Accept(change),
            ) => {
                let after = self.changed(change, Revision::At(*revision))?;
                let same = after.has(*incarnation) && after.is_in(*now);
                same.then_some(after)
            }
            (Came::Repeated { since, incarnation }, Must::Accept(change)) => {
                let after = self.changed(change, Revision::At(*since))?;
                after.has(*incarnation).then_some(after)
            }
            (Came::Replayed { since } | Came::Repeated { since, .. }, Must::Replay(known)) => {
                known.may_be(*since).then(|| self.clone())
            }
            (Came::Refused { code }, Must::Refuse(expected)) => {
                (code == expected).then(|| self.clone())
            }
            (Came::Nothing, Must::Accept(change)) => {
                let before = self.0.as_ref().map_or(0, |node| node.revision.least());
                self.changed(change, Revision::Above(before))
            }
            (Came::Nothing, Must::Replay(_) | Must::Refuse(_)) => Some(self.clone()),
            _ => None,
        }
    }

    fn has(&self, incarnation: Option<u64>) -> bool {
        let known = self.0.as_ref().map(|node| node.incarnation);
        incarnation.is_none() || incarnation == known
    }

    fn is_in(&self, state: StorageState) -> bool {
        self.0.as_ref().is_some_and(|node| node.state == state)
    }

    fn may_differ(&self, expected: u64) -> bool {
        let revision = self.0.as_ref().map(|node| node.revision);
        revision.is_some_and(|revision| revision != Revision::At(expected))
    }

    fn must(&self, what: &What) -> Must {
        let Some(node) = &self.0 else {
            return match what {
                What::Register { .. } => Must::Accept(Change::Register),
                _ => Must::Refuse("T-301"),
            };
        };
        let bound = node.binding.as_ref();
        match what {
            What::Register { marker } => match (bound, marker) {
                (Some((stored, _)), Some(offered)) if stored != offered => Must::Refuse("T-310"),
                (Some(_), None) => Must::Refuse("T-311"),
                _ => Must::Accept(Change::Register),
            },
            What::Activate {
                marker,
                incarnation,
            } => match bound {
                Some((stored, _)) if stored != marker => Must::Refuse("T-310"),
                _ if *incarnation != node.incarnation => Must::Refuse("T-320"),
                Some((_, since)) => Must::Replay(*since),
                None if node.state == Provisioning => Must::Accept(Change::Bind(marker.clone())),
                None => Must::Refuse("T-330"),
            },
            What::SetOwn {
                marker,
                incarnation,
                to,
            } => match bound {
                None => Must::Refuse("T-312"),
                Some((stored, _)) if stored != marker => Must::Refuse("T-310"),
                _ if *incarnation != node.incarnation => Must::Refuse("T-320"),
                _ if node.state == *to => Must::Replay(node.state_revision),
                _ => node.along_table(*to, Actor::Node),
            },
            What::SetByOperator { expected, to } => {
                if !node.revision.may_be(*expected) {
                    return Must::Refuse("T-411");
                }
                node.along_table(*to, Actor::Operator)
            }
            What::Read => Must::Refuse("a read is not a command"),
        }
    }

    fn changed(&self, change: Change, revision: Revision) -> Option<Self> {
        let Some(node) = &self.0 else {
            return matches!(change, Change::Register).then(|| {
                Self(Some(Node {
                    state: Provisioning,
                    incarnation: 1,
                    binding: None,
                    set_by: Actor::Node,
                    revision,
                    state_revision: revision,
                }))
            });
        };
        if revision.least() <= node.revision.least() && matches!(revision, Revision::At(_)) {
            return None;
        }
        let mut node = Node {
            revision,
            ..node.clone()
        };
        match change {
            Change::Register => node.incarnation += 1,
            Change::Bind(marker) => {
                node.binding = Some((marker, revision));
                node.move_to(ReadWrite, Actor::Node);
            }
            Change::Move(to, who) => node.move_to(to, who),
        }
        Some(Self(Some(node)))
    }

    /// A read that found `seen`; it tells revisions that were not known.
    fn seen(&self, seen: Option<&v1::Node>) -> Option<Self> {
        let (node, seen) = match (&self.0, seen) {
            (None, None) => return Some(self.clone()),
            (Some(node), Some(seen)) => (node, seen),
            _ => return None,
        };
        let (binding, since) = match (&node.binding, &seen.binding) {
            (None, None) => (None, None),
            (Some((bits, since)), Some(bound)) => {
                let shown = bound.marker.as_ref().map(|marker| &marker.bits);
                let known = since.may_be(bound.since) && shown == Some(bits);
                known.then_some(())?;
                (
                    Some((bits.clone(), Revision::At(bound.since))),
                    Some(bound.since),
                )
            }
            _ => return None,
        };
        let same = node.state == seen.state()
            && node.incarnation == seen.incarnation
            && node.set_by == seen.set_by()
            && node.revision.may_be(seen.revision)
            && node.state_revision.may_be(seen.state_revision)
            && since.is_none_or(|since| since <= seen.state_revision);
        same.then(|| {
            Self(Some(Node {
                binding,
                revision: Revision::At(seen.revision),
                state_revision: Revision::At(seen.state_revision),
                ..node.clone()
            }))
        })
    }
}

impl Node {
    fn move_to(&mut self, to: StorageState, who: Actor) {
        self.state = to;
        self.set_by = who;
        self.state_revision = self.revision;
    }

    fn along_table(&self, to: StorageState, who: Actor) -> Must {
        let allowed = match (self.state, to) {
            (Provisioning, Disabled) => who == Actor::Operator,
            (ReadOnly, ReadWrite) if who == Actor::Node && self.set_by != Actor::Node => {
                return Must::Refuse("T-412");
            }
            (ReadWrite, ReadOnly | DataLoss) | (ReadOnly, ReadWrite | DataLoss) => true,
            _ => false,
        };
        if allowed {
            Must::Accept(Change::Move(to, who))
        } else {
            Must::Refuse("T-410")
        }
    }
}
