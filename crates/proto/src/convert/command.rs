//! Requests and commands, as they stand in the log.

use bytes::Bytes;
use prost::Message;
use tally_model::command::{
    ActivateNode, Compact, Force, Found, OpenSession, RegisterNode, SetStorageState,
};
use tally_model::lease::{GrantLease, PassLeaseTime};
use tally_model::{
    Actor, ClusterId, Command, Incarnation, LeaseId, Location, Marker, NodeId, NodeName,
    Replication, Request, RetryCheck, Revision, Scope, SessionId, Settings, Tag, Tagged,
};
use xxhash_rust::xxh3::xxh3_128;

use super::identifier::bytes_16;
use super::{DecodeError, required};
use crate::storage;
use storage::command::Kind;
use storage::set_storage_state::Actor as ActorMessage;

/// Digest of a command: XXH3-128 of its encoded bytes. It tells a repeat from another request under
/// the same tag; it is no protection against someone who wants a collision with himself.
pub fn digest(command: &Command) -> u128 {
    xxh3_128(&storage::Command::from(command).encode_to_vec())
}

/// A request as it is appended. It is not looked into again before it is applied.
pub fn encode_request(request: &Request) -> Bytes {
    storage::Request::from(request).encode_to_vec().into()
}

/// A request that was appended, or that another member passes on.
///
/// # Errors
/// When it is damaged, or of a version that knows more than this one.
pub fn decode_request(bytes: Bytes) -> Result<Request, DecodeError> {
    let request = storage::Request::decode(bytes);
    let damaged = |error: prost::DecodeError| DecodeError::new("request", error.to_string());
    request.map_err(damaged)?.try_into()
}

impl From<&Request> for storage::Request {
    fn from(request: &Request) -> Self {
        Self {
            tagged: request.tagged.as_ref().map(Into::into),
            command: Some((&request.command).into()),
        }
    }
}

impl TryFrom<storage::Request> for Request {
    type Error = DecodeError;

    fn try_from(request: storage::Request) -> Result<Self, DecodeError> {
        Ok(Self {
            tagged: request.tagged.map(TryInto::try_into).transpose()?,
            command: required("command", request.command)?.try_into()?,
        })
    }
}

impl From<&Tagged> for storage::Tagged {
    fn from(tagged: &Tagged) -> Self {
        Self {
            session: tagged.tag.session.0,
            sequence: tagged.tag.sequence,
            marker: tagged.marker.map(Into::into),
            acknowledged: tagged.acknowledged,
            digest: tagged.digest.to_be_bytes().to_vec(),
        }
    }
}

impl TryFrom<storage::Tagged> for Tagged {
    type Error = DecodeError;

    fn try_from(tagged: storage::Tagged) -> Result<Self, DecodeError> {
        Ok(Self {
            tag: Tag {
                session: SessionId(tagged.session),
                sequence: tagged.sequence,
            },
            marker: tagged.marker.map(Marker::try_from).transpose()?,
            acknowledged: tagged.acknowledged,
            digest: bytes_16("tagged.digest", &tagged.digest)?,
        })
    }
}

