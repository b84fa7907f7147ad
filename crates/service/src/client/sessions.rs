//! `tally.v1.Sessions`.

use std::sync::Arc;

use tally_model::View;
use tally_proto::v1::sessions_server::Sessions;
use tally_proto::v1::{
    CloseSessionRequest, CloseSessionResponse, OpenSessionRequest, OpenSessionResponse,
    SettleRequest, SettleResponse,
};
use tonic::{Request, Response, Status};

use crate::fault;
use crate::member::Member;

pub(super) struct SessionsAnswers(pub(super) Arc<Member>);

#[tonic::async_trait]
impl Sessions for SessionsAnswers {
    async fn open(
        &self,
        request: Request<OpenSessionRequest>,
    ) -> Result<Response<OpenSessionResponse>, Status> {
        let (metadata, _, ask) = request.into_parts();
        let answer = self
            .0
            .propose("Sessions.Open", &metadata, ask.try_into())
            .await?;
        let settings = self.0.stores.state.with_view(|view| view.globals().founded);
        let settings = settings.map_err(|error| fault::disk(&error))?;
        Ok(Response::new(OpenSessionResponse {
            answer: Some(answer.into()),
            // A follower may not have applied the founding yet although it passed this on.
            idle_ms: settings.map_or(0, |(_, settings)| settings.session_idle_ms),
        }))
    }

    async fn close(
        &self,
        request: Request<CloseSessionRequest>,
    ) -> Result<Response<CloseSessionResponse>, Status> {
        let (metadata, _, ask) = request.into_parts();
        let answer = self
            .0
            .propose("Sessions.Close", &metadata, ask.try_into())
            .await?;
        Ok(Response::new(CloseSessionResponse {
            answer: Some(answer.into()),
        }))
    }

    async fn settle(
        &self,
        request: Request<SettleRequest>,
    ) -> Result<Response<SettleResponse>, Status> {
        let (metadata, _, ask) = request.into_parts();
        let answer = self
            .0
            .propose("Sessions.Settle", &metadata, ask.try_into())
            .await?;
        Ok(Response::new(SettleResponse {
            answer: Some(answer.into()),
        }))
    }
}
