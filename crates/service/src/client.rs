//! The services for clients, on one listener, with health and reflection.

mod cluster;
mod nodes;
mod sessions;
mod watch;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tally_consensus::{Consistency, Replica};
use tally_listener::Direct;
use tally_model::{Answer, Request};
use tally_proto::convert::DecodeError;
use tally_proto::v1;
use tally_proto::v1::cluster_server::ClusterServer;
use tally_proto::v1::nodes_server::NodesServer;
use tally_proto::v1::sessions_server::SessionsServer;
use tally_storage::StateView;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tonic::Status;
use tonic::metadata::MetadataMap;
use tonic::service::Routes;
use tonic_health::ServingStatus;

use crate::member::Member;
use crate::ports::{Ports, client_bounds};
use crate::{deadline, etcd, fault};

/// How often the health service looks whether the member serves.
const HEALTH_EVERY: Duration = Duration::from_millis(250);

/// Serves clients until the server ends.
pub(crate) async fn serve(
    member: Arc<Member>,
    listener: TcpListener,
    ports: Ports,
) -> Result<(), String> {
    let limit = member.config.tuning.message_bytes_max;
    let streams = u32::try_from(member.config.tuning.streams_max).unwrap_or(u32::MAX);
    let (reporter, health) = tonic_health::server::health_reporter();
    let described = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(tally_proto::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tally_proto::ETCD_DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let failed = |error| format!("reflection: {error}");
    let reflection = described().build_v1().map_err(failed)?;
    // Many tools still speak the version before.
    let reflection_alpha = described().build_v1alpha().map_err(failed)?;
    // They end with this.
    let mut tasks = JoinSet::new();
    tasks.spawn(report_health(member.clone(), reporter));
    let sessions = sessions::SessionsAnswers(member.clone());
    let nodes = nodes::NodesAnswers::new(member.clone());
    let cluster = cluster::ClusterAnswers(member.clone());
    let nodes = NodesServer::new(nodes).max_decoding_message_size(limit);
    let direct = Direct::default().with(&nodes, &nodes::OFTEN);
    let routes = Routes::new(SessionsServer::new(sessions).max_decoding_message_size(limit))
        .add_service(nodes)
        .add_service(ClusterServer::new(cluster).max_decoding_message_size(limit))
        .add_service(health)
        .add_service(reflection)
        .add_service(reflection_alpha);
    let served = etcd::serve(routes, direct, &member, &mut tasks);
    let port = ports.client(&member.metrics);
    let (bounds, ending) = (client_bounds(streams), member.ending.closing.clone());
    tally_listener::serve(listener, port, served, bounds, ending).await;
    tasks.shutdown().await;
    Ok(())
}

/// Keeps the gRPC health service in step with `/readyz`.
async fn report_health(member: Arc<Member>, reporter: tonic_health::server::HealthReporter) {
    const SERVICES: [&str; 9] = [
        "",
        "etcdserverpb.KV",
        "etcdserverpb.Watch",
        "etcdserverpb.Lease",
        "etcdserverpb.Cluster",
        "etcdserverpb.Maintenance",
        "tally.v1.Sessions",
        "tally.v1.Nodes",
        "tally.v1.Cluster",
    ];
    let mut known = None;
    loop {
        let leaving = member.ending.leaving.is_cancelled();
        let ready = !leaving && member.not_ready().is_none();
        if known != Some(ready) {
            known = Some(ready);
            let status = match ready {
                true => ServingStatus::Serving,
                false => ServingStatus::NotServing,
            };
            for service in SERVICES {
                reporter.set_service_status(service, status).await;
            }
        }
        tokio::select! {
            () = tokio::time::sleep(HEALTH_EVERY) => {}
            () = member.ending.leaving.cancelled(), if !leaving => {}
        }
    }
}

impl Member {
    /// The replica of a member that serves.
    fn serving(&self) -> Result<Replica, Status> {
        self.may_serve().map_err(fault::not_ready)
    }

    /// Proposes a command and gives what apply decided.
    async fn propose(
        &self,
        method: &'static str,
        metadata: &MetadataMap,
        request: Result<Request, DecodeError>,
    ) -> Result<Answer, Status> {
        let begun = Instant::now();
        let answer = async {
            let request = request.map_err(|error| fault::invalid(&error))?;
            let replica = self.serving()?;
            let proposed = replica.propose(request, deadline::of(metadata));
            let leader = || replica.status().leader_address();
            match self.ending.unless_refusing(proposed).await {
                Some(answer) => answer
                    .inspect(|answer| self.answers_write(answer.revision))
                    .map_err(|error| fault::propose(&error, leader())),
                None => Err(fault::ended_meanwhile(leader())),
            }
        };
        let answer = answer.await;
        self.metrics.request(method, &answer, begun);
        answer
    }

    /// Reads from the state, as fresh as asked for.
    async fn read<T>(
        &self,
        method: &'static str,
        metadata: &MetadataMap,
        asked: i32,
        read: impl FnOnce(&StateView<'_>) -> T,
    ) -> Result<T, Status> {
        let begun = Instant::now();
        let result = async {
            let consistency = consistency(asked)?;
            let replica = self.serving()?;
            let read_from = replica.read(consistency, deadline::of(metadata));
            let leader = || replica.status().leader_address();
            let reader = match self.ending.unless_refusing(read_from).await {
                Some(reader) => reader.map_err(|error| fault::read(&error, leader()))?,
                None => return Err(fault::ending(leader())),
            };
            reader.with_view(read).map_err(|error| fault::disk(&error))
        };
        let result = result.await;
        self.metrics.request(method, &result, begun);
        result
    }
}

fn consistency(asked: i32) -> Result<Consistency, Status> {
    match v1::Consistency::try_from(asked) {
        Ok(v1::Consistency::Unspecified | v1::Consistency::Linearizable) => {
            Ok(Consistency::Linearizable)
        }
        Ok(v1::Consistency::Stale) => Ok(Consistency::Stale),
        Err(_) => Err(fault::invalid(&DecodeError {
            what: "consistency",
            problem: format!("found {asked}, expected 0 to 2"),
        })),
    }
}
