//! A log server that changes its own storage state for ever: one session, one command at a time.

use anyhow::{Context, Result, ensure};
use tally_proto::v1;
use tonic::transport::Channel;
use v1::nodes_client::NodesClient;

use super::again::until_answered;
use crate::answer::AnswerExt;
use crate::requester::Requester;

/// A registered and activated node with its session.
#[derive(Debug)]
pub struct Writer {
    requester: Requester,
    client: NodesClient<Channel>,
    node: u32,
    incarnation: u64,
    next: v1::StorageState,
    /// How often a request had to be sent again.
    pub repeats: u64,
}

impl Writer {
    /// Registers and activates `name` through the member at `address`; its commands go over `channel`.
    ///
    /// # Errors
    /// When it is not answered or is refused.
    pub async fn provision(address: &str, channel: Channel, name: &str) -> Result<Self> {
        let mut requester = Requester::open(address).await?;
        let (node, incarnation) = requester.register(address, name).await?;
        let activated = requester.activate(address, node, incarnation).await?;
        ensure!(
            activated.applied().is_some(),
            "{name} was not activated: {activated:?}"
        );
        requester.acknowledge_all();
        Ok(Self {
            requester,
            client: NodesClient::new(channel),
            node,
            incarnation,
            next: v1::StorageState::ReadOnly,
            repeats: 0,
        })
    }

    /// Sends the next command, again and again until it is answered, and sees to it that it took
    /// effect.
    ///
    /// # Errors
    /// When it is refused, turned down for good, or not answered after very many attempts.
    pub async fn write(&mut self) -> Result<()> {
        let marker = self.requester.marker();
        let owner = (self.node, self.incarnation);
        let ask = self.requester.set_own_state(owner, marker, self.next);
        let response = until_answered(
            &self.client,
            ask,
            &mut self.repeats,
            |mut client, ask| async move { client.set_state(ask).await },
        );
        let answer = response.await?.answer;
        let answer = answer.context("the response carries no answer")?;
        ensure!(
            answer.took_effect().is_some(),
            "a command of node {} was refused: {answer:?}",
            self.node
        );
        self.requester.acknowledge_all();
        self.next = match self.next {
            v1::StorageState::ReadOnly => v1::StorageState::ReadWrite,
            _ => v1::StorageState::ReadOnly,
        };
        Ok(())
    }
}
