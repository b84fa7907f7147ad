//! Bytes that nobody would send: on every port they end in a closed connection and a line in the log,
//! and leave the process as it was.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tally_testkit::{Cluster, LogServer, LogServerProcess, Reader, Requester, rounds, seed, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Longer than the time in which a caller must say what it speaks.
const CLOSED_WITHIN: Duration = Duration::from_secs(30);
const LOGGED_WITHIN: Duration = Duration::from_secs(10);
/// Connections with garbage to each port.
const SHORT: usize = 240;
const LONG: usize = 6_000;
/// Connections of each kind of garbage to each port that are not ended by their callers.
const HELD: usize = 12;
/// Longer than an HTTP/2 caller may leave the question unanswered whether it is still there.
const LET_GO_WITHIN: Duration = Duration::from_secs(90);
/// Connections at a time.
const AT_ONCE: usize = 24;
/// What a process may keep of all that: caches of the allocator, no more. One request of the length that
/// some of the garbage announces would be over it.
const GROWTH_BYTES_MAX: u64 = 48 << 20;
const MEMBER_PORTS: [&str; 3] = ["the client port of", "the peer port of", "the http port of"];
const PORTS: [&str; 3] = ["client", "peer", "http"];
/// Lines in the log that a port may write in ten seconds.
const LINES_PER_WINDOW: u64 = 20;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;

/// A frame of HTTP/2, RFC 9113, section 4.1; its length may say anything.
fn frame(length: u32, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = length.to_be_bytes();
    let head = [length[1], length[2], length[3], kind, flags];
    [&head[..], &stream.to_be_bytes(), payload].concat()
}

fn whole(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    frame(payload.len() as u32, kind, flags, stream, payload)
}

/// The headers of a gRPC call in HPACK, RFC 7541, without Huffman codes.
fn headers(path: &str) -> Vec<u8> {
    let text = |text: &str| [&[text.len() as u8], text.as_bytes()].concat();
    [
        // From the static table: POST, http.
        vec![0x83, 0x86],
        [&[0x04][..], &text(path)].concat(),
        [&[0x01][..], &text("tally")].concat(),
        [&[0x0f, 0x10][..], &text("application/grpc")].concat(),
        [&[0x00][..], &text("te"), &text("trailers")].concat(),
    ]
    .concat()
}

fn noise(random: &mut SmallRng, bytes_max: usize) -> Vec<u8> {
    let length = random.random_range(1..=bytes_max);
    (0..length).map(|_| random.random()).collect()
}

const KINDS: usize = 12;

/// One connection's bytes: from nonsense to a call that is nearly right.
fn garbage(kind: usize, random: &mut SmallRng, path: &str) -> Vec<u8> {
    let opened = [PREFACE, &whole(SETTINGS, 0, 0, &[])].concat();
    let asked = [&opened[..], &whole(HEADERS, END_HEADERS, 1, &headers(path))].concat();
    let then = |begun: &[u8], more: Vec<u8>| [begun, &more].concat();
    match kind {
        0 => noise(random, 2_048),
        // Cut in the preface, in a frame's head, in its payload.
        1 => PREFACE[..random.random_range(1..PREFACE.len())].to_vec(),
        2 => asked[..random.random_range(PREFACE.len()..asked.len())].to_vec(),
        3 => then(&opened, noise(random, 4_096)),
        // Lengths that are far over what is allowed, with and without some of the bytes.
        4 => then(&opened, frame(0x00ff_ffff, random.random(), 0, 1, &[])),
        5 => then(
            &opened,
            frame(0x00ff_ffff, DATA, 0, 1, &noise(random, 4_096)),
        ),
        6 => then(&asked, whole(DATA, 0, 1, &[0, 0xff, 0xff, 0xff, 0xff])),
        7 => then(&asked, whole(DATA, 0, 1, &[0, 0x01, 0xf0, 0, 0, 1, 2, 3])),
        // No message, a message that ends early, and one with another flag.
        8 => then(
            &asked,
            whole(DATA, 1, 1, &[0, 0, 0, 0, 4, 0xff, 0xff, 0xff, 0xff]),
        ),
        9 => then(&asked, whole(DATA, 1, 1, &[random.random(), 0, 0, 0, 9, 1])),
        // Headers without an end.
        10 => {
            let more = whole(CONTINUATION, 0, 1, &noise(random, 8_192));
            let begun = then(&opened, whole(HEADERS, 0, 1, &headers(path)));
            then(&begun, more.repeat(40))
        }
        _ => format!(
            "GET /{} HTTP/1.1\r\nhost: {}",
            "x".repeat(9_000),
            "y".repeat(20_000)
        )
        .into(),
    }
}

