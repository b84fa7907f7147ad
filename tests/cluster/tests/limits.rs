//! Past a limit there is a clear refusal, not a growing queue; and what a tool finds on the listener.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tally_proto::etcd;
use tally_proto::etcd::kv_client::KvClient;
use tally_proto::etcd::watch_client::WatchClient;
use tally_proto::v1::nodes_client::NodesClient;
use tally_proto::v1::watch_response::Kind;
use tally_proto::v1::{RegisterRequest, WatchRequest};
use tally_proto::{fault, v1};
use tally_testkit::{AnswerExt, Call, Cluster, Requester, channel, send, until};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

const ANSWERED_WITHIN: Duration = Duration::from_secs(30);
const SOON: Duration = Duration::from_secs(10);

/// Of which the health service knows; the empty name is all of them.
const SERVICES: [&str; 9] = [
    "",
    "tally.v1.Sessions",
    "tally.v1.Nodes",
    "tally.v1.Cluster",
    "etcdserverpb.KV",
    "etcdserverpb.Watch",
    "etcdserverpb.Lease",
    "etcdserverpb.Cluster",
    "etcdserverpb.Maintenance",
];

fn refused_with(status: &Status, code: &str) -> Result<()> {
    ensure!(status.code() == Code::ResourceExhausted, "{status:?}");
    let fault = fault::read(status).context("not one of Tally's")?;
    ensure!(fault.code == code, "{fault:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn past_its_limits_a_member_refuses_and_goes_on() -> Result<()> {
    let limits = [
        "--message-bytes-max",
        "4096",
        "--streams-max",
        "2",
        "--inflight-max",
        "4",
    ];
    let cluster = Cluster::start_with(3, &limits).await?;
    let leader = cluster.leader().await?;
    let address = cluster.address(&leader)?;
    let mut requester = Requester::open(&address).await?;
    let (node, _) = requester.register(&address, "ls1").await?;

    // A message that is too large, and then one that is not.
    let large = Call::Register(RegisterRequest {
        tag: Some(requester.next_tag()),
        name: "ls2".to_owned(),
        address: "a".repeat(8_192),
        ..RegisterRequest::default()
    });
    let to = channel(&address).await?;
    let status = send(&to, &large, ANSWERED_WITHIN).await.err();
    refused_with(&status.context("it was answered")?, "T-007")?;
    requester.register(&address, "ls3").await?;

    // Watches: two are served, a third is not, and when one ends there is room again.
    let watch = || async {
        let mut client = NodesClient::new(channel(&address).await?);
        let asked = client
            .watch(WatchRequest {
                node,
                from_revision: 0,
            })
            .await;
        anyhow::Ok(asked.map(tonic::Response::into_inner))
    };
    let mut first = watch().await?.map_err(anyhow::Error::from)?;
    let started = tokio::time::timeout(SOON, first.message()).await??;
    let started = started.and_then(|message| message.kind);
    ensure!(matches!(started, Some(Kind::Started(_))), "{started:?}");
    let _second = watch().await?.map_err(anyhow::Error::from)?;
    refused_with(
        &watch().await?.err().context("a third watch was served")?,
        "T-003",
    )?;
    drop(first);
    until("room for another watch", SOON, async || {
        watch().await?.map(|_| ()).map_err(anyhow::Error::from)
    })
    .await?;

    // Commands: many at once; each is answered or turned away, and none of those turned away happens.
    let mut sent = Vec::new();
    for number in 0..64 {
        let call = requester.register_call(&format!("burst-{number}"), None);
        let to = to.clone();
        sent.push(tokio::spawn(async move {
            send(&to, &call, ANSWERED_WITHIN).await
        }));
    }
    let mut applied = 0;
    for answer in sent {
        match answer.await? {
            Ok(answer) => applied += usize::from(answer.applied().is_some()),
            Err(status) => refused_with(&status, "T-003")?,
        }
    }
    let mut client = NodesClient::new(to);
    let nodes = client
        .list(v1::ListRequest::default())
        .await?
        .into_inner()
        .nodes;
    let burst = nodes.iter().filter(|node| node.name.starts_with("burst-"));
    assert_eq!(burst.count(), applied);
    cluster.stop().await
}

/// Watches of the etcd API share a connection, which has only so many streams: one more waits, and goes on when there is room.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_has_only_so_many_streams() -> Result<()> {
    let cluster = Cluster::start_with(1, &["--streams-max", "2"]).await?;
    let address = cluster.address("n1")?;
    let shared = channel(&address).await?;
    let watch = || {
        let mut client = WatchClient::new(shared.clone());
        async move {
            // As long as this is there the stream goes on.
            let (send, requests) = mpsc::channel::<etcd::WatchRequest>(1);
            let asked = client.watch(ReceiverStream::new(requests)).await;
            anyhow::Ok((send, asked?.into_inner()))
        }
    };
    let (first, second) = (watch().await?, watch().await?);
    let mut third = tokio::spawn(watch());
    // Another connection is served all the while.
    let mut other = KvClient::new(channel(&address).await?);
    for _ in 0..50 {
        let put = etcd::PutRequest {
            key: "k".into(),
            ..Default::default()
        };
        other.put(put).await?;
    }
    ensure!(!third.is_finished(), "a third stream was served");
    drop(first);
    tokio::time::timeout(SOON, &mut third).await???;
    drop(second);
    cluster.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_follows_readiness() -> Result<()> {
    let mut cluster = Cluster::start(3).await?;
    let leader = cluster.leader().await?;
    let follower = cluster.followers().await?.remove(0);
    let says = async |cluster: &Cluster, name: &str, expected: ServingStatus| {
        let address = cluster.address(name)?;
        until(
            &format!("{name} says {expected:?}"),
            ANSWERED_WITHIN,
            async || {
                let mut client = HealthClient::new(channel(&address).await?);
                for service in SERVICES {
                    let ask = HealthCheckRequest {
                        service: service.to_owned(),
                    };
                    let status = client.check(ask).await?.into_inner().status();
                    ensure!(status == expected, "{service}: {status:?}");
                }
                Ok(())
            },
        )
        .await
    };
    says(&cluster, &leader, ServingStatus::Serving).await?;
    for name in cluster.names() {
        if name != follower {
            cluster.kill(&name)?;
        }
    }
    says(&cluster, &follower, ServingStatus::NotServing).await?;
    cluster.restart_all().await?;
    cluster.stop().await
}