impl From<&Command> for storage::Command {
    fn from(command: &Command) -> Self {
        let kind = match command {
            Command::Found(ask) => Kind::Found(storage::Found {
                cluster_id: ask.cluster.0.to_be_bytes().to_vec(),
                settings: Some((&ask.settings).into()),
            }),
            Command::OpenSession(ask) => Kind::OpenSession(storage::OpenSession {
                marker: Some(ask.marker.into()),
            }),
            Command::CloseSession => Kind::CloseSession(storage::CloseSession {}),
            Command::SettleRequest => Kind::SettleRequest(storage::SettleRequest {}),
            Command::RegisterNode(ask) => Kind::RegisterNode(storage::RegisterNode {
                name: ask.name.as_str().to_owned(),
                marker: ask.marker.map(Into::into),
                address: ask.address.clone(),
                location: ask.location.as_str().to_owned(),
            }),
            Command::ActivateNode(ask) => Kind::ActivateNode(storage::ActivateNode {
                node: ask.node.0,
                marker: Some(ask.marker.into()),
                incarnation: ask.incarnation.0,
                attempt: ask.attempt,
            }),
            Command::SetStorageState(ask) => Kind::SetStorageState(set_storage_state(ask)),
            Command::Keys(op) => Kind::Keys(op.into()),
            Command::Compact(ask) => Kind::Compact(storage::Compact {
                revision: ask.revision.0,
            }),
            Command::GrantLease(ask) => Kind::GrantLease(storage::GrantLease {
                lease: ask.lease.0,
                ttl_s: ask.ttl_s,
            }),
            Command::RevokeLease(lease) => {
                Kind::RevokeLease(storage::RevokeLease { lease: lease.0 })
            }
            Command::RenewLease(lease) => Kind::RenewLease(storage::RenewLease { lease: lease.0 }),
            Command::PassLeaseTime(ask) => Kind::PassLeaseTime(storage::PassLeaseTime {
                term: ask.term,
                from_ms: ask.from_ms,
                passed_ms: ask.passed_ms,
            }),
            Command::ReclaimVersions => Kind::ReclaimVersions(storage::ReclaimVersions {}),
        };
        Self { kind: Some(kind) }
    }
}

fn set_storage_state(ask: &SetStorageState) -> storage::SetStorageState {
    let actor = match &ask.actor {
        Actor::Node {
            marker,
            incarnation,
        } => ActorMessage::ByNode(storage::NodeActor {
            marker: Some((*marker).into()),
            incarnation: incarnation.0,
        }),
        Actor::Operator {
            expected_revision,
            force,
        } => ActorMessage::ByOperator(storage::OperatorActor {
            expected_revision: expected_revision.map(|revision| revision.0),
            force_confirm_name: force.as_ref().map(|force| force.confirm_name.clone()),
        }),
    };
    storage::SetStorageState {
        node: ask.node.0,
        to: storage::StorageState::from(ask.to).into(),
        actor: Some(actor),
        reason: ask.reason.clone(),
    }
}

impl TryFrom<storage::Command> for Command {
    type Error = DecodeError;

    fn try_from(command: storage::Command) -> Result<Self, DecodeError> {
        Ok(match required("command.kind", command.kind)? {
            Kind::Found(ask) => Self::Found(Found {
                cluster: ClusterId(bytes_16("found.cluster_id", &ask.cluster_id)?),
                settings: required("found.settings", ask.settings)?.try_into()?,
            }),
            Kind::OpenSession(ask) => Self::OpenSession(OpenSession {
                marker: required("open_session.marker", ask.marker)?.try_into()?,
            }),
            Kind::CloseSession(_) => Self::CloseSession,
            Kind::SettleRequest(_) => Self::SettleRequest,
            Kind::RegisterNode(ask) => Self::RegisterNode(RegisterNode {
                name: NodeName::new(ask.name)?,
                marker: ask.marker.map(Marker::try_from).transpose()?,
                address: ask.address,
                location: Location::new(ask.location)?,
            }),
            Kind::ActivateNode(ask) => Self::ActivateNode(ActivateNode {
                node: NodeId(ask.node),
                marker: required("activate_node.marker", ask.marker)?.try_into()?,
                incarnation: Incarnation(ask.incarnation),
                attempt: ask.attempt,
            }),
            Kind::SetStorageState(ask) => Self::SetStorageState(ask.try_into()?),
            Kind::Keys(op) => Self::Keys(op.try_into()?),
            Kind::Compact(ask) => Self::Compact(Compact {
                revision: Revision(ask.revision),
            }),
            Kind::GrantLease(ask) => Self::GrantLease(GrantLease {
                lease: LeaseId(ask.lease),
                ttl_s: ask.ttl_s,
            }),
            Kind::RevokeLease(ask) => Self::RevokeLease(LeaseId(ask.lease)),
            Kind::RenewLease(ask) => Self::RenewLease(LeaseId(ask.lease)),
            Kind::PassLeaseTime(ask) => Self::PassLeaseTime(PassLeaseTime {
                term: ask.term,
                from_ms: ask.from_ms,
                passed_ms: ask.passed_ms,
            }),
            Kind::ReclaimVersions(_) => Self::ReclaimVersions,
        })
    }
}

