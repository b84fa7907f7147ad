//! Calls of the etcd API that Tally has not: each is told so, and what there is instead.

use anyhow::{Context, Result, ensure};
use tally_proto::etcd::alarm_request::AlarmAction;
use tally_proto::etcd::cluster_client::ClusterClient;
use tally_proto::etcd::maintenance_client::MaintenanceClient;
use tally_proto::etcd::{
    AlarmRequest, AlarmType, DowngradeRequest, HashKvRequest, HashRequest, MemberAddRequest,
    MemberPromoteRequest, MemberRemoveRequest, MemberUpdateRequest, MoveLeaderRequest,
    SnapshotRequest,
};
use tally_testkit::{Cluster, channel};
use tonic::{Code, Response, Status};

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
