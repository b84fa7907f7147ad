//! The etcd v3 API, on the same port as `tally.v1`, from the same state.
//!
//! Speaks as etcd 3.5 does, down to its error messages; `docs/etcd.md` says where not, and why.

mod about;
mod absent;
mod cluster;
mod compacting;
mod end;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod holders;
mod kv;
mod lanes;
mod lease;
mod maintenance;
mod probes;
mod rpctypes;
mod tag;
mod watch;
mod writer;

use std::sync::Arc;

use tally_listener::{Direct, Served};
use tally_model::Revision;
use tally_proto::etcd::ResponseHeader;
use tally_proto::etcd::cluster_server::ClusterServer;
use tally_proto::etcd::kv_server::KvServer;
use tally_proto::etcd::lease_server::LeaseServer;
use tally_proto::etcd::maintenance_server::MaintenanceServer;
use tokio::task::JoinSet;
use tonic::service::Routes;

use crate::member::Member;

/// What gRPC may add to a request of the largest size, bytes.
const REQUEST_OVERHEAD_BYTES: usize = 512 << 10;

/// Adds the services to those of a port, and the paths where they are had without gRPC.
/// What goes on beside them is among `tasks`.
pub(crate) fn serve(
    routes: Routes,
    direct: Direct,
    member: &Arc<Member>,
    tasks: &mut JoinSet<()>,
) -> Served {
    let limit = member.config.tuning.request_bytes_max + REQUEST_OVERHEAD_BYTES;
    let writer = Arc::new(writer::Writer::new(member.clone()));
    tasks.spawn(compacting::run(member.clone(), writer.clone()));
    let holders = holders::Holders::new();
    let kv = kv::KvAnswers::new(member.clone(), writer.clone(), holders.clone());
    let lease = lease::LeaseAnswers::new(member.clone(), writer, holders);
    let watch = watch::WatchAnswers(member.clone());
    let cluster = cluster::ClusterAnswers(member.clone());
    let maintenance = maintenance::MaintenanceAnswers(member.clone());
    let kv = kv::KvRoute(KvServer::new(kv).max_decoding_message_size(limit));
    let direct = direct.with(&kv, &kv::OFTEN);
    let routes = routes
        .add_service(kv)
        .add_service(LeaseServer::new(lease).max_decoding_message_size(limit))
        .add_service(watch::WatchServer::new(watch, limit))
        .add_service(ClusterServer::new(cluster).max_decoding_message_size(limit))
        .add_service(MaintenanceServer::new(maintenance).max_decoding_message_size(limit));
    let services = absent::serve(routes).into_axum_router();
    let json = tally_gateway::routes(tally_listener::explained(services.clone(), None), limit);
    let plain = json
        .merge(about::routes(member.clone()))
        .merge(probes::routes(member.clone()));
    Served {
        router: services.merge(plain.clone()),
        direct,
        http1: plain,
    }
}

/// Who answers, and how far the store has come.
fn header(member: &Member, revision: Revision) -> ResponseHeader {
    let term = member.replica().map(|replica| replica.applied_term());
    ResponseHeader {
        // Half of the id, which is random: enough to tell two clusters apart.
        cluster_id: member.cluster().map_or(0, |cluster| {
            let [high, ..] = *cluster.0.to_be_bytes().as_chunks::<8>().0 else {
                return 0;
            };
            u64::from_be_bytes(high)
        }),
        member_id: member.id().0,
        revision: revision.signed(),
        raft_term: term.unwrap_or(0),
    }
}