impl TryFrom<storage::SetStorageState> for SetStorageState {
    type Error = DecodeError;

    fn try_from(ask: storage::SetStorageState) -> Result<Self, DecodeError> {
        let actor = match required("set_storage_state.actor", ask.actor)? {
            ActorMessage::ByNode(node) => Actor::Node {
                marker: required("by_node.marker", node.marker)?.try_into()?,
                incarnation: Incarnation(node.incarnation),
            },
            ActorMessage::ByOperator(operator) => Actor::Operator {
                expected_revision: operator.expected_revision.map(Revision),
                force: operator
                    .force_confirm_name
                    .map(|confirm_name| Force { confirm_name }),
            },
        };
        Ok(Self {
            node: NodeId(ask.node),
            to: storage::StorageState::decode_required(ask.to)?,
            actor,
            reason: ask.reason,
        })
    }
}

impl From<&Settings> for storage::Settings {
    fn from(settings: &Settings) -> Self {
        let retry_check = match settings.retry_check {
            RetryCheck::Marker => storage::RetryCheck::Marker,
            RetryCheck::Relaxed => storage::RetryCheck::Relaxed,
        };
        Self {
            retry_check: retry_check.into(),
            replication: settings.replication.map(Into::into),
            session_idle_ms: settings.session_idle_ms,
            sessions_max: settings.sessions_max,
            outcomes_per_session_max: settings.outcomes_per_session_max,
        }
    }
}

impl TryFrom<storage::Settings> for Settings {
    type Error = DecodeError;

    fn try_from(settings: storage::Settings) -> Result<Self, DecodeError> {
        let retry_check = match storage::RetryCheck::try_from(settings.retry_check) {
            Ok(storage::RetryCheck::Marker) => RetryCheck::Marker,
            Ok(storage::RetryCheck::Relaxed) => RetryCheck::Relaxed,
            Ok(storage::RetryCheck::Unspecified) | Err(_) => {
                let found = settings.retry_check;
                return Err(DecodeError::new(
                    "settings.retry_check",
                    format!("found the number {found}, expected 1 or 2"),
                ));
            }
        };
        Ok(Self {
            retry_check,
            replication: settings.replication.map(TryInto::try_into).transpose()?,
            session_idle_ms: settings.session_idle_ms,
            sessions_max: settings.sessions_max,
            outcomes_per_session_max: settings.outcomes_per_session_max,
        })
    }
}

impl From<Replication> for storage::Replication {
    fn from(replication: Replication) -> Self {
        let scope = match replication.scope {
            Scope::Node => storage::Scope::Node,
            Scope::Zone => storage::Scope::Zone,
            Scope::Region => storage::Scope::Region,
        };
        Self {
            scope: scope.into(),
            copies: replication.copies,
        }
    }
}

impl TryFrom<storage::Replication> for Replication {
    type Error = DecodeError;

    fn try_from(replication: storage::Replication) -> Result<Self, DecodeError> {
        let scope = match storage::Scope::try_from(replication.scope) {
            Ok(storage::Scope::Node) => Scope::Node,
            Ok(storage::Scope::Zone) => Scope::Zone,
            Ok(storage::Scope::Region) => Scope::Region,
            Ok(storage::Scope::Unspecified) | Err(_) => {
                let found = replication.scope;
                return Err(DecodeError::new(
                    "replication.scope",
                    format!("found the number {found}, expected 1 to 3"),
                ));
            }
        };
        Ok(Self {
            scope,
            copies: replication.copies,
        })
    }
}
