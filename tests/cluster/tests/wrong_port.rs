//! A call reaches a port that is for others: it is told which port this is and which one to call, and
//! nothing happens.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tally_proto::logserver::log_server_client::LogServerClient;
use tally_proto::peer::peer_client::PeerClient;
use tally_proto::v1::cluster_client::ClusterClient;
use tally_proto::{fault, logserver, peer, v1};
use tally_testkit::{
    AnswerExt, Cluster, LogServer, Operator, Requester, channel, get, send, until,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

const CLOSED_WITHIN: Duration = Duration::from_secs(10);
const LOGGED_WITHIN: Duration = Duration::from_secs(10);
const ANSWERED_WITHIN: Duration = Duration::from_secs(30);

/// The beginning of a TLS handshake: a record of a client's hello.
const CLIENT_HELLO: &[u8] = &[
    0x16, 0x03, 0x01, 0x00, 0xc5, 0x01, 0x00, 0x00, 0xc1, 0x03, 0x03, 0x11, 0x22, 0x33, 0x44, 0x55,
];

fn told<T>(answered: Result<T, Status>, here: &str, there: &str) -> Result<()> {
    let status = answered.err().context("it was answered")?;
    ensure!(status.code() == Code::Unimplemented, "{status:?}");
    let fault = fault::read(&status).with_context(|| format!("no code in {status:?}"))?;
    ensure!(fault.code == "T-023", "{fault:?}");
    ensure!(
        fault.found.contains(here),
        "{fault:?} does not say {here:?}"
    );
    let next = [fault.found.as_str(), &fault.next].concat();
    ensure!(next.contains(there), "{fault:?} does not say {there:?}");
    ensure!(!fault.next.is_empty(), "{fault:?}");
    Ok(())
}

/// What must not change: what every member has applied and in its log, the state, the revision.
async fn standing(cluster: &Cluster) -> Result<(u64, u64, Vec<u8>, u64)> {
    let applied = cluster.state_hashes_agree().await?;
    let status = cluster.status("n1").await?;
    let last = status.last_log_index;
    Ok((applied, last, status.state_hash, status.revision))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_grpc_call_to_another_port_is_told_which_one_to_call() -> Result<()> {
    let cluster = Cluster::start(3).await?;
    let disk = LogServer::new("ls1", cluster.operator())?;
    let log_server = disk.serve().await?;
    let n1 = cluster.member("n1")?;
    // Commands that would do something at the right port.
    let mut requester = Requester::open(&n1.client_address()).await?;
    let register = requester.register_call("ls2", None);
    let before = standing(&cluster).await?;
    let (client, peers) = (n1.client_address(), n1.peer_address());
    let http = n1.http_address();

    // What members ask, on the port for clients, and the reverse.
    let on_client = channel(&client).await?;
    let asked = PeerClient::new(on_client.clone())
        .identify(peer::IdentifyRequest {})
        .await;
    told(asked, "the client port of n1", &peers)?;
    let asked = PeerClient::new(on_client.clone())
        .vote(peer::VoteRequest::default())
        .await;
    told(asked, "the client port of n1", &peers)?;
    let asked = LogServerClient::new(on_client)
        .append(logserver::AppendRequest::default())
        .await;
    told(asked, "the client port of n1", "tally cluster status")?;
    for (wrong, name) in [
        (&peers, "the peer port of n1"),
        (&http, "the http port of n1"),
    ] {
        let to = channel(wrong).await?;
        let asked = ClusterClient::new(to.clone())
            .status(v1::StatusRequest {})
            .await;
        told(asked, name, &client)?;
        told(send(&to, &register, ANSWERED_WITHIN).await, name, &client)?;
        let service = String::new();
        let asked = HealthClient::new(to)
            .check(HealthCheckRequest { service })
            .await;
        told(asked, name, &client)?;
    }
    let asked = PeerClient::new(channel(&http).await?)
        .identify(peer::IdentifyRequest {})
        .await;
    told(asked, "the http port of n1", &peers)?;

    let to = channel(log_server.address()).await?;
    let asked = send(&to, &register, ANSWERED_WITHIN).await;
    told(asked, "the port of log server ls1", "tally cluster status")?;
    assert_eq!(standing(&cluster).await?, before, "something has changed");
    // Nor was anything kept for its tag.
    let answer = send(&channel(&client).await?, &register, ANSWERED_WITHIN).await?;
    ensure!(answer.applied().is_some() && !answer.repeat, "{answer:?}");
    log_server.stop().await?;

    // A stranger's calls are in the log, with where they came from.
    let log = n1.log();
    let lines = log.lines().filter(|line| line.contains("wrong port"));
    let lines: Vec<_> = lines.collect();
    ensure!(lines.len() >= 10, "{log}");
    ensure!(
        lines.iter().all(|line| line.contains("from=127.0.0.1:")),
        "{lines:?}"
    );
    cluster.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_with_only_wrong_endpoints_says_so_at_once() -> Result<()> {
    let cluster = Cluster::start(1).await?;
    let n1 = cluster.member("n1")?;
    let (peers, http) = (n1.peer_address(), n1.http_address());
    for endpoints in [
        vec![peers.clone()],
        vec![http.clone()],
        vec![peers.clone(), http],
    ] {
        let operator = Operator::new(endpoints);
        for line in [
            &["node", "list"][..],
            &["node", "set-state", "ls1", "read-only"],
        ] {
            // Its patience would be far longer than the test's.
            let line = [line, &["--timeout", "10m"]].concat();
            let finished = operator.run(&line).await?.expect_code(2)?;
            let said = finished.said();
            ensure!(said.contains("T-023"), "{line:?}: {said}");
            ensure!(said.contains(&n1.client_address()), "{line:?}: {said}");
        }
    }
    // One right one among them is enough.
    let operator = Operator::new(vec![peers, n1.client_address()]);
    operator.run(&["node", "list"]).await?.expect_code(0)?;
    cluster.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plain_http_on_a_grpc_port_is_told_where_http_is() -> Result<()> {
    let cluster = Cluster::start(1).await?;
    let n1 = cluster.member("n1")?;
    let http = n1.http_address();
    for (wrong, name) in [
        (n1.client_address(), "the client port of n1"),
        (n1.peer_address(), "the peer port of n1"),
    ] {
        let answer = get(&wrong, "/metrics").await?;
        assert_eq!(answer.status, 421, "{answer:?}");
        for part in ["T-023", name, &http] {
            ensure!(
                answer.body.contains(part),
                "{answer:?} does not say {part:?}"
            );
        }
        ensure!(answer.body.ends_with('\n'), "{answer:?}");
    }
    let answer = get(&http, "/healthz").await?;
    assert_eq!(answer.status, 404, "{answer:?}");
    for part in ["T-023", "\"/healthz\"", "/readyz"] {
        ensure!(
            answer.body.contains(part),
            "{answer:?} does not say {part:?}"
        );
    }

    let disk = LogServer::new("ls1", cluster.operator())?;
    let log_server = disk.serve().await?;
    let answer = get(log_server.address(), "/").await?;
    assert_eq!(answer.status, 421, "{answer:?}");
    ensure!(answer.body.contains("log server ls1"), "{answer:?}");
    log_server.stop().await?;
    cluster.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tls_handshake_is_closed_with_a_reason_in_the_log() -> Result<()> {
    let cluster = Cluster::start(1).await?;
    let n1 = cluster.member("n1")?;
    for (address, name) in [
        (n1.client_address(), "the client port of n1"),
        (n1.peer_address(), "the peer port of n1"),
        (n1.http_address(), "the http port of n1"),
    ] {
        let mut stream = TcpStream::connect(&address).await?;
        let from = stream.local_addr()?;
        stream.write_all(CLIENT_HELLO).await?;
        let mut answer = Vec::new();
        // Reset or ended: closed either way.
        let closed = timeout(CLOSED_WITHIN, stream.read_to_end(&mut answer)).await;
        ensure!(closed.is_ok(), "{name} keeps a TLS handshake open");
        ensure!(answer.is_empty(), "{name} answered {answer:?}");
        until(&format!("a line about {from}"), LOGGED_WITHIN, async || {
            let log = n1.log();
            let mut lines = log.lines();
            let line = lines.find(|line| line.contains(&format!("from={from}")));
            let line = line.context("no line")?;
            ensure!(line.contains("TLS") && line.contains(name), "{line}");
            Ok(())
        })
        .await?;
    }
    cluster.stop().await
}
