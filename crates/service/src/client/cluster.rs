//! `tally.v1.Cluster`.

use std::sync::Arc;

use tally_consensus::{ManageError, Member as Peer, Replica, Role};
use tally_model::MemberId;
use tally_model::explanation::codes;
use tally_proto::fault::Fault;
use tally_proto::peer::JoinRequest;
use tally_proto::v1::cluster_server::Cluster;
use tally_proto::v1::{
    ReplaceMemberRequest, ReplaceMemberResponse, SnapshotRequest, SnapshotResponse, StatusRequest,
    StatusResponse, TransferLeaderRequest, TransferLeaderResponse,
};
use tonic::{Code, Request, Response, Status};

use crate::member::{Member, cluster_bytes};
use crate::peer::stranger;
use crate::{deadline, fault};

pub(super) struct ClusterAnswers(pub(super) Arc<Member>);

fn failed(replica: &Replica, error: &ManageError) -> Status {
    fault::manage(error, replica.status().leader_address())
}

impl ClusterAnswers {
    /// Who runs now in a member's place, and has joined this cluster for it.
    async fn admit(&self, replica: &Replica, name: &str) -> Result<Peer, Status> {
        let status = replica.status();
        let unknown = || ManageError::UnknownMember(name.to_owned());
        let old = status.membership.by_name(name);
        let old = old.ok_or_else(|| failed(replica, &unknown()))?;
        let address = &old.peer_address;
        let not_there = |why: String| {
            Fault::new(
                codes::TRANSFER_FAILED,
                format!("{name} at {address}: {why}"),
            )
            .with_next(format!(
                "start {name} with an empty --data-dir at its old peer address"
            ))
            .into_status(Code::FailedPrecondition)
        };
        let answer = stranger::identify(address).await.map_err(not_there)?;
        let new = MemberId(answer.member);
        if answer.name != name {
            return Err(not_there(format!("{} answers there", answer.name)));
        }
        let learner = status
            .membership
            .members
            .get(&new)
            .filter(|_| !status.membership.voters.contains(&new));
        if new == old.id && learner.is_none() {
            return Err(not_there(
                "it still has the identity that the cluster knows, so there is nothing to replace"
                    .to_owned(),
            ));
        }
        let Some(cluster) = self.0.cluster() else {
            return Err(failed(replica, &ManageError::NotLeader));
        };
        let ask = JoinRequest {
            cluster_id: cluster_bytes(cluster),
            formation: Vec::new(),
            to: new.0,
            from: self.0.id().0,
        };
        stranger::join(address, ask).await.map_err(not_there)?;
        Ok(Peer {
            id: new,
            name: name.to_owned(),
            peer_address: address.clone(),
            client_address: answer.client_address,
        })
    }
}

#[tonic::async_trait]
impl Cluster for ClusterAnswers {
    async fn status(
        &self,
        _request: Request<StatusRequest>,
    ) -> Result<Response<StatusResponse>, Status> {
        Ok(Response::new(self.0.status()))
    }

    async fn transfer_leader(
        &self,
        request: Request<TransferLeaderRequest>,
    ) -> Result<Response<TransferLeaderResponse>, Status> {
        let deadline = deadline::of(request.metadata());
        let replica = self.0.serving()?;
        let to = request.into_inner().to;
        let to = (!to.is_empty()).then_some(to.as_str());
        let moved = replica.transfer_leader(to, deadline).await;
        let leader = moved.map_err(|error| failed(&replica, &error))?;
        Ok(Response::new(TransferLeaderResponse {
            leader: leader.id.0,
            name: leader.name,
        }))
    }

    async fn snapshot(
        &self,
        request: Request<SnapshotRequest>,
    ) -> Result<Response<SnapshotResponse>, Status> {
        let deadline = deadline::of(request.metadata());
        let replica = self.0.serving()?;
        let taken = replica.snapshot(deadline).await;
        let index = taken.map_err(|error| failed(&replica, &error))?;
        Ok(Response::new(SnapshotResponse { index }))
    }

    async fn replace_member(
        &self,
        request: Request<ReplaceMemberRequest>,
    ) -> Result<Response<ReplaceMemberResponse>, Status> {
        let deadline = deadline::of(request.metadata());
        let replica = self.0.serving()?;
        let name = request.into_inner().name;
        if replica.status().role != Role::Leader {
            return Err(failed(&replica, &ManageError::NotLeader));
        }
        let new = self.admit(&replica, &name).await?;
        let replaced = replica.replace_member(&new, deadline).await;
        let removed = replaced.map_err(|error| failed(&replica, &error))?;
        Ok(Response::new(ReplaceMemberResponse {
            removed: removed.0,
            added: new.id.0,
        }))
    }
}
