//! The calls of the public services, each as a value that can be sent again and again.

use std::future::Future;
use std::time::Duration;

use tally_proto::v1;
use tonic::transport::Channel;
use tonic::{Request, Status};
use v1::cluster_client::ClusterClient;
use v1::nodes_client::NodesClient;
use v1::sessions_client::SessionsClient;

use crate::answer::{self, Answer, Refused};

/// Longest message that a client takes: a page of 1000 history entries with the longest reasons.
const RESPONSE_BYTES_MAX: usize = 16 << 20;

/// One call, which may be sent any number of times.
pub(crate) trait Call: Sync {
    /// What it is answered with.
    type Answer: Send;

    /// Sends it once and tells the member how long the answer is waited for.
    fn send(
        &self,
        channel: Channel,
        within: Duration,
    ) -> impl Future<Output = Result<Self::Answer, Status>> + Send;
}

macro_rules! calls {
    ($($ask:ident => $client:ident.$method:ident -> $answer:ident),* $(,)?) => {$(
        impl Call for v1::$ask {
            type Answer = v1::$answer;

            async fn send(&self, channel: Channel, within: Duration) -> Result<v1::$answer, Status> {
                let mut request = Request::new(self.clone());
                request.set_timeout(within);
                let mut client =
                    $client::new(channel).max_decoding_message_size(RESPONSE_BYTES_MAX);
                Ok(client.$method(request).await?.into_inner())
            }
        }
    )*};
}

calls! {
    OpenSessionRequest => SessionsClient.open -> OpenSessionResponse,
    CloseSessionRequest => SessionsClient.close -> CloseSessionResponse,
    SettleRequest => SessionsClient.settle -> SettleResponse,
    RegisterRequest => NodesClient.register -> RegisterResponse,
    ActivateRequest => NodesClient.activate -> ActivateResponse,
    SetStateRequest => NodesClient.set_state -> SetStateResponse,
    GetRequest => NodesClient.get -> GetResponse,
    ListRequest => NodesClient.list -> ListResponse,
    HistoryRequest => NodesClient.history -> HistoryResponse,
    ClaimsRequest => NodesClient.claims -> ClaimsResponse,
    StatusRequest => ClusterClient.status -> StatusResponse,
    TransferLeaderRequest => ClusterClient.transfer_leader -> TransferLeaderResponse,
    SnapshotRequest => ClusterClient.snapshot -> SnapshotResponse,
    ReplaceMemberRequest => ClusterClient.replace_member -> ReplaceMemberResponse,
}

/// A call that is answered with an outcome.
pub(crate) trait Command: Call {
    /// Puts the tag under which it goes out.
    fn put_tag(&mut self, tag: v1::Tag);

    /// The outcome in the response.
    fn answer(response: Self::Answer) -> Option<v1::Answer>;
}

macro_rules! commands {
    ($($ask:ident),* $(,)?) => {$(
        impl Command for v1::$ask {
            fn put_tag(&mut self, tag: v1::Tag) {
                self.tag = Some(tag);
            }

            fn answer(response: Self::Answer) -> Option<v1::Answer> {
                response.answer
            }
        }
    )*};
}

commands!(
    CloseSessionRequest,
    SettleRequest,
    RegisterRequest,
    ActivateRequest,
    SetStateRequest
);

/// A call that goes out under a tag and may be refused.
pub(crate) trait Tagged: Call {
    /// Puts the tag under which it goes out.
    fn put_tag(&mut self, tag: v1::Tag);

    /// The refusal, when the answer is one.
    fn refused(answer: &Self::Answer) -> Option<&Refused>;
}

/// A command together with the reading of its answer, so that an unreadable answer counts as none.
pub(crate) struct Answered<C>(pub(crate) C);

impl<C: Command> Call for Answered<C> {
    type Answer = Answer;

    async fn send(&self, channel: Channel, within: Duration) -> Result<Answer, Status> {
        let response = self.0.send(channel, within).await?;
        answer::read(C::answer(response))
    }
}

impl<C: Command> Tagged for Answered<C> {
    fn put_tag(&mut self, tag: v1::Tag) {
        self.0.put_tag(tag);
    }

    fn refused(answer: &Answer) -> Option<&Refused> {
        answer.refused()
    }
}
