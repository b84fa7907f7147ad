//! A TCP proxy that loses what it is told to lose.
//!
//! A connection that lost bytes is never used again for anything else: when the mode changes, it is
//! closed, because what is above TCP could not go on with a gap.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::deadline::until;

const BUFFER_BYTES: usize = 16 << 10;
/// On one connection.
const HELD_BYTES_MAX: usize = 1 << 20;
/// So many printable characters in a row are a text.
const TEXT_BYTES: usize = 64;

/// What the proxy does with what it is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Both directions pass.
    Pass,
    /// Requests pass, nothing comes back.
    SwallowAnswers,
    /// Requests are taken and never passed on.
    DropRequests,
    /// Requests are taken, and passed on when the mode is [`Mode::Pass`] again.
    HoldRequests,
    /// Connections are closed, and new ones at once.
    Cut,
    /// Requests pass until clients have sent so many bytes in all; then nothing passes on.
    HoldRequestsAt(u64),
    /// Both directions pass, but one bit is flipped, once: in the first long text that clients send after
    /// so many bytes in all. A text, so that what frames it stays as it is.
    FlipTextAfter(u64),
}

/// Bytes that were seen so far.
#[derive(Debug, Default)]
struct Counts {
    /// From clients, passed on or dropped.
    requests: AtomicU64,
    /// In either direction, swallowed or dropped.
    lost: AtomicU64,
    /// A bit was flipped.
    flipped: AtomicBool,
}

/// Stands between clients and one address. Ends when dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    mode: watch::Sender<Mode>,
    counts: Arc<Counts>,
    accepting: tokio::task::JoinHandle<()>,
}

impl Proxy {
    /// Listens on a port of its own and passes everything to `target`.
    ///
    /// # Errors
    /// When it cannot listen.
    pub async fn before(target: &str) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (mode, watching) = watch::channel(Mode::Pass);
        let counts = Arc::new(Counts::default());
        let serving = serve(listener, target.to_owned(), watching, counts.clone());
        Ok(Self {
            address,
            mode,
            counts,
            accepting: tokio::spawn(serving),
        })
    }

    /// Where clients connect.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Takes effect for what has not passed yet, on present and future connections.
    pub fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    /// Bytes that clients have sent so far, passed on or dropped.
    pub fn request_bytes(&self) -> u64 {
        self.counts.requests.load(Ordering::SeqCst)
    }

    /// Bytes that were swallowed or dropped so far.
    pub fn lost_bytes(&self) -> u64 {
        self.counts.lost.load(Ordering::SeqCst)
    }

    /// True when a bit was flipped.
    pub fn has_flipped(&self) -> bool {
        self.counts.flipped.load(Ordering::SeqCst)
    }

    /// Waits until clients have sent more than `bytes` in all.
    ///
    /// # Errors
    /// When they have not after `within`.
    pub async fn request_bytes_above(&self, bytes: u64, within: Duration) -> Result<()> {
        until("request bytes at the proxy", within, async || {
            let seen = self.request_bytes();
            ensure!(seen > bytes, "{seen} of more than {bytes} bytes");
            Ok(())
        })
        .await
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // The connections' tasks belong to this one and end with it.
        self.accepting.abort();
    }
}

async fn serve(
    listener: TcpListener,
    target: String,
    mode: watch::Receiver<Mode>,
    counts: Arc<Counts>,
) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        if *mode.borrow() == Mode::Cut {
            continue;
        }
        let (target, mode, counts) = (target.clone(), mode.clone(), counts.clone());
        connections.spawn(async move {
            // A connection that fails is closed; that is all its ends need to know.
            let _ = connection(client, &target, mode, &counts).await;
        });
    }
}

async fn connection(
    client: TcpStream,
    target: &str,
    mode: watch::Receiver<Mode>,
    counts: &Counts,
) -> Result<()> {
    let server = TcpStream::connect(target)
        .await
        .with_context(|| format!("connecting to {target}"))?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    // Which of the two ends first does not matter: each ends only when the connection must.
    tokio::select! {
        end = flow(from_client, to_server, mode.clone(), Mode::DropRequests, counts) => end,
        end = flow(from_server, to_client, mode, Mode::SwallowAnswers, counts) => end,
    }
}

