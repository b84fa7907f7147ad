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

/// Who runs in a member's place.
enum Found {
    /// One that has joined this cluster, to be admitted.
    Newcomer(Peer),
    /// The one that votes already: there is nothing to replace, or it is done.
    Voter(MemberId),
}

impl ClusterAnswers {
    /// Asks at a member's address who runs there now, and lets a newcomer join this cluster.
    async fn find(&self, replica: &Replica, name: &str) -> Result<Found, Status> {
        let status = replica.status();
        let unknown = || ManageError::UnknownMember(name.to_owned());
        let old = status.membership.by_name(name);
        let old = old.ok_or_else(|| failed(replica, &unknown()))?;
        let address = &old.peer_address;
        let wrong = |why: String, next: String| {
            let found = format!("{name} at {address}: {why}");
            let fault = Fault::new(codes::TRANSFER_FAILED, found).with_next(next);
            fault.into_status(Code::FailedPrecondition)
        };
        let not_there = |why: String| {
            let next = format!("start {name} with an empty --data-dir at its old peer address");
            wrong(why, next)
        };
        let answer = stranger::identify(address).await.map_err(not_there)?;
        let new = MemberId(answer.member);
        if answer.name != name {
            let next = format!("check what listens at {address}");
            return Err(wrong(format!("{} answers there", answer.name), next));
        }
        // A change that was begun and has not ended leaves others of the name.
        let mut members = status.membership.members.values();
        let is_alone = members.all(|member| member.name != name || member.id == new);
        if status.membership.voters.contains(&new) && is_alone {
            return Ok(Found::Voter(new));
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
        Ok(Found::Newcomer(Peer {
            id: new,
            name: name.to_owned(),
            peer_address: address.clone(),
            client_address: answer.client_address,
        }))
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
        let new = match self.find(&replica, &name).await? {
            Found::Newcomer(new) => new,
            Found::Voter(id) => {
                return Ok(Response::new(ReplaceMemberResponse {
                    removed: 0,
                    added: id.0,
                }));
            }
        };
        let replaced = replica.replace_member(&new, deadline).await;
        let removed = replaced.map_err(|error| failed(&replica, &error))?;
        Ok(Response::new(ReplaceMemberResponse {
            removed: removed.map_or(0, |id| id.0),
            added: new.id.0,
        }))
    }
}
