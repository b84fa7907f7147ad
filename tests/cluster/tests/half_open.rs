//! Callers that connect and say nothing, or too little: there are only so many of them, they are let go
//! after a time, and nobody else notices.

use std::time::Duration;

use anyhow::{Result, ensure};
use tally_testkit::{Cluster, Requester, get, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Connections that the ports for operators and for members take.
const CONNECTIONS_MAX: usize = 256;
/// Connections past that.
const MORE: usize = 40;
/// Several times the time in which a caller must say what it speaks.
const LET_GO_WITHIN: Duration = Duration::from_secs(60);
const SERVES_WITHIN: Duration = Duration::from_secs(30);

/// Connects and sends a beginning of something.
async fn half_open(address: &str, bytes: &[u8]) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(address).await?;
    // It may be closed already.
    let _: std::io::Result<()> = stream.write_all(bytes).await;
    Ok(stream)
}

/// Waits until the other side has closed.
async fn closed(mut stream: TcpStream) -> Result<()> {
    let mut rest = Vec::new();
    let ended = timeout(LET_GO_WITHIN, stream.read_to_end(&mut rest)).await;
    ensure!(ended.is_ok(), "still open after {LET_GO_WITHIN:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_open_connections_are_bounded_and_let_go() -> Result<()> {
    let cluster = Cluster::start(3).await?;
    let leader = cluster.leader().await?;
    let term = cluster.status(&leader).await?.term;
    let member = cluster.member(&leader)?;
    let mut open = JoinSet::new();
    for address in [member.http_address(), member.peer_address()] {
        for number in 0..CONNECTIONS_MAX + MORE {
            let begun: &[u8] = match number % 3 {
                0 => b"",
                1 => b"GET",
                _ => b"PRI * HTTP/2.0\r\n",
            };
            open.spawn(closed(half_open(&address, begun).await?));
        }
    }
    // The ones past the bound are closed at once, while the others are still open.
    for _ in 0..2 * MORE {
        if let Some(ended) = open.join_next().await {
            ended??;
        }
    }
    let log = member.log();
    ensure!(log.contains("256 connections are open already"), "{log}");

    // Clients have a port of their own, and members the connections that they have.
    let address = cluster.address(&leader)?;
    let mut requester = Requester::open(&address).await?;
    requester.register(&address, "ls1").await?;
    while let Some(ended) = open.join_next().await {
        ended??;
    }
    until("operators are served again", SERVES_WITHIN, async || {
        let answer = get(&member.http_address(), "/readyz").await?;
        ensure!(answer.status == 200, "{answer:?}");
        Ok(())
    })
    .await?;
    assert_eq!(cluster.leader().await?, leader);
    assert_eq!(
        cluster.status(&leader).await?.term,
        term,
        "there was an election"
    );
    cluster.state_hashes_agree().await?;
    cluster.stop().await
}