/// Does to requests what the mode asks for; `before` is the number of their first byte.
async fn tamper(
    mode: &mut watch::Receiver<Mode>,
    counts: &Counts,
    before: u64,
    requests: &mut [u8],
) -> Result<()> {
    let now = *mode.borrow();
    match now {
        Mode::HoldRequestsAt(limit) if before + requests.len() as u64 > limit => {
            let over = |mode: &Mode| !matches!(mode, Mode::HoldRequestsAt(_));
            let then = *mode.wait_for(over).await?;
            ensure!(then != Mode::Cut, "mode became {then:?}");
        }
        Mode::FlipTextAfter(number) => {
            let from = usize::try_from(number.saturating_sub(before))?;
            let text = |bytes: &[u8]| bytes.iter().all(u8::is_ascii_graphic);
            let found = requests.get(from..).and_then(|rest| {
                let mut windows = rest.windows(TEXT_BYTES);
                windows.position(text)
            });
            if let Some(position) = found
                && !counts.flipped.swap(true, Ordering::SeqCst)
            {
                requests[from + position + TEXT_BYTES / 2] ^= 1;
            }
        }
        _ => {}
    }
    Ok(())
}

/// Passes one direction on, except in the mode that loses it.
async fn flow(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut mode: watch::Receiver<Mode>,
    losing: Mode,
    counts: &Counts,
) -> Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut held = Vec::new();
    let mut lost = false;
    loop {
        let length = tokio::select! {
            biased;
            changed = mode.changed() => {
                changed?;
                let now = *mode.borrow_and_update();
                ensure!(now != Mode::Cut && (!lost || now == losing), "mode became {now:?}");
                if now == Mode::Pass {
                    to.write_all(&std::mem::take(&mut held)).await?;
                }
                continue;
            }
            length = from.read(&mut buffer) => length,
        };
        let mode_now = *mode.borrow();
        let losing_now = mode_now == losing;
        let requests = losing == Mode::DropRequests;
        match length {
            Ok(length) if length > 0 => {
                if requests {
                    let before = counts.requests.fetch_add(length as u64, Ordering::SeqCst);
                    tamper(&mut mode, counts, before, &mut buffer[..length]).await?;
                }
                if requests && mode_now == Mode::HoldRequests {
                    ensure!(held.len() < HELD_BYTES_MAX, "too much is held");
                    held.extend_from_slice(&buffer[..length]);
                } else if losing_now {
                    lost = true;
                    counts.lost.fetch_add(length as u64, Ordering::SeqCst);
                } else {
                    to.write_all(&buffer[..length]).await?;
                }
            }
            // In the mode that loses this direction the other end does not learn of its end either.
            Ok(_) | Err(_) if losing_now => {
                mode.wait_for(|now| *now != losing).await?;
                return Ok(());
            }
            Ok(_) => {
                to.shutdown().await?;
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::timeout;

    const SOON: Duration = Duration::from_secs(5);

    /// Answers each line with its length, and tells how many bytes it was given.
    async fn server() -> Result<(String, watch::Receiver<u64>)> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        let (given, seen) = watch::channel(0);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let given = given.clone();
                tokio::spawn(async move {
                    let mut buffer = [0; 64];
                    while let Ok(length) = stream.read(&mut buffer).await
                        && length > 0
                    {
                        given.send_modify(|sum| *sum += length as u64);
                        if stream.write_all(&buffer[..length]).await.is_err() {
                            break;
                        }
                    }
                });
            }
        });
        Ok((address, seen))
    }

    async fn echo(stream: &mut TcpStream, text: &str) -> Result<String> {
        stream.write_all(text.as_bytes()).await?;
        let mut buffer = vec![0; text.len()];
        timeout(SOON, stream.read_exact(&mut buffer)).await??;
        Ok(String::from_utf8(buffer)?)
    }

    #[tokio::test]
    async fn a_swallowed_answer_means_that_the_request_went_through() -> Result<()> {
        let (address, mut seen) = server().await?;
        let proxy = Proxy::before(&address).await?;
        let mut client = TcpStream::connect(proxy.address()).await?;
        assert_eq!(echo(&mut client, "one").await?, "one");

        proxy.set(Mode::SwallowAnswers);
        client.write_all(b"two").await?;
        timeout(SOON, seen.wait_for(|sum| *sum == 6)).await??;
        until("the answer is swallowed", SOON, async || {
            ensure!(
                proxy.lost_bytes() == 3,
                "{} bytes were lost",
                proxy.lost_bytes()
            );
            Ok(())
        })
        .await?;

        proxy.set(Mode::Pass);
        let mut rest = Vec::new();
        let end = timeout(SOON, client.read_to_end(&mut rest)).await?;
        assert!(end.is_err() || rest.is_empty(), "an answer came: {rest:?}");
        Ok(())
    }

    #[tokio::test]
    async fn a_dropped_request_never_arrives() -> Result<()> {
        let (address, seen) = server().await?;
        let proxy = Proxy::before(&address).await?;
        let mut client = TcpStream::connect(proxy.address()).await?;
        assert_eq!(echo(&mut client, "one").await?, "one");

        proxy.set(Mode::DropRequests);
        client.write_all(b"two").await?;
        proxy.request_bytes_above(5, SOON).await?;
        proxy.set(Mode::Pass);
        let mut again = TcpStream::connect(proxy.address()).await?;
        assert_eq!(echo(&mut again, "three").await?, "three");
        assert_eq!(*seen.borrow(), 8);
        Ok(())
    }

    #[tokio::test]
    async fn a_held_request_arrives_late_and_in_order() -> Result<()> {
        let (address, seen) = server().await?;
        let proxy = Proxy::before(&address).await?;
        let mut client = TcpStream::connect(proxy.address()).await?;
        assert_eq!(echo(&mut client, "one").await?, "one");

        proxy.set(Mode::HoldRequests);
        client.write_all(b"two").await?;
        proxy.request_bytes_above(5, SOON).await?;
        assert_eq!(*seen.borrow(), 3);
        proxy.set(Mode::Pass);
        let mut late = [0; 3];
        timeout(SOON, client.read_exact(&mut late)).await??;
        assert_eq!(&late, b"two");
        assert_eq!(echo(&mut client, "three").await?, "three");
        Ok(())
    }

    #[tokio::test]
    async fn held_requests_pass_when_the_hold_ends_and_a_flip_changes_one_bit() -> Result<()> {
        let (address, seen) = server().await?;
        let proxy = Proxy::before(&address).await?;
        let mut client = TcpStream::connect(proxy.address()).await?;
        proxy.set(Mode::HoldRequestsAt(3));
        assert_eq!(echo(&mut client, "one").await?, "one");
        client.write_all(b"two").await?;
        proxy.request_bytes_above(5, SOON).await?;
        assert_eq!(*seen.borrow(), 3);
        proxy.set(Mode::FlipTextAfter(6));
        let mut two = [0; 3];
        timeout(SOON, client.read_exact(&mut two)).await??;
        assert_eq!(&two, b"two");
        let text = "b".repeat(TEXT_BYTES);
        let echoed = echo(&mut client, &text).await?;
        assert_eq!(echoed.matches('c').count(), 1, "{echoed}");
        assert!(proxy.has_flipped());
        assert_eq!(echo(&mut client, &text).await?, text);
        Ok(())
    }

    #[tokio::test]
    async fn a_cut_closes_what_is_open_and_what_comes() -> Result<()> {
        let (address, _seen) = server().await?;
        let proxy = Proxy::before(&address).await?;
        let mut client = TcpStream::connect(proxy.address()).await?;
        assert_eq!(echo(&mut client, "one").await?, "one");

        proxy.set(Mode::Cut);
        assert!(echo(&mut client, "two").await.is_err());
        let mut again = TcpStream::connect(proxy.address()).await?;
        assert!(echo(&mut again, "two").await.is_err());
        proxy.set(Mode::Pass);
        let mut again = TcpStream::connect(proxy.address()).await?;
        assert_eq!(echo(&mut again, "two").await?, "two");
        Ok(())
    }
}
