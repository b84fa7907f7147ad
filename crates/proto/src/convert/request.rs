//! What clients ask, checked: every bound is looked at here, and nowhere else.

use tally_model::command::{
    ADDRESS_BYTES_MAX, ActivateNode, Force, OpenSession, REASON_BYTES_MAX, RegisterNode,
    SetStorageState,
};
use tally_model::{
    Actor, Command, Incarnation, Location, Marker, NodeId, NodeName, Request, Revision, SessionId,
    Tag, Tagged,
};

use super::command::digest;
use super::{DecodeError, required};
use crate::v1;

fn tagged_request(tag: Option<v1::Tag>, command: Command) -> Result<Request, DecodeError> {
    let tag = required("tag", tag)?;
    if tag.session == 0 {
        return Err(DecodeError::new(
            "tag.session",
            "found 0, expected the id of an open session",
        ));
    }
    if tag.sequence == 0 {
        return Err(DecodeError::new(
            "tag.sequence",
            "found 0, expected 1 or more",
        ));
    }
    // The last number has none after it up to which it could be forgotten.
    if tag.sequence == u64::MAX {
        return Err(DecodeError::new(
            "tag.sequence",
            format!("found {}, expected less", tag.sequence),
        ));
    }
    if tag.acknowledged == 0 || tag.acknowledged > tag.sequence {
        return Err(DecodeError::new(
            "tag.acknowledged",
            format!(
                "found {}, expected 1 to the sequence, which is {}",
                tag.acknowledged, tag.sequence
            ),
        ));
    }
    let tagged = Tagged {
        tag: Tag {
            session: SessionId(tag.session),
            sequence: tag.sequence,
        },
        marker: Some(required("tag.marker", tag.marker)?.try_into()?),
        acknowledged: tag.acknowledged,
        digest: digest(&command),
    };
    Ok(Request {
        tagged: Some(tagged),
        command,
    })
}

fn text(what: &'static str, text: String, bytes_max: usize) -> Result<String, DecodeError> {
    if text.len() > bytes_max {
        let found = text.len();
        return Err(DecodeError::new(
            what,
            format!("found {found} bytes, at most {bytes_max} are allowed"),
        ));
    }
    if let Some(control) = text.chars().find(|c| c.is_control()) {
        return Err(DecodeError::new(
            what,
            format!("found the control character {control:?}, which is not allowed"),
        ));
    }
    Ok(text)
}

fn node_id(node: u32) -> Result<NodeId, DecodeError> {
    if node == 0 {
        return Err(DecodeError::new(
            "node",
            "found 0, expected a node's id, which is 1 or more",
        ));
    }
    Ok(NodeId(node))
}

fn incarnation(incarnation: u64) -> Result<Incarnation, DecodeError> {
    if incarnation == 0 {
        return Err(DecodeError::new(
            "incarnation",
            "found 0, expected what Register answered, 1 or more",
        ));
    }
    Ok(Incarnation(incarnation))
}

impl TryFrom<v1::OpenSessionRequest> for Request {
    type Error = DecodeError;

    fn try_from(ask: v1::OpenSessionRequest) -> Result<Self, DecodeError> {
        let marker = required("marker", ask.marker)?.try_into()?;
        Ok(Self {
            tagged: None,
            command: Command::OpenSession(OpenSession { marker }),
        })
    }
}

impl TryFrom<v1::CloseSessionRequest> for Request {
    type Error = DecodeError;

    fn try_from(ask: v1::CloseSessionRequest) -> Result<Self, DecodeError> {
        tagged_request(ask.tag, Command::CloseSession)
    }
}

impl TryFrom<v1::SettleRequest> for Request {
    type Error = DecodeError;

    fn try_from(ask: v1::SettleRequest) -> Result<Self, DecodeError> {
        tagged_request(ask.tag, Command::SettleRequest)
    }
}

impl TryFrom<v1::RegisterRequest> for Request {
    type Error = DecodeError;

    /// The cluster id is for the service to compare; it is not part of the command.
    fn try_from(ask: v1::RegisterRequest) -> Result<Self, DecodeError> {
        let command = Command::RegisterNode(RegisterNode {
            name: NodeName::new(ask.name)?,
            marker: ask.marker.map(Marker::try_from).transpose()?,
            address: text("address", ask.address, ADDRESS_BYTES_MAX)?,
            location: Location::new(ask.location)?,
        });
        tagged_request(ask.tag, command)
    }
}

impl TryFrom<v1::ActivateRequest> for Request {
    type Error = DecodeError;

    fn try_from(ask: v1::ActivateRequest) -> Result<Self, DecodeError> {
        let command = Command::ActivateNode(ActivateNode {
            node: node_id(ask.node)?,
            marker: required("marker", ask.marker)?.try_into()?,
            incarnation: incarnation(ask.incarnation)?,
            attempt: ask.attempt.max(1),
        });
        tagged_request(ask.tag, command)
    }
}

impl TryFrom<v1::SetStateRequest> for Request {
    type Error = DecodeError;

    fn try_from(ask: v1::SetStateRequest) -> Result<Self, DecodeError> {
        let actor = match required("actor", ask.actor)? {
            v1::set_state_request::Actor::ByNode(node) => Actor::Node {
                marker: required("by_node.marker", node.marker)?.try_into()?,
                incarnation: incarnation(node.incarnation)?,
            },
            v1::set_state_request::Actor::ByOperator(operator) => Actor::Operator {
                expected_revision: (operator.expected_revision > 0)
                    .then_some(Revision(operator.expected_revision)),
                force: operator.force.map(force).transpose()?,
            },
        };
        let command = Command::SetStorageState(SetStorageState {
            node: node_id(ask.node)?,
            to: v1::StorageState::decode_required(ask.to)?,
            actor,
            reason: text("reason", ask.reason, REASON_BYTES_MAX)?,
        });
        tagged_request(ask.tag, command)
    }
}

fn force(force: v1::Force) -> Result<Force, DecodeError> {
    let confirm_name = text(
        "force.confirm_name",
        force.confirm_name,
        tally_model::NODE_NAME_BYTES_MAX,
    )?;
    Ok(Force { confirm_name })
}
