//! `etcdserverpb.Cluster`.

use std::sync::Arc;

use tally_consensus::Consistency;
use tally_proto::etcd::cluster_server::Cluster;
use tally_proto::etcd::{
    Member as Message, MemberAddRequest, MemberAddResponse, MemberListRequest, MemberListResponse,
    MemberPromoteRequest, MemberPromoteResponse, MemberRemoveRequest, MemberRemoveResponse,
    MemberUpdateRequest, MemberUpdateResponse,
};
use tonic::{Request, Response, Status};

use super::{header, rpctypes};
use crate::deadline;
use crate::member::Member;

pub(super) struct ClusterAnswers(pub(super) Arc<Member>);

const REPLACE: &str = "start a member with an empty directory, then: tally member replace NAME";

#[tonic::async_trait]
impl Cluster for ClusterAnswers {
    async fn member_list(
        &self,
        request: Request<MemberListRequest>,
    ) -> Result<Response<MemberListResponse>, Status> {
        let replica = self.0.replica().map_err(|_| rpctypes::stopped())?;
        if request.get_ref().linearizable {
            let deadline = deadline::of(request.metadata());
            let read = replica.read(Consistency::Linearizable, deadline).await;
            read.map_err(|error| rpctypes::read(&error))?;
        }
        let status = replica.status();
        let members = status.membership.members.values().map(|peer| Message {
            id: peer.id.0,
            name: peer.name.clone(),
            peer_ur_ls: vec![format!("http://{}", peer.peer_address)],
            client_ur_ls: vec![format!("http://{}", peer.client_address)],
            is_learner: !status.membership.voters.contains(&peer.id),
        });
        let members = members.collect();
        Ok(Response::new(MemberListResponse {
            header: Some(header(&self.0, self.0.revision()?)),
            members,
        }))
    }

    async fn member_add(
        &self,
        _: Request<MemberAddRequest>,
    ) -> Result<Response<MemberAddResponse>, Status> {
        Err(rpctypes::unimplemented("MemberAdd", REPLACE))
    }

    async fn member_remove(
        &self,
        _: Request<MemberRemoveRequest>,
    ) -> Result<Response<MemberRemoveResponse>, Status> {
        Err(rpctypes::unimplemented("MemberRemove", REPLACE))
    }

    async fn member_update(
        &self,
        _: Request<MemberUpdateRequest>,
    ) -> Result<Response<MemberUpdateResponse>, Status> {
        Err(rpctypes::unimplemented("MemberUpdate", REPLACE))
    }

    async fn member_promote(
        &self,
        _: Request<MemberPromoteRequest>,
    ) -> Result<Response<MemberPromoteResponse>, Status> {
        let instead =
            "tally member replace, which makes a voter of a learner once it has caught up";
        Err(rpctypes::unimplemented("MemberPromote", instead))
    }
}
