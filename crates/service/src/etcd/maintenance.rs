//! `etcdserverpb.Maintenance`.

use std::sync::Arc;

use futures::stream::BoxStream;
use tally_proto::etcd::alarm_request::AlarmAction;
use tally_proto::etcd::maintenance_server::Maintenance;
use tally_proto::etcd::{
    AlarmRequest, AlarmResponse, DefragmentRequest, DefragmentResponse, DowngradeRequest,
    DowngradeResponse, HashKvRequest, HashKvResponse, HashRequest, HashResponse, MoveLeaderRequest,
    MoveLeaderResponse, SnapshotRequest, SnapshotResponse, StatusRequest, StatusResponse,
};
use tonic::{Request, Response, Status};

use super::{header, rpctypes};
use crate::member::Member;

pub(super) struct MaintenanceAnswers(pub(super) Arc<Member>);

/// The etcd whose behaviour is followed. Clients parse it to see what a server can do.
pub(super) const FOLLOWED: &str = "3.5.13";

#[tonic::async_trait]
impl Maintenance for MaintenanceAnswers {
    /// No alarm is ever raised: a member that must not go on stops, and says why in its log.
    async fn alarm(
        &self,
        request: Request<AlarmRequest>,
    ) -> Result<Response<AlarmResponse>, Status> {
        if request.get_ref().action() == AlarmAction::Activate {
            let instead = "a member that must not go on stops by itself: tally cluster status";
            return Err(rpctypes::unimplemented("Alarm ACTIVATE", instead));
        }
        Ok(Response::new(AlarmResponse {
            header: Some(header(&self.0, self.0.revision()?)),
            alarms: Vec::new(),
        }))
    }

    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        let replica = self.0.replica().map_err(|_| rpctypes::stopped())?;
        let status = replica.status();
        let bytes = self.0.stores.state.bytes();
        let bytes = bytes.map_err(|_| rpctypes::stopped())?;
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        let applied = replica.watch_applied().borrow().index.unwrap_or(0);
        let faults = self.0.not_ready().map(|fault| crate::member::said(&fault));
        Ok(Response::new(StatusResponse {
            header: Some(header(&self.0, self.0.revision()?)),
            version: FOLLOWED.to_owned(),
            db_size: bytes,
            db_size_in_use: bytes,
            leader: status.leader.unwrap_or_default().0,
            raft_index: status.committed_index.unwrap_or(0),
            raft_term: replica.applied_term(),
            raft_applied_index: applied,
            errors: faults.into_iter().collect(),
            is_learner: !status.membership.voters.contains(&self.0.id()),
        }))
    }

    /// Room is taken back while the member runs, so there is nothing to do. etcd's answer has no header
    /// either.
    async fn defragment(
        &self,
        _: Request<DefragmentRequest>,
    ) -> Result<Response<DefragmentResponse>, Status> {
        Ok(Response::new(DefragmentResponse { header: None }))
    }

    async fn hash(&self, _: Request<HashRequest>) -> Result<Response<HashResponse>, Status> {
        Err(rpctypes::unimplemented("Hash", COMPARED))
    }

    async fn hash_kv(&self, _: Request<HashKvRequest>) -> Result<Response<HashKvResponse>, Status> {
        Err(rpctypes::unimplemented("HashKV", COMPARED))
    }

    type SnapshotStream = BoxStream<'static, Result<SnapshotResponse, Status>>;

    async fn snapshot(
        &self,
        _: Request<SnapshotRequest>,
    ) -> Result<Response<Self::SnapshotStream>, Status> {
        let instead = "a member's data directory can be copied while the member is stopped";
        Err(rpctypes::unimplemented("Snapshot", instead))
    }

    async fn move_leader(
        &self,
        _: Request<MoveLeaderRequest>,
    ) -> Result<Response<MoveLeaderResponse>, Status> {
        let instead = "tally cluster transfer-leader";
        Err(rpctypes::unimplemented("MoveLeader", instead))
    }

    async fn downgrade(
        &self,
        _: Request<DowngradeRequest>,
    ) -> Result<Response<DowngradeResponse>, Status> {
        let instead = "members of neighbouring versions run together: see docs/deploying.md";
        Err(rpctypes::unimplemented("Downgrade", instead))
    }
}

const COMPARED: &str = "members compare state hashes by themselves: tally cluster status";
