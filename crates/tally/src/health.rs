//! `tally health`: does the member on this machine take requests? For health checks of containers,
//! which have no other program to ask with.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::HOST;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use tally_model::explanation::codes;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::config::listen_http;
use crate::exit::{Exit, Failure};
use crate::output::Output;

/// A member answers this at once or is not healthy.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// Asks a member whether it takes requests: exit code 0 when it does, 1 when it does not.
///
/// The address is the one on which the member serves HTTP, taken from where `tally serve` takes it:
/// the flag, TALLY_LISTEN_HTTP, or the file of --config.
#[derive(Debug, Args)]
pub(crate) struct HealthArguments {
    /// Where the member serves HTTP [default: 127.0.0.1:7413]
    #[arg(long, value_name = "HOST:PORT")]
    listen_http: Option<String>,
    /// The TOML file that the member was started with.
    #[arg(long, value_name = "FILE", env = "TALLY_CONFIG")]
    config: Option<PathBuf>,
}

#[derive(Serialize)]
struct Healthy {
    ready: bool,
    address: String,
}

pub(crate) async fn run(arguments: HealthArguments, output: Output) -> Result<(), Failure> {
    let address = listen_http(arguments.listen_http, arguments.config.as_deref())?;
    let unhealthy = |code: &str, found: String| {
        let failure = Failure::fault(code, found).ends_with(Exit::Broken);
        failure.expected(format!("200 from http://{address}/readyz"))
    };
    let answer = match timeout(ANSWER_WITHIN, readyz(&address)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(why)) => {
            let found = format!("no answer from http://{address}/readyz: {why}");
            return Err(unhealthy(codes::NOT_READY, found));
        }
        Err(_) => {
            let found = format!("no answer from http://{address}/readyz within {ANSWER_WITHIN:?}");
            return Err(unhealthy(codes::NOT_READY, found));
        }
    };
    if answer.status != 200 {
        let (code, found, next) = fault(&answer.body);
        return Err(unhealthy(code, found.to_owned()).next(next));
    }
    let healthy = Healthy {
        ready: true,
        address,
    };
    output.print(&healthy, || "ready".to_owned())
}

/// What a member says of itself, `T-001: no leader is known; run: …`, in its parts: the code, what was
/// found, and what to run.
fn fault(said: &str) -> (&str, &str, &str) {
    let said = said.trim();
    let (code, rest) = match said.split_once(": ") {
        Some((code, rest)) if code.starts_with("T-") => (code, rest),
        _ => (codes::NOT_READY, said),
    };
    let (found, next) = rest.split_once("; run: ").unwrap_or((rest, ""));
    (code, found, next)
}

struct Answer {
    status: u16,
    body: String,
}

async fn readyz(address: &str) -> Result<Answer, Box<dyn std::error::Error + Send + Sync>> {
    let stream = connect(address).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let carried = tokio::spawn(connection);
    let request = Request::get("/readyz").header(HOST, address);
    let answer = sender.send_request(request.body(Empty::<Bytes>::new())?);
    let answer = answer.await?;
    let status = answer.status().as_u16();
    let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX);
    let body = body.collect().await?.to_bytes();
    carried.abort();
    Ok(Answer {
        status,
        body: String::from_utf8_lossy(&body).into_owned(),
    })
}

/// Connects to where a member listens; one that listens everywhere is reached on loopback.
async fn connect(address: &str) -> std::io::Result<TcpStream> {
    let found = tokio::net::lookup_host(address).await?;
    let found = Vec::from_iter(found.map(reachable));
    TcpStream::connect(&*found).await
}

fn reachable(listening: SocketAddr) -> SocketAddr {
    let ip = match listening.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listening.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_that_listens_everywhere_is_asked_on_loopback() {
        for (listening, asked) in [
            ("0.0.0.0:7413", "127.0.0.1:7413"),
            ("[::]:7413", "[::1]:7413"),
            ("10.0.0.7:1", "10.0.0.7:1"),
        ] {
            let listening = listening.parse::<SocketAddr>();
            assert_eq!(listening.map(reachable), asked.parse());
        }
    }

    #[test]
    fn what_a_member_says_of_itself_keeps_its_code() {
        assert_eq!(
            fault("T-001: no leader is known; run: tally cluster status\n"),
            ("T-001", "no leader is known", "tally cluster status")
        );
        let without = fault("T-006: the member is ending\n");
        assert_eq!(without, ("T-006", "the member is ending", ""));
        assert_eq!(
            fault("halted: disk"),
            (codes::NOT_READY, "halted: disk", "")
        );
    }
}
