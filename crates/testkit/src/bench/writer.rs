//! A log server that changes its own storage state for ever: one session, one command at a time.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tally_proto::v1;
use tokio::time::sleep;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use v1::nodes_client::NodesClient;

use crate::answer::AnswerExt;
use crate::requester::Requester;

/// As a client sets it: long enough for an election on a busy machine.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Pause before the same request is sent again. Short: a gap must be the cluster's, not the writer's.
const AGAIN_AFTER: Duration = Duration::from_millis(1);
/// Requests sent again before the writer gives up.
const ATTEMPTS_MAX: usize = 60_000;

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
        let answer = self.until_answered(&ask).await?;
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

    async fn until_answered(&mut self, ask: &v1::SetStateRequest) -> Result<v1::Answer> {
        for _ in 0..ATTEMPTS_MAX {
            let mut request = Request::new(ask.clone());
            request.set_timeout(ANSWER_WITHIN);
            match self.client.set_state(request).await {
                Ok(response) => {
                    let answer = response.into_inner().answer;
                    return answer.context("the response carries no answer");
                }
                Err(status) if may_pass(&status) => {
                    self.repeats += 1;
                    sleep(AGAIN_AFTER).await;
                }
                Err(status) => return Err(status).context("turned down for good"),
            }
        }
        anyhow::bail!("no answer after {ATTEMPTS_MAX} attempts")
    }
}

/// Sending the same again may bring an answer.
fn may_pass(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable
            | Code::DeadlineExceeded
            | Code::Cancelled
            | Code::Unknown
            | Code::Aborted
            | Code::ResourceExhausted
            | Code::Internal
    )
}
