//! The service for other members.

use std::sync::Arc;

use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use tally_consensus::{LinkError, ReadError, Replica};
use tally_model::{ClusterId, MemberId};
use tally_proto::convert::bytes_16;
use tally_proto::fault::Fault;
use tally_proto::peer::peer_server::Peer;
use tally_proto::peer::{
    AppendRequest, AppendResponse, ForwardRequest, ForwardResponse, IdentifyRequest,
    IdentifyResponse, InstallSnapshotResponse, JoinRequest, JoinResponse, ReadIndexRequest,
    ReadIndexResponse, SnapshotFrame, StateHashesRequest, StateHashesResponse,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use tonic::{Code, Request, Response, Status, Streaming};

use super::Envelope;
use crate::formation;
use crate::member::{Member, cluster_bytes};

pub(super) struct PeerAnswers {
    pub(super) member: Arc<Member>,
}

impl PeerAnswers {
    /// The replica, for a call that is meant for it.
    fn replica<T>(&self, request: &Request<T>) -> Result<Replica, Status> {
        self.replica_for(request).map(|(replica, _)| replica)
    }

    /// The replica and who calls it.
    fn replica_for<T>(&self, request: &Request<T>) -> Result<(Replica, MemberId), Status> {
        let member = &self.member;
        let envelope = Envelope::check(request.metadata(), member.cluster(), member.id())?;
        let replica = member.replica().map_err(crate::fault::not_ready)?;
        Ok((replica, envelope.from))
    }

    /// A stream that ends with the server.
    fn until_end<T: Send + 'static>(
        &self,
        stream: impl futures::Stream<Item = T> + Send + 'static,
    ) -> BoxStream<'static, T> {
        let ended = self.member.ending.ended.clone();
        stream.take_until(ended.cancelled_owned()).boxed()
    }

    /// The requests of a stream up to the first that does not arrive, or until the server ends: a stream
    /// that nobody ends holds its connection open.
    fn arrived<T: Send + 'static>(
        &self,
        requests: Streaming<T>,
        from: MemberId,
    ) -> BoxStream<'static, T> {
        let arrived = requests
            .inspect_err(move |status| {
                // A member that goes away breaks its streams; anything else is worth a line.
                if !matches!(
                    status.code(),
                    Code::Cancelled | Code::Unknown | Code::Unavailable
                ) {
                    let why = status.message();
                    tracing::warn!(%from, why, "a stream of another member cannot be read and ends");
                }
            })
            .take_while(|request| futures::future::ready(request.is_ok()))
            .filter_map(|request| futures::future::ready(request.ok()));
        self.until_end(arrived)
    }
}

/// What was refused here, for the caller's log.
fn refused(error: LinkError) -> Status {
    crate::fault::wrong_peer(error.to_string())
}

#[tonic::async_trait]
impl Peer for PeerAnswers {
    async fn identify(
        &self,
        _request: Request<IdentifyRequest>,
    ) -> Result<Response<IdentifyResponse>, Status> {
        let member = &self.member;
        let membership = match member.replica() {
            Ok(replica) => replica.status().membership,
            Err(_) => Arc::default(),
        };
        Ok(Response::new(IdentifyResponse {
            member: member.id().0,
            name: member.config.name.clone(),
            formation: member.formation.clone(),
            cluster_id: member.cluster().map(cluster_bytes).unwrap_or_default(),
            membership: Some((&*membership).into()),
            client_address: member.config.advertise_client.clone(),
        }))
    }

    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinResponse>, Status> {
        let ask = request.into_inner();
        let member = &self.member;
        let refuse = |found: String| Err(crate::fault::wrong_peer(found));
        if ask.to != member.id().0 {
            return refuse(format!(
                "the call is for member {:x}, this is {}",
                ask.to,
                member.id()
            ));
        }
        if !ask.formation.is_empty() && ask.formation != member.formation {
            return refuse(
                "it was started with another --initial-cluster, retry-check or replication"
                    .to_owned(),
            );
        }
        let cluster = bytes_16("cluster_id", &ask.cluster_id);
        let cluster = ClusterId(cluster.map_err(|error| crate::fault::invalid(&error))?);
        if let Some(present) = member.cluster().filter(|present| *present != cluster) {
            return refuse(format!(
                "it belongs to cluster {present} and cannot join {cluster}"
            ));
        }
        let joined = formation::join(member, cluster).await;
        joined.map_err(|fault: Fault| fault.into_status(Code::FailedPrecondition))?;
        Ok(Response::new(JoinResponse {}))
    }

    type AppendStream = BoxStream<'static, Result<AppendResponse, Status>>;

    async fn append(
        &self,
        request: Request<Streaming<AppendRequest>>,
    ) -> Result<Response<Self::AppendStream>, Status> {
        let (replica, from) = self.replica_for(&request)?;
        let answers = replica.on_append(self.arrived(request.into_inner(), from));
        let answers = answers.map(|answer| answer.map_err(refused));
        Ok(Response::new(self.until_end(answers)))
    }

    async fn vote(&self, request: Request<VoteRequest>) -> Result<Response<VoteResponse>, Status> {
        let replica = self.replica(&request)?;
        let answer = replica.on_vote(request.into_inner()).await;
        answer.map(Response::new).map_err(refused)
    }

    async fn pre_vote(
        &self,
        request: Request<VoteRequest>,
    ) -> Result<Response<VoteResponse>, Status> {
        let replica = self.replica(&request)?;
        let answer = replica.on_pre_vote(request.into_inner()).await;
        answer.map(Response::new).map_err(refused)
    }

    async fn transfer_leader(
        &self,
        request: Request<TransferLeaderRequest>,
    ) -> Result<Response<TransferLeaderResponse>, Status> {
        let replica = self.replica(&request)?;
        let answer = replica.on_transfer_leader(request.into_inner()).await;
        answer.map(Response::new).map_err(refused)
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<SnapshotFrame>>,
    ) -> Result<Response<InstallSnapshotResponse>, Status> {
        let replica = self.replica(&request)?;
        let frames = request.into_inner();
        let frames =
            frames.map(|frame| frame.map_err(|status| LinkError::Broken(status.to_string())));
        let answer = replica.on_install_snapshot(frames).await;
        answer.map(Response::new).map_err(refused)
    }

    type ForwardStream = BoxStream<'static, Result<ForwardResponse, Status>>;

    async fn forward(
        &self,
        request: Request<Streaming<ForwardRequest>>,
    ) -> Result<Response<Self::ForwardStream>, Status> {
        let (replica, from) = self.replica_for(&request)?;
        let answers = replica.on_forward(self.arrived(request.into_inner(), from));
        Ok(Response::new(self.until_end(answers.map(Ok))))
    }

    async fn read_index(
        &self,
        request: Request<ReadIndexRequest>,
    ) -> Result<Response<ReadIndexResponse>, Status> {
        let replica = self.replica(&request)?;
        let read = replica.on_read_index().await;
        let read = read.map_err(|error: ReadError| crate::fault::read(&error, None))?;
        Ok(Response::new(ReadIndexResponse { read: Some(read) }))
    }

    async fn state_hashes(
        &self,
        request: Request<StateHashesRequest>,
    ) -> Result<Response<StateHashesResponse>, Status> {
        let replica = self.replica(&request)?;
        Ok(Response::new(replica.on_state_hashes()))
    }
}
