//! Calls of the etcd API that Tally has not: each is told so, and what there is instead.

use anyhow::{Context, Result, bail, ensure};
use tally_proto::etcd::alarm_request::AlarmAction;
use tally_proto::etcd::cluster_client::ClusterClient;
use tally_proto::etcd::kv_client::KvClient;
use tally_proto::etcd::maintenance_client::MaintenanceClient;
use tally_proto::etcd::{
    AlarmRequest, AlarmType, DowngradeRequest, HashKvRequest, HashRequest, HashResponse,
    MemberAddRequest, MemberPromoteRequest, MemberRemoveRequest, MemberUpdateRequest,
    MoveLeaderRequest, PutRequest, SnapshotRequest,
};
use tally_testkit::{Cluster, channel};
use tonic::client::Grpc;
use tonic::{Code, Request, Response, Status};
use tonic_prost::ProstCodec;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

/// The answer to a call must name what there is instead.
fn is_absent<T>(call: &str, instead: &str, answer: Result<Response<T>, Status>) -> Result<()> {
    let status = answer.err().with_context(|| format!("{call} was served"))?;
    ensure!(status.code() == Code::Unimplemented, "{call}: {status:?}");
    let message = status.message();
    ensure!(
        message.starts_with("T-023: ") && message.contains(call),
        "{call}: {message}"
    );
    let told = message.split_once("; instead: ").map(|(_, told)| told);
    ensure!(
        told.is_some_and(|told| told.contains(instead)),
        "{call}: {message}; expected {instead} instead"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_absent_names_what_there_is_instead() -> Result<()> {
    let cluster = Cluster::start(1).await?;
    let to = channel(&cluster.address("n1")?).await?;
    let mut members = ClusterClient::new(to.clone());
    let replace = "tally member replace";
    is_absent(
        "MemberAdd",
        replace,
        members.member_add(MemberAddRequest::default()).await,
    )?;
    is_absent(
        "MemberRemove",
        replace,
        members.member_remove(MemberRemoveRequest::default()).await,
    )?;
    is_absent(
        "MemberUpdate",
        replace,
        members.member_update(MemberUpdateRequest::default()).await,
    )?;
    let promoted = members
        .member_promote(MemberPromoteRequest::default())
        .await;
    is_absent("MemberPromote", "caught up", promoted)?;

    let mut maintenance = MaintenanceClient::new(to);
    let alarm = AlarmRequest {
        action: AlarmAction::Activate.into(),
        alarm: AlarmType::Nospace.into(),
        ..Default::default()
    };
    let status = "tally cluster status";
    is_absent("Alarm ACTIVATE", status, maintenance.alarm(alarm).await)?;
    is_absent(
        "HashKV",
        status,
        maintenance.hash_kv(HashKvRequest::default()).await,
    )?;
    is_absent(
        "Hash",
        status,
        maintenance.hash(HashRequest::default()).await,
    )?;
    is_absent(
        "Snapshot",
        "stopped",
        maintenance.snapshot(SnapshotRequest::default()).await,
    )?;
    let moved = maintenance.move_leader(MoveLeaderRequest::default()).await;
    is_absent("MoveLeader", "tally cluster transfer-leader", moved)?;
    let downgraded = maintenance.downgrade(DowngradeRequest::default()).await;
    is_absent("Downgrade", "docs/deploying.md", downgraded)?;
    cluster.stop().await
}

/// Clients with a password or of a newer version send more metadata, of which nothing depends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_client_says_of_itself_is_not_looked_at() -> Result<()> {
    let cluster = Cluster::start(1).await?;
    let mut kv = KvClient::new(channel(&cluster.address("n1")?).await?);
    for name in ["token", "authorization", "client-api-version"] {
        let mut put = Request::new(PutRequest {
            key: name.into(),
            ..Default::default()
        });
        put.metadata_mut().insert(name, "9.9".parse()?);
        kv.put(put).await.with_context(|| name.to_owned())?;
    }
    cluster.stop().await
}

/// Of a service or method that nobody thought of, a caller is told where to find what there is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_unknown_names_where_to_look() -> Result<()> {
    let cluster = Cluster::start(1).await?;
    let to = channel(&cluster.address("n1")?).await?;
    for path in [
        "/etcdserverpb.KV/Forget",
        "/etcdserverpb.Watch/Forget",
        "/etcdserverpb.Lease/LeaseForget",
        "/etcdserverpb.Gardening/Plant",
    ] {
        let mut client = Grpc::new(to.clone());
        client.ready().await?;
        let codec = ProstCodec::<HashRequest, HashResponse>::default();
        let ask = Request::new(HashRequest::default());
        let answer = client.unary(ask, path.parse()?, codec).await;
        let status = answer.err().with_context(|| format!("{path} was served"))?;
        ensure!(status.code() == Code::Unimplemented, "{path}: {status:?}");
        let told = status.message();
        ensure!(
            told.starts_with("T-023: ") && told.ends_with("gRPC reflection lists what it has"),
            "{path}: {told}"
        );
    }
    let mut reflection = ServerReflectionClient::new(to);
    let ask = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let asked = reflection.server_reflection_info(futures::stream::iter([ask]));
    let answer = asked.await?.into_inner().message().await?;
    let listed = answer.context("no answer")?.message_response;
    let Some(MessageResponse::ListServicesResponse(listed)) = listed else {
        bail!("not a list: {listed:?}");
    };
    for service in ["KV", "Watch", "Lease", "Cluster", "Maintenance"] {
        let name = format!("etcdserverpb.{service}");
        let found = listed.service.iter().any(|listed| listed.name == name);
        ensure!(found, "{name} is not among {:?}", listed.service);
    }
    cluster.stop().await
}
