//! Refusals, as they are stored. Field numbers are the digits of the codes.

use tally_model::{Incarnation, LeaseId, NodeId, NodeName, Refusal, Revision, SessionId};

use super::identifier::bytes_16;
use super::{DecodeError, required};
use crate::storage;
use storage::refusal as message;
use storage::refusal::Kind;

impl From<&Refusal> for storage::Refusal {
    fn from(refusal: &Refusal) -> Self {
        let kind = match refusal.clone() {
            Refusal::AlreadyFounded => Kind::AlreadyFounded(message::AlreadyFounded {}),
            Refusal::NotFounded => Kind::NotFounded(message::NotFounded {}),
            Refusal::TagExpected { expected } => {
                Kind::TagExpected(message::TagExpected { expected })
            }
            Refusal::SessionExpired { session } => {
                Kind::SessionExpired(message::SessionExpired { session: session.0 })
            }
            Refusal::RequestReused {
                stored_digest,
                offered_digest,
            } => Kind::RequestReused(message::RequestReused {
                stored_digest: stored_digest.to_be_bytes().to_vec(),
                offered_digest: offered_digest.to_be_bytes().to_vec(),
            }),
            Refusal::AlreadyAcknowledged { acknowledged } => {
                Kind::AlreadyAcknowledged(message::AlreadyAcknowledged { acknowledged })
            }
            Refusal::TooManyUnacknowledged { held, allowed } => {
                Kind::TooManyUnacknowledged(message::TooManyUnacknowledged { held, allowed })
            }
            Refusal::SessionMarkerMismatch { session } => {
                Kind::SessionMarkerMismatch(message::SessionMarkerMismatch { session: session.0 })
            }
            Refusal::Abandoned => Kind::Abandoned(message::Abandoned {}),
            Refusal::UnknownNode { node } => {
                Kind::UnknownNode(message::UnknownNode { node: node.0 })
            }
            Refusal::MarkerMismatch {
                node,
                stored,
                offered,
            } => Kind::MarkerMismatch(message::MarkerMismatch {
                node: node.0,
                stored: Some(stored.into()),
                offered: Some(offered.into()),
            }),
            Refusal::MarkerMissing { node, stored } => {
                Kind::MarkerMissing(message::MarkerMissing {
                    node: node.0,
                    stored: Some(stored.into()),
                })
            }
            Refusal::MarkerNotBound { node } => {
                Kind::MarkerNotBound(message::MarkerNotBound { node: node.0 })
            }
            Refusal::StaleIncarnation {
                node,
                current,
                offered,
            } => Kind::StaleIncarnation(message::StaleIncarnation {
                node: node.0,
                current: current.0,
                offered: offered.0,
            }),
            Refusal::NotProvisioning { node, state } => {
                Kind::NotProvisioning(message::NotProvisioning {
                    node: node.0,
                    state: storage::StorageState::from(state).into(),
                })
            }
            Refusal::NameRemoved { name, node } => Kind::NameRemoved(message::NameRemoved {
                name: name.as_str().to_owned(),
                node: node.0,
            }),
            Refusal::TransitionNotAllowed {
                node,
                from,
                to,
                allowed,
            } => Kind::TransitionNotAllowed(message::TransitionNotAllowed {
                node: node.0,
                from: storage::StorageState::from(from).into(),
                to: storage::StorageState::from(to).into(),
                allowed: allowed
                    .into_iter()
                    .map(|state| storage::StorageState::from(state).into())
                    .collect(),
            }),
            Refusal::RevisionMismatch {
                node,
                current,
                expected,
            } => Kind::RevisionMismatch(message::RevisionMismatch {
                node: node.0,
                current: current.0,
                expected: expected.map(|revision| revision.0),
            }),
            Refusal::NotSetByNode { node, state } => Kind::NotSetByNode(message::NotSetByNode {
                node: node.0,
                state: storage::StorageState::from(state).into(),
            }),
            Refusal::ForceNotConfirmed {
                node,
                name,
                confirmed,
                reason_given,
            } => Kind::ForceNotConfirmed(message::ForceNotConfirmed {
                node: node.0,
                name: name.as_str().to_owned(),
                confirmed,
                reason_given,
            }),
            Refusal::ReplicationUnsatisfied {
                needed,
                writable,
                already,
            } => Kind::ReplicationUnsatisfied(message::NeededReplication {
                needed: Some(needed.into()),
                writable,
                already: already
                    .iter()
                    .map(|name| name.as_str().to_owned())
                    .collect(),
            }),
            Refusal::KeyNotFound => Kind::KeyNotFound(message::KeyNotFound {}),
            Refusal::LeaseNotFound { lease } => {
                Kind::LeaseNotFound(message::LeaseNotFound { lease: lease.0 })
            }
            Refusal::RevisionCompacted { asked, compacted } => {
                Kind::RevisionCompacted(message::RevisionCompacted {
                    asked: asked.0,
                    compacted: compacted.0,
                })
            }
            Refusal::RevisionInFuture { asked, current } => {
                Kind::RevisionInFuture(message::RevisionInFuture {
                    asked: asked.0,
                    current: current.0,
                })
            }
            Refusal::LeaseExists { lease } => {
                Kind::LeaseExists(message::LeaseExists { lease: lease.0 })
            }
            Refusal::LeaseTimeMoved { term, now_ms } => {
                Kind::LeaseTimeMoved(message::LeaseTimeMoved { term, now_ms })
            }
            Refusal::TooMuchAtOnce => Kind::TooMuchAtOnce(message::TooMuchAtOnce {}),
            Refusal::TooManyLeases { held } => Kind::TooManyLeases(message::TooManyLeases { held }),
            Refusal::KeyReserved => Kind::KeyReserved(message::KeyReserved {}),
        };
        Self { kind: Some(kind) }
    }
}

