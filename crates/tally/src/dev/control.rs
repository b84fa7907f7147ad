//! Orders to a running `dev`: one line of JSON each way over a connection on loopback. The secret in
//! `dev.json` keeps other users of the machine out.

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tally_model::explanation::codes;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::command;
use super::file::{Control, DevFile};
use crate::exit::Failure;

/// Longest line in either direction; a status of all members is far shorter.
const LINE_BYTES_MAX: u64 = 64 << 10;
/// An order is short and is sent at once, so a peer that is slower is not one of ours.
const ORDER_READ_WITHIN: Duration = Duration::from_secs(2);

/// An order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Ask {
    Kill { member: String },
    Start { member: String },
    DropReplies { on: bool },
    Status,
}

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub(super) enum Reply {
    Killed {
        member: String,
        role: String,
    },
    Started {
        member: String,
    },
    DropReplies {
        on: bool,
    },
    Status {
        drop_replies: bool,
        members: Vec<MemberReport>,
    },
    Failed {
        code: String,
        found: String,
        /// Empty when there is nothing to say, and `next` too.
        expected: String,
        next: String,
    },
}

/// One member as `dev` sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct MemberReport {
    pub(super) name: String,
    /// `stopped` also when it was killed or failed.
    pub(super) role: String,
    pub(super) running: bool,
    /// Absent before it has an identity, and when it does not run.
    /// 16 hexadecimal digits, as everywhere.
    pub(super) id: Option<String>,
    pub(super) term: u64,
    pub(super) applied_index: u64,
    pub(super) client: String,
    pub(super) peer: String,
    pub(super) http: String,
    /// Why it ended, when nobody ended it.
    pub(super) failure: Option<String>,
}

impl From<Failure> for Reply {
    fn from(failure: Failure) -> Self {
        let expected = failure.expectation().unwrap_or_default().to_owned();
        let next = failure.next_command().unwrap_or_default().to_owned();
        Self::Failed {
            code: failure.code,
            found: failure.found,
            expected,
            next,
        }
    }
}

/// An order as it is sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Order {
    pub(super) secret: String,
    pub(super) ask: Ask,
}

/// An order and the way back.
pub(super) type Pending = (Ask, oneshot::Sender<Reply>);

/// Listens on a free loopback port and hands orders on, one after the other. Ends with the runtime or
/// when nobody takes orders any more.
pub(super) async fn listen(orders: mpsc::Sender<Pending>) -> Result<Control, Failure> {
    let failure = |error: std::io::Error| {
        Failure::fault(
            codes::ADDRESS_IN_USE,
            format!("cannot listen on 127.0.0.1: {error}"),
        )
    };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .map_err(failure)?;
    let control = Control {
        port: listener.local_addr().map_err(failure)?.port(),
        secret: format!("{:032x}", rand::random::<u128>()),
    };
    let secret = control.secret.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if let Err(error) = serve(stream, &secret, &orders).await {
                tracing::debug!(%error, "an order was not carried out");
            }
        }
    });
    Ok(control)
}

async fn serve(
    mut stream: TcpStream,
    secret: &str,
    orders: &mpsc::Sender<Pending>,
) -> anyhow::Result<()> {
    let line = timeout(ORDER_READ_WITHIN, read_line(&mut stream)).await??;
    let order: Order = serde_json::from_str(&line)?;
    anyhow::ensure!(order.secret == secret, "the secret is wrong");
    let (reply, answer) = oneshot::channel();
    orders.send((order.ask, reply)).await?;
    write_line(&mut stream, &answer.await?).await
}

async fn read_line(stream: &mut TcpStream) -> anyhow::Result<String> {
    let mut line = String::new();
    let mut reader = BufReader::new(stream).take(LINE_BYTES_MAX);
    reader.read_line(&mut line).await?;
    anyhow::ensure!(line.ends_with('\n'), "the line has no end");
    Ok(line)
}

async fn write_line(stream: &mut TcpStream, message: &impl Serialize) -> anyhow::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    stream.write_all(&line).await?;
    stream.flush().await?;
    Ok(())
}

/// Sends an order to the `dev` that runs on a directory.
pub(super) async fn ask(dir: &Path, ask: &Ask, within: Duration) -> Result<Reply, Failure> {
    let none = || {
        let found = format!("no `tally dev` runs on {}", dir.display());
        let next = command(dir, "");
        Failure::fault(codes::NOT_FOUND, found).next(next)
    };
    let control = DevFile::read(dir)?
        .and_then(|file| file.control)
        .ok_or_else(none)?;
    let address = (Ipv4Addr::LOCALHOST, control.port);
    let mut stream = TcpStream::connect(address).await.map_err(|_| none())?;
    let order = Order {
        secret: control.secret,
        ask: ask.clone(),
    };
    let exchange = async {
        write_line(&mut stream, &order).await?;
        let line = read_line(&mut stream).await?;
        anyhow::Ok(serde_json::from_str(&line)?)
    };
    match timeout(within, exchange).await {
        Ok(Ok(reply)) => Ok(reply),
        // Another process has the port of a `dev` that was killed.
        Ok(Err(_)) => Err(none()),
        Err(_) => {
            let found = format!(
                "the `tally dev` on {} did not answer in {within:?}",
                dir.display()
            );
            Err(Failure::fault(codes::OUTCOME_UNKNOWN, found).next(command(dir, "status")))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    const SOON: Duration = Duration::from_secs(5);

    async fn running(dir: &Path) -> mpsc::Receiver<Pending> {
        let (sender, orders) = mpsc::channel(1);
        let control = Some(listen(sender).await.unwrap());
        let file = DevFile {
            control,
            members: Vec::new(),
        };
        file.write(dir).unwrap();
        orders
    }

    #[tokio::test]
    async fn an_order_reaches_the_running_dev_and_is_answered() {
        let dir = tempfile::tempdir().unwrap();
        let mut orders = running(dir.path()).await;
        tokio::spawn(async move {
            let (asked, reply) = orders.recv().await.unwrap();
            assert_eq!(asked, Ask::DropReplies { on: true });
            reply.send(Reply::DropReplies { on: true }).unwrap();
        });
        let reply = ask(dir.path(), &Ask::DropReplies { on: true }, SOON).await;
        assert_eq!(reply, Ok(Reply::DropReplies { on: true }));
    }

    #[tokio::test]
    async fn an_order_without_the_secret_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let mut orders = running(dir.path()).await;
        let mut file = DevFile::read(dir.path()).unwrap().unwrap();
        file.control.as_mut().unwrap().secret = "guessed".to_owned();
        file.write(dir.path()).unwrap();
        let reply = ask(dir.path(), &Ask::Status, SOON).await;
        assert_eq!(reply.unwrap_err().code, codes::NOT_FOUND);
        assert!(orders.try_recv().is_err());
    }

    #[tokio::test]
    async fn without_a_running_dev_the_command_says_how_to_start_one() {
        let dir = tempfile::tempdir().unwrap();
        let failure = ask(dir.path(), &Ask::Status, SOON).await.unwrap_err();
        assert_eq!(failure.exit.code(), 1);
        assert!(
            failure
                .next_command()
                .unwrap()
                .starts_with("tally dev --data-dir"),
            "{failure}"
        );
    }
}