/// Sends bytes, says that no more come, and waits until the other side closes.
async fn thrown(address: &str, bytes: &[u8]) -> Result<()> {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        // The other side may close before it has read everything.
        let _: std::io::Result<()> = async {
            stream.write_all(bytes).await?;
            stream.shutdown().await
        }
        .await;
        let mut answer = [0; 4_096];
        while let Ok(1..) = stream.read(&mut answer).await {}
        std::io::Result::Ok(())
    };
    let ended = timeout(CLOSED_WITHIN, exchange).await;
    ended.with_context(|| {
        let shown = &bytes[..bytes.len().min(64)];
        format!("{address} keeps a connection open that began with {shown:02x?}")
    })??;
    Ok(())
}

async fn throw_at(address: &str, path: &str, random: &mut SmallRng, count: usize) -> Result<()> {
    for _ in 0..count.div_ceil(AT_ONCE) {
        let thrown = (0..AT_ONCE).map(|_| {
            let kind = random.random_range(0..KINDS);
            let (address, bytes) = (address.to_owned(), garbage(kind, random, path));
            tokio::spawn(async move { thrown(&address, &bytes).await })
        });
        for one in Vec::from_iter(thrown) {
            one.await??;
        }
    }
    Ok(())
}

/// A member's log: each port has told why it closed something, with an address, and not too often.
fn told(log: &str, ports: &[&str], begun: Instant) -> Result<()> {
    ensure!(!log.contains("panicked"), "{log}");
    let windows = begun.elapsed().as_secs() / 10 + 2;
    for port in ports {
        let closed = log
            .lines()
            .filter(|line| line.contains("was closed") && line.contains(port));
        let closed: Vec<_> = closed.collect();
        let line = closed
            .first()
            .with_context(|| format!("{port}: no line in\n{log}"))?;
        ensure!(
            line.contains("from=127.0.0.1:") && line.contains("why="),
            "{line}"
        );
        let lines = closed.len() as u64;
        ensure!(
            lines <= LINES_PER_WINDOW * windows,
            "{port}: {lines} lines in {windows} windows"
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_on_every_port_is_closed_with_a_reason_and_leaves_no_trace() -> Result<()> {
    let mut random = SmallRng::seed_from_u64(seed()?);
    let count = rounds(SHORT, LONG);
    let cluster = Cluster::start(3).await?;
    let leader = cluster.leader().await?;
    let address = cluster.address(&leader)?;
    let disk = LogServer::new("ls1", cluster.operator())?;
    let log_server = disk.serve().await?;
    log_server.append(1, b"before").await??;
    let before = cluster.state_hashes_agree().await?;
    let term = cluster.status(&leader).await?.term;

    let member = cluster.member(&leader)?;
    let ports = [
        (member.client_address(), "/tally.v1.Nodes/Register"),
        (member.peer_address(), "/tally.peer.v1.Peer/Join"),
        (member.peer_address(), "/tally.peer.v1.Peer/Append"),
        (member.http_address(), "/metrics"),
        (
            log_server.address().to_owned(),
            "/tally.logserver.v1.LogServer/Append",
        ),
    ];
    let begun = Instant::now();
    // What the first ones make the allocator keep is no growth.
    for (port, path) in &ports {
        throw_at(port, path, &mut random, AT_ONCE).await?;
    }
    let resident = (member.resident_bytes()?, log_server.resident_bytes()?);
    for (port, path) in &ports {
        throw_at(port, path, &mut random, count).await?;
    }
    let now = (member.resident_bytes()?, log_server.resident_bytes()?);
    eprintln!("resident bytes of member and log server: {resident:?}, then {now:?}");
    for (before, now) in [(resident.0, now.0), (resident.1, now.1)] {
        let grown = now.saturating_sub(before);
        ensure!(grown < GROWTH_BYTES_MAX, "{grown} bytes more than {before}");
    }

    until(
        "lines about closed connections",
        LOGGED_WITHIN,
        async || {
            told(&member.log(), &MEMBER_PORTS, begun)?;
            told(&log_server.log(), &["the port of log server ls1"], begun)
        },
    )
    .await?;
    still_the_same(&cluster, &leader, (before, term)).await?;
    serves(&cluster, &address, log_server).await?;
    cluster.stop().await
}

/// Sends bytes and then nothing more, not even that no more come; ends when the other side closes.
async fn held(address: String, bytes: Vec<u8>) -> Result<()> {
    let mut stream = TcpStream::connect(&address).await?;
    // The other side may close before it has read everything.
    let _: std::io::Result<()> = stream.write_all(&bytes).await;
    let mut answer = Vec::new();
    let closed = timeout(LET_GO_WITHIN, stream.read_to_end(&mut answer)).await;
    // Reset or ended: closed either way.
    ensure!(
        closed.is_ok(),
        "{address} keeps a connection open that began with {:02x?}",
        &bytes[..bytes.len().min(64)]
    );
    Ok(())
}

/// The callers do not go away by themselves: it is the member that closes, and meanwhile it holds no
/// more than it was sent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_whose_caller_stays_is_closed_with_a_reason_and_takes_no_memory() -> Result<()> {
    let mut random = SmallRng::seed_from_u64(seed()?);
    let cluster = Cluster::start(3).await?;
    let leader = cluster.leader().await?;
    let before = cluster.state_hashes_agree().await?;
    let term = cluster.status(&leader).await?.term;
    let member = cluster.member(&leader)?;
    let ports = [
        (member.client_address(), "/tally.v1.Nodes/Register"),
        (member.peer_address(), "/tally.peer.v1.Peer/Append"),
        (member.http_address(), "/metrics"),
    ];
    let begun = Instant::now();
    for (port, path) in &ports {
        throw_at(port, path, &mut random, AT_ONCE).await?;
    }
    let closed_before = turned_away(&cluster, &leader).await?;
    let resident = member.resident_bytes()?;
    let mut open = JoinSet::new();
    for (port, path) in &ports {
        for number in 0..HELD * KINDS {
            let bytes = garbage(number % KINDS, &mut random, path);
            open.spawn(held(port.clone(), bytes));
        }
    }
    let mut most = 0;
    while let Some(ended) = open.join_next().await {
        ended??;
        most = most.max(member.resident_bytes()?);
        let grown = most.saturating_sub(resident);
        ensure!(
            grown < GROWTH_BYTES_MAX,
            "{grown} bytes more than {resident}"
        );
    }
    eprintln!(
        "resident bytes: {resident}, at most {most}; the last was closed after {:?}",
        begun.elapsed()
    );
    // A connection is closed first, and then counted.
    until("all of them are counted", LOGGED_WITHIN, async || {
        let closed = turned_away(&cluster, &leader).await?;
        for ((port, now), before) in PORTS.iter().zip(closed).zip(closed_before) {
            let closed = now - before;
            let expected = (HELD * KINDS) as u64;
            ensure!(
                closed >= expected,
                "{port}: {closed} of {expected} with a reason"
            );
        }
        Ok(())
    })
    .await?;
    told(&member.log(), &MEMBER_PORTS, begun)?;
    assert_eq!(cluster.state_hashes_agree().await?, before);
    assert_eq!(cluster.leader().await?, leader);
    assert_eq!(cluster.status(&leader).await?.term, term);
    cluster.stop().await
}

/// Nothing was appended, nobody was elected, and everything is counted.
async fn still_the_same(cluster: &Cluster, leader: &str, before: (u64, u64)) -> Result<()> {
    assert_eq!(cluster.state_hashes_agree().await?, before.0);
    assert_eq!(cluster.leader().await?, leader);
    assert_eq!(cluster.status(leader).await?.term, before.1);
    for (port, count) in PORTS.iter().zip(turned_away(cluster, leader).await?) {
        ensure!(count >= SHORT as u64 / 12, "{port}: {count}");
    }
    Ok(())
}

/// Connections that a member closed for a reason, by port.
async fn turned_away(cluster: &Cluster, name: &str) -> Result<[u64; 3]> {
    let metrics = cluster.member(name)?.http("/metrics").await?;
    let mut counts = [0; 3];
    for (port, count) in PORTS.iter().zip(&mut counts) {
        let name = format!("tally_connections_turned_away_total{{port=\"{port}\"}}");
        *count = metrics.metric(&name)?;
    }
    Ok(counts)
}

/// Everything goes on.
async fn serves(cluster: &Cluster, address: &str, log_server: LogServerProcess) -> Result<()> {
    Requester::open(address)
        .await?
        .register(address, "after")
        .await?;
    let reader = Reader::linearizable(address).await?;
    reader.known("after").await?;
    let offset = log_server.append(1, b"after").await??;
    assert_eq!(offset, 2);
    log_server.stop().await?;
    cluster.state_hashes_agree().await?;
    Ok(())
}
