//! Commands: register, activate, set the state, settle a tag, close the session.

use tally_model::{Marker, StorageState};
use tally_proto::v1;
use v1::set_state_request::Actor;

use crate::answer::Answer;
use crate::call::Answered;
use crate::client::{Client, NOT_FOUNDED, TOO_MANY_UNACKNOWLEDGED, send_under};
use crate::error::Error;
use crate::retry::{GaveUp, OnDoubt};
use crate::token::TagToken;

/// Codes with which the cluster refuses to settle a tag for now; the request may still take effect.
const NOT_SETTLED: [&str; 2] = [NOT_FOUNDED, TOO_MANY_UNACKNOWLEDGED];

/// A log server announces itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Register {
    /// 1 to 128 bytes, no control characters.
    pub name: String,
    /// The marker on the log server's disk; `None` when there is none.
    pub marker: Option<Marker>,
    /// Where clients of the log server reach it; at most 256 bytes, may be empty.
    pub address: String,
    /// `region` or `region.zone`; empty when unknown.
    pub location: String,
    /// The only cluster that will do; `None`: any. Another one turns the call down with T-005.
    pub cluster_id: Option<u128>,
}

impl Register {
    /// A registration under a name, with everything else empty.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            ..Self::default()
        }
    }
}

/// A log server asks to move from `provisioning` to `read-write`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Activate {
    /// As answered by the registration.
    pub node: u32,
    /// The marker on the log server's disk.
    pub marker: Marker,
    /// As answered by the registration.
    pub incarnation: u64,
    /// 1 when nobody can have asked for it before, more when this process or an earlier one may have.
    /// Only clusters founded with the relaxed retry check look at it. Retries within one call do not
    /// count: they go out under one tag, which the cluster recognises.
    pub attempt: u32,
}

/// Someone asks to change a node's storage state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetState {
    /// Which node.
    pub node: u32,
    /// The state to move to.
    pub to: StorageState,
    /// Who asks.
    pub by: By,
    /// Free text for the history, at most 1024 bytes.
    pub reason: String,
}

/// Who asks for a change of state, and what shows that they may.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum By {
    /// The log server itself.
    Node {
        /// The marker on its disk.
        marker: Marker,
        /// As answered by its registration.
        incarnation: u64,
    },
    /// A person.
    Operator {
        /// The node's revision when the person looked at it; required unless forced.
        expected_revision: Option<u64>,
        /// Overrides the transition table: the node's name, typed again.
        force: Option<String>,
    },
}

impl From<Register> for v1::RegisterRequest {
    fn from(ask: Register) -> Self {
        let cluster_id = ask.cluster_id.map(|id| id.to_be_bytes().to_vec());
        Self {
            tag: None,
            name: ask.name,
            marker: ask.marker.map(Into::into),
            address: ask.address,
            location: ask.location,
            cluster_id: cluster_id.unwrap_or_default(),
        }
    }
}

impl From<Activate> for v1::ActivateRequest {
    fn from(ask: Activate) -> Self {
        Self {
            tag: None,
            node: ask.node,
            marker: Some(ask.marker.into()),
            incarnation: ask.incarnation,
            attempt: ask.attempt,
        }
    }
}

impl From<SetState> for v1::SetStateRequest {
    fn from(ask: SetState) -> Self {
        let actor = match ask.by {
            By::Node {
                marker,
                incarnation,
            } => Actor::ByNode(v1::NodeActor {
                marker: Some(marker.into()),
                incarnation,
            }),
            By::Operator {
                expected_revision,
                force,
            } => Actor::ByOperator(v1::OperatorActor {
                expected_revision: expected_revision.unwrap_or_default(),
                force: force.map(|confirm_name| v1::Force { confirm_name }),
            }),
        };
        Self {
            tag: None,
            node: ask.node,
            to: v1::StorageState::from(ask.to).into(),
            actor: Some(actor),
            reason: ask.reason,
        }
    }
}

impl Client {
    /// Registers a log server: a new name gets a node, a known one its next incarnation, which fences
    /// the older ones.
    ///
    /// # Errors
    /// When there was no answer, see [`Error`]. A refusal is an answer.
    pub async fn register(&self, ask: Register) -> Result<Answer, Error> {
        self.command(v1::RegisterRequest::from(ask)).await
    }

    /// Moves a node from `provisioning` to `read-write` and binds its marker. Idempotent by marker.
    ///
    /// # Errors
    /// When there was no answer, see [`Error`]. A refusal is an answer.
    pub async fn activate(&self, ask: Activate) -> Result<Answer, Error> {
        self.command(v1::ActivateRequest::from(ask)).await
    }

    /// Changes a node's storage state.
    ///
    /// # Errors
    /// When there was no answer, see [`Error`]. A refusal is an answer.
    pub async fn set_state(&self, ask: SetState) -> Result<Answer, Error> {
        self.command(v1::SetStateRequest::from(ask)).await
    }

    /// Settles a request in doubt, of this client or another process: the original answer, with
    /// [`Answer::repeat`] set, or a refusal with code T-206 when it never took effect. Either way
    /// nothing more becomes of it. A refusal with code T-201 says that the session has ended, so that
    /// only the node's history can tell.
    ///
    /// # Errors
    /// [`Error::Unknown`] with the same token when this was not answered either; it may be asked any
    /// number of times.
    pub async fn resume(&self, token: &TagToken) -> Result<Answer, Error> {
        let ask = v1::SettleRequest {
            tag: Some(token.to_tag()),
        };
        let ask = Answered(ask);
        let mut attempts = self.attempts();
        loop {
            let answer = match attempts.until_answered(&ask, OnDoubt::Ignore).await {
                Ok(answer) => answer,
                Err(GaveUp::Rejected(fault)) => return Err(Error::rejected(fault)),
                Err(GaveUp::Deadline | GaveUp::InDoubt(_)) => {
                    return Err(Error::Unknown {
                        tag: *token,
                        last: attempts.last().to_owned(),
                    });
                }
            };
            if let Some(refused) = answer.refused()
                && NOT_SETTLED.contains(&refused.code.as_str())
            {
                let found = refused.to_string();
                attempts.answered_without_outcome(found).await;
                continue;
            }
            // Without the session the answer is the same; its number merely stays unacknowledged.
            let current = self.lock_session(&attempts).await;
            if let Some(session) = current.as_ref().and_then(|current| current.as_ref()) {
                session.settled(token);
            }
            return Ok(answer);
        }
    }

    /// Ends the session when one is open; its tags are refused from then on. A session that is not
    /// closed ends by itself after some time unused, so an error here does no harm. Call it when no
    /// other request is under way; the next command opens another session.
    ///
    /// # Errors
    /// When there was no answer, see [`Error`].
    pub async fn close(&self) -> Result<(), Error> {
        let mut attempts = self.attempts();
        let current = self.lock_session(&attempts).await;
        let taken = current.ok_or_else(|| attempts.not_applied())?.take();
        let Some(session) = taken else {
            return Ok(());
        };
        let ticket = session.ticket();
        let ask = Answered(v1::CloseSessionRequest {
            tag: Some(ticket.tag()),
        });
        match send_under(&mut attempts, &ask, ticket).await {
            // Refused because it has ended, by an earlier attempt or by itself, or in doubt: it ends.
            Ok(_) | Err(Error::Unknown { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }
}