impl TryFrom<storage::Refusal> for Refusal {
    type Error = DecodeError;

    fn try_from(refusal: storage::Refusal) -> Result<Self, DecodeError> {
        Ok(match required("refusal.kind", refusal.kind)? {
            Kind::AlreadyFounded(_) => Self::AlreadyFounded,
            Kind::NotFounded(_) => Self::NotFounded,
            Kind::TagExpected(found) => Self::TagExpected {
                expected: found.expected,
            },
            Kind::SessionExpired(found) => Self::SessionExpired {
                session: SessionId(found.session),
            },
            Kind::RequestReused(found) => Self::RequestReused {
                stored_digest: bytes_16("refusal.stored_digest", &found.stored_digest)?,
                offered_digest: bytes_16("refusal.offered_digest", &found.offered_digest)?,
            },
            Kind::AlreadyAcknowledged(found) => Self::AlreadyAcknowledged {
                acknowledged: found.acknowledged,
            },
            Kind::TooManyUnacknowledged(found) => Self::TooManyUnacknowledged {
                held: found.held,
                allowed: found.allowed,
            },
            Kind::SessionMarkerMismatch(found) => Self::SessionMarkerMismatch {
                session: SessionId(found.session),
            },
            Kind::Abandoned(_) => Self::Abandoned,
            Kind::UnknownNode(found) => Self::UnknownNode {
                node: NodeId(found.node),
            },
            Kind::MarkerMismatch(found) => Self::MarkerMismatch {
                node: NodeId(found.node),
                stored: required("refusal.stored", found.stored)?.try_into()?,
                offered: required("refusal.offered", found.offered)?.try_into()?,
            },
            Kind::MarkerMissing(found) => Self::MarkerMissing {
                node: NodeId(found.node),
                stored: required("refusal.stored", found.stored)?.try_into()?,
            },
            Kind::MarkerNotBound(found) => Self::MarkerNotBound {
                node: NodeId(found.node),
            },
            Kind::StaleIncarnation(found) => Self::StaleIncarnation {
                node: NodeId(found.node),
                current: Incarnation(found.current),
                offered: Incarnation(found.offered),
            },
            Kind::NotProvisioning(found) => Self::NotProvisioning {
                node: NodeId(found.node),
                state: storage::StorageState::decode_required(found.state)?,
            },
            Kind::NameRemoved(found) => Self::NameRemoved {
                name: NodeName::new(found.name)?,
                node: NodeId(found.node),
            },
            Kind::TransitionNotAllowed(found) => Self::TransitionNotAllowed {
                node: NodeId(found.node),
                from: storage::StorageState::decode_required(found.from)?,
                to: storage::StorageState::decode_required(found.to)?,
                allowed: found
                    .allowed
                    .into_iter()
                    .map(storage::StorageState::decode_required)
                    .collect::<Result<_, _>>()?,
            },
            Kind::RevisionMismatch(found) => Self::RevisionMismatch {
                node: NodeId(found.node),
                current: Revision(found.current),
                expected: found.expected.map(Revision),
            },
            Kind::NotSetByNode(found) => Self::NotSetByNode {
                node: NodeId(found.node),
                state: storage::StorageState::decode_required(found.state)?,
            },
            Kind::ForceNotConfirmed(found) => Self::ForceNotConfirmed {
                node: NodeId(found.node),
                name: NodeName::new(found.name)?,
                confirmed: found.confirmed,
                reason_given: found.reason_given,
            },
            Kind::ReplicationUnsatisfied(found) => Self::ReplicationUnsatisfied {
                needed: required("refusal.needed", found.needed)?.try_into()?,
                writable: found.writable,
                already: found
                    .already
                    .into_iter()
                    .map(NodeName::new)
                    .collect::<Result<_, _>>()?,
            },
            Kind::KeyNotFound(_) => Self::KeyNotFound,
            Kind::LeaseNotFound(found) => Self::LeaseNotFound {
                lease: LeaseId(found.lease),
            },
            Kind::RevisionCompacted(found) => Self::RevisionCompacted {
                asked: Revision(found.asked),
                compacted: Revision(found.compacted),
            },
            Kind::RevisionInFuture(found) => Self::RevisionInFuture {
                asked: Revision(found.asked),
                current: Revision(found.current),
            },
            Kind::LeaseExists(found) => Self::LeaseExists {
                lease: LeaseId(found.lease),
            },
            Kind::LeaseTimeMoved(found) => Self::LeaseTimeMoved {
                term: found.term,
                now_ms: found.now_ms,
            },
            Kind::TooMuchAtOnce(_) => Self::TooMuchAtOnce,
            Kind::TooManyLeases(found) => Self::TooManyLeases { held: found.held },
            Kind::KeyReserved(_) => Self::KeyReserved,
        })
    }
}
