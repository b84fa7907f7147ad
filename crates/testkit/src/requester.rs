//! A requester that numbers its own commands: a session, a marker, and tags under the test's hand.

use std::time::Duration;

use anyhow::{Context, Result};
use tally_proto::v1;
use tonic::transport::{Channel, Endpoint};
use v1::sessions_client::SessionsClient;

use crate::answer::AnswerExt;
use crate::call::{Call, send_until_answered, timed};
use crate::deadline::until;

const CONNECT_WITHIN: Duration = Duration::from_secs(2);
const OPEN_ATTEMPT: Duration = Duration::from_secs(5);
/// Longer than an election and a restart on a busy machine.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// Connects to `HOST:PORT`.
///
/// # Errors
/// When nobody listens there.
pub async fn channel(address: &str) -> Result<Channel> {
    Endpoint::from_shared(format!("http://{address}"))?
        .connect_timeout(CONNECT_WITHIN)
        .connect()
        .await
        .with_context(|| format!("connecting to {address}"))
}

/// A channel to `HOST:PORT` that connects when it is used, and again when it has to.
///
/// # Errors
/// When the address is none.
pub fn lazy_channel(address: &str) -> Result<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?;
    Ok(endpoint.connect_timeout(CONNECT_WITHIN).connect_lazy())
}

/// A marker that nobody has.
pub fn fresh_marker() -> v1::Marker {
    v1::Marker {
        bits: rand::random::<[u8; 16]>().to_vec(),
        created_unix_ms: 1_700_000_000_000,
    }
}

/// One session and the sequence numbers that it has used.
#[derive(Clone, Debug)]
pub struct Requester {
    marker: v1::Marker,
    session: u64,
    sequence: u64,
    acknowledged: u64,
}

impl Requester {
    /// Opens a session under a fresh marker through the member at `address`.
    ///
    /// # Errors
    /// When it is not answered in time.
    pub async fn open(address: &str) -> Result<Self> {
        Self::open_as(address, fresh_marker()).await
    }

    /// Opens a session under the given marker.
    ///
    /// # Errors
    /// When it is not answered in time.
    pub async fn open_as(address: &str, marker: v1::Marker) -> Result<Self> {
        until("an open session", ANSWER_WITHIN, async || {
            Self::try_open(&channel(address).await?, marker.clone()).await
        })
        .await
    }

    /// Asks once for a session under the given marker.
    ///
    /// # Errors
    /// When it is not answered; at worst an idle session is left.
    pub async fn try_open(to: &Channel, marker: v1::Marker) -> Result<Self> {
        let ask = v1::OpenSessionRequest {
            marker: Some(marker.clone()),
        };
        let mut client = SessionsClient::new(to.clone());
        let response = client.open(timed(&ask, OPEN_ATTEMPT)).await?.into_inner();
        let answer = response.answer.context("no answer in the response")?;
        let session = answer
            .session()
            .with_context(|| format!("no session opened: {answer:?}"))?;
        Ok(Self {
            marker,
            session,
            sequence: 0,
            acknowledged: 1,
        })
    }

    /// The marker under which the session was opened.
    pub fn marker(&self) -> v1::Marker {
        self.marker.clone()
    }

    /// The next request's tag.
    pub fn next_tag(&mut self) -> v1::Tag {
        self.sequence += 1;
        v1::Tag {
            session: self.session,
            sequence: self.sequence,
            acknowledged: self.acknowledged,
            marker: Some(self.marker.clone()),
        }
    }

    /// Tells with the next request that all earlier ones are answered.
    pub fn acknowledge_all(&mut self) {
        self.acknowledged = self.sequence + 1;
    }

    /// A registration under the next tag.
    pub fn register_call(&mut self, name: &str, marker: Option<v1::Marker>) -> Call {
        Call::Register(v1::RegisterRequest {
            tag: Some(self.next_tag()),
            name: name.to_owned(),
            marker,
            address: String::new(),
            location: String::new(),
            cluster_id: Vec::new(),
        })
    }

    /// An activation under the next tag and the session's marker.
    pub fn activate_call(&mut self, node: u32, incarnation: u64) -> Call {
        let marker = self.marker();
        self.activate_call_as(node, incarnation, marker)
    }

    /// An activation under the next tag and any marker.
    pub fn activate_call_as(&mut self, node: u32, incarnation: u64, marker: v1::Marker) -> Call {
        Call::Activate(v1::ActivateRequest {
            tag: Some(self.next_tag()),
            node,
            marker: Some(marker),
            incarnation,
            attempt: 1,
        })
    }

    /// An operator's change under the next tag.
    pub fn set_state_call(&mut self, node: u32, to: v1::StorageState, expected: u64) -> Call {
        let operator = v1::OperatorActor {
            expected_revision: expected,
            force: None,
        };
        Call::SetState(v1::SetStateRequest {
            tag: Some(self.next_tag()),
            node,
            to: to.into(),
            actor: Some(v1::set_state_request::Actor::ByOperator(operator)),
            reason: String::new(),
        })
    }

    /// A node's own change under the next tag and any marker.
    pub fn set_own_state(
        &mut self,
        (node, incarnation): (u32, u64),
        marker: v1::Marker,
        to: v1::StorageState,
    ) -> v1::SetStateRequest {
        let owner = v1::NodeActor {
            marker: Some(marker),
            incarnation,
        };
        v1::SetStateRequest {
            tag: Some(self.next_tag()),
            node,
            to: to.into(),
            actor: Some(v1::set_state_request::Actor::ByNode(owner)),
            reason: String::new(),
        }
    }

    /// [`Self::set_own_state`] as a call.
    pub fn set_own_state_call(
        &mut self,
        owner: (u32, u64),
        marker: v1::Marker,
        to: v1::StorageState,
    ) -> Call {
        Call::SetState(self.set_own_state(owner, marker, to))
    }

    /// Registers `name`, showing the session's marker, and returns the node and its incarnation.
    ///
    /// # Errors
    /// When it is refused or not answered in time.
    pub async fn register(&mut self, address: &str, name: &str) -> Result<(u32, u64)> {
        let marker = self.marker();
        let call = self.register_call(name, Some(marker));
        let answer = send_until_answered(address, &call, ANSWER_WITHIN).await?;
        answer
            .registered()
            .with_context(|| format!("{name} was not registered: {answer:?}"))
    }

    /// Activates under the next tag and the session's marker.
    ///
    /// # Errors
    /// When it is not answered in time. A refusal is an answer.
    pub async fn activate(
        &mut self,
        address: &str,
        node: u32,
        incarnation: u64,
    ) -> Result<v1::Answer> {
        let call = self.activate_call(node, incarnation);
        send_until_answered(address, &call, ANSWER_WITHIN).await
    }
}
