//! Commands as they go over the wire, so that a test can send the very same one again.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use tally_proto::v1;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use v1::nodes_client::NodesClient;

use crate::deadline::until;
use crate::requester::channel;

/// How long one attempt may take.
const ATTEMPT: Duration = Duration::from_secs(5);

/// A tagged command.
#[derive(Clone, Debug, PartialEq)]
pub enum Call {
    Register(v1::RegisterRequest),
    Activate(v1::ActivateRequest),
    SetState(v1::SetStateRequest),
}

impl Call {
    /// Who asks, and which of its requests this is.
    pub fn tag(&self) -> Option<&v1::Tag> {
        match self {
            Self::Register(ask) => ask.tag.as_ref(),
            Self::Activate(ask) => ask.tag.as_ref(),
            Self::SetState(ask) => ask.tag.as_ref(),
        }
    }
}

/// Sends it once.
///
/// # Errors
/// As the member or the connection says.
pub async fn send(to: &Channel, call: &Call, within: Duration) -> Result<v1::Answer, Status> {
    send_with(to, call, Some(within)).await
}

/// Sends it once and waits for as long as the member lets it wait.
///
/// # Errors
/// As the member or the connection says.
pub async fn send_unhurried(to: &Channel, call: &Call) -> Result<v1::Answer, Status> {
    send_with(to, call, None).await
}

async fn send_with(
    to: &Channel,
    call: &Call,
    within: Option<Duration>,
) -> Result<v1::Answer, Status> {
    let mut client = NodesClient::new(to.clone());
    let answer = match call {
        Call::Register(ask) => {
            client
                .register(request(ask, within))
                .await?
                .into_inner()
                .answer
        }
        Call::Activate(ask) => {
            client
                .activate(request(ask, within))
                .await?
                .into_inner()
                .answer
        }
        Call::SetState(ask) => {
            client
                .set_state(request(ask, within))
                .await?
                .into_inner()
                .answer
        }
    };
    answer.ok_or_else(|| Status::data_loss("the response carries no answer"))
}

/// Sends the same call to one address until it is answered.
///
/// # Errors
/// When it is not answered within the time, or refused in a way that sending again cannot mend.
pub async fn send_until_answered(to: &str, call: &Call, within: Duration) -> Result<v1::Answer> {
    let answered = until("an answer", within, async || {
        let channel = channel(to).await?;
        match send(&channel, call, ATTEMPT).await {
            Ok(answer) => Ok(Ok(answer)),
            Err(status) if is_final(&status) => Ok(Err(status)),
            Err(status) => bail!("{status}"),
        }
    });
    answered
        .await?
        .with_context(|| format!("{to} turned the call down: {call:?}"))
}

pub(crate) fn timed<T: Clone>(ask: &T, within: Duration) -> Request<T> {
    request(ask, Some(within))
}

fn request<T: Clone>(ask: &T, within: Option<Duration>) -> Request<T> {
    let mut request = Request::new(ask.clone());
    if let Some(within) = within {
        request.set_timeout(within);
    }
    request
}

/// Sending the same again would bring the same.
pub(crate) fn is_final(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::InvalidArgument
            | Code::FailedPrecondition
            | Code::PermissionDenied
            | Code::Unimplemented
            | Code::DataLoss
    )
}
