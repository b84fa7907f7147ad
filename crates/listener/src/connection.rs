//! One connection: what it opens with, its requests, and its end.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::http::{Request, Response};
use axum::routing::future::RouteFuture;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::net::sockopt;
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tonic::body::Body;

use crate::at_once::AtOnce;
use crate::direct::{Answering, Direct};
use crate::door::Bounds;
use crate::notes::Notes;
use crate::opening::{self, Opening, PREFACE};
use crate::port::Speaks;
use crate::reason::{self, Reason};
use crate::status;
use crate::stray::{self, Caller};

/// Within this time a caller says what it speaks. A gRPC client does so at once.
const OPENING_WITHIN: Duration = Duration::from_secs(10);
/// How long is waited for the rest of an opening that came in pieces.
const OPENING_AGAIN_AFTER: Duration = Duration::from_millis(20);
/// Headers of a request over HTTP/1 are read within this time, and a connection may be idle for as long.
const HEADERS_WITHIN: Duration = Duration::from_secs(30);
/// Longest headers over HTTP/1; over HTTP/2 hyper takes 16 KiB.
const HEADER_BYTES_MAX: usize = 16 << 10;
/// How long a caller of the wrong protocol is given to take its answer.
const ANSWER_TAKEN_WITHIN: Duration = Duration::from_secs(2);
/// How often a silent caller's system is asked whether it is there before it is taken to be gone.
const KEEP_ALIVE_TRIES: u32 = 4;
/// Streams that a caller may reset before they were looked at (CVE-2023-44487).
const RESET_STREAMS_MAX: usize = 20;

pub(crate) struct Connection {
    pub(crate) stream: TcpStream,
    pub(crate) from: SocketAddr,
    pub(crate) notes: Arc<Notes>,
    pub(crate) router: Router,
    /// For HTTP/1.
    pub(crate) http1: Router,
    pub(crate) direct: Arc<Direct>,
    pub(crate) bounds: Bounds,
    pub(crate) ending: CancellationToken,
}

/// What came of the first bytes.
enum Opened {
    As(Opening),
    /// It was closed before it said anything, as whoever looks whether a port is open does.
    Silent,
    /// It said too little for too long.
    Late(usize),
    /// It said too little and that no more comes.
    Cut(usize),
    /// The connection broke, or the process ends.
    Over,
}

impl Connection {
    /// Serves it to its end. Why it ended is in the log, unless it ended as it should.
    pub(crate) async fn run(self) {
        // Only a delay is lost where it cannot be set.
        let _ = self.stream.set_nodelay(true);
        let opened = self.open().await;
        let speaks = self.notes.port().speaks;
        match (opened, speaks) {
            (Opened::As(Opening::Http2), _) => self.http2().await,
            (Opened::As(Opening::Http1), Speaks::Http | Speaks::GrpcAndHttp { .. }) => {
                self.http1().await;
            }
            (Opened::As(Opening::Http1), Speaks::Grpc) => {
                let (answer, said) = stray::http1_on_grpc(self.notes.port());
                self.notes.closed(self.from, &said);
                self.answer(answer).await;
            }
            (Opened::As(Opening::Tls), _) => {
                let why = "it begins with a TLS handshake, and this port does not speak TLS";
                self.notes.closed(self.from, why);
            }
            (Opened::As(Opening::Unknown), _) => {
                let why = "its first bytes are no HTTP";
                self.notes.closed(self.from, why);
            }
            (Opened::Late(bytes), _) => {
                let why =
                    format!("it sent {bytes} bytes in {OPENING_WITHIN:?}, too few for a request");
                self.notes.closed(self.from, &why);
            }
            (Opened::Cut(bytes), _) => {
                let why = format!("it ended after {bytes} bytes, too few for a request");
                self.notes.closed(self.from, &why);
            }
            (Opened::Silent | Opened::Over, _) => {
                tracing::debug!(from = %self.from, "a connection ended before it began");
            }
        }
    }

    /// Looks at the first bytes and leaves them where they are.
    async fn open(&self) -> Opened {
        let until = Instant::now() + OPENING_WITHIN;
        let mut bytes = [0; PREFACE.len()];
        let (mut seen, mut ended) = (0, false);
        loop {
            let looked = tokio::select! {
                looked = timeout_at(until, self.stream.peek(&mut bytes)) => looked,
                () = self.ending.cancelled() => return Opened::Over,
            };
            let found = match looked {
                Err(_) => return Opened::Late(seen),
                Ok(Err(_)) => return Opened::Over,
                Ok(Ok(0)) => return Opened::Silent,
                Ok(Ok(found)) => found,
            };
            if let Some(opening) = opening::read(&bytes[..found]) {
                return Opened::As(opening);
            }
            if Instant::now() >= until {
                return Opened::Late(found);
            }
            if ended {
                return Opened::Cut(found);
            }
            // Once no more can come, one more look sees everything.
            let ready = self.stream.ready(Interest::READABLE).await;
            ended = ready.is_ok_and(|ready| ready.is_read_closed());
            if ended {
                continue;
            }
            // What was looked at is still there, so the next look would not wait for more.
            if found == seen || seen == 0 {
                sleep(OPENING_AGAIN_AFTER).await;
            }
            seen = found;
        }
    }

    /// Tells a caller of another protocol where it is, and closes in a way that lets it read that.
    async fn answer(mut self, answer: String) {
        let told = async {
            self.stream.write_all(answer.as_bytes()).await?;
            self.stream.shutdown().await?;
            // What was not read when a socket is closed would make the system reset it.
            let mut rest = [0; 1024];
            let mut left = HEADER_BYTES_MAX;
            while left > 0 {
                self.stream.readable().await?;
                match self.stream.try_read(&mut rest) {
                    Ok(0) => break,
                    Ok(read) => left = left.saturating_sub(read),
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        };
        // It was told as well as it could be.
        let _: Result<std::io::Result<()>, _> = timeout(ANSWER_TAKEN_WITHIN, told).await;
    }

    fn requests(&self, router: &Router, direct: &Arc<Direct>) -> Requests {
        Requests {
            router: router.clone(),
            direct: direct.clone(),
            from: self.from,
            served: Arc::default(),
        }
    }

    async fn http2(self) {
        let Bounds {
            streams_max,
            keep_alive_every,
            keep_alive_timeout,
            adaptive_window,
            ..
        } = self.bounds;
        let requests = self.requests(&self.router, &self.direct);
        let mut builder = http2::Builder::new(AtOnce);
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(streams_max)
            .max_pending_accept_reset_streams(RESET_STREAMS_MAX)
            .keep_alive_interval(keep_alive_every)
            .keep_alive_timeout(keep_alive_timeout)
            .adaptive_window(adaptive_window);
        let connection = builder.serve_connection(TokioIo::new(self.stream), requests);
        let mut connection = pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = self.ending.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        say(
            &self.notes,
            self.from,
            ended.err().map(|error| reason::read(&error)),
        );
    }

    async fn http1(self) {
        // Over HTTP/1 nothing else tells that a caller is gone who only listens.
        if let Err(error) = ask_whether_there(&self.stream, &self.bounds) {
            tracing::debug!(%error, from = %self.from, "a connection is not kept watch over");
        }
        let requests = self.requests(&self.http1, &Arc::default());
        let served = requests.served.clone();
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(HEADERS_WITHIN)
            .max_buf_size(HEADER_BYTES_MAX);
        let connection = builder.serve_connection(TokioIo::new(self.stream), requests);
        let mut connection = pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = self.ending.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        // A connection that is kept for later requests and not used is closed without a word.
        let idle = |error: &hyper::Error| error.is_timeout() && served.load(Ordering::Relaxed);
        let failed = ended.err().filter(|error| !idle(error));
        say(
            &self.notes,
            self.from,
            failed.map(|error| reason::read(&error)),
        );
    }
}

/// Has the system ask a silent caller's system whether it is still there, as often as over HTTP/2.
fn ask_whether_there(stream: &TcpStream, bounds: &Bounds) -> std::io::Result<()> {
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, bounds.keep_alive_every)?;
    sockopt::set_tcp_keepintvl(stream, bounds.keep_alive_timeout / KEEP_ALIVE_TRIES)?;
    sockopt::set_tcp_keepcnt(stream, KEEP_ALIVE_TRIES)?;
    // The same where something is on its way to it, when nothing is asked; it would else be a quarter of an hour.
    let gone_after = (bounds.keep_alive_every + bounds.keep_alive_timeout).as_millis();
    sockopt::set_tcp_user_timeout(stream, u32::try_from(gone_after).unwrap_or(u32::MAX))?;
    Ok(())
}

fn say(notes: &Notes, from: SocketAddr, reason: Option<Reason>) {
    match reason {
        Some(Reason::Caller(why)) => notes.closed(from, &why),
        Some(Reason::Gone(why)) => tracing::debug!(%from, why, "a connection was lost"),
        None => {}
    }
}

/// Hands requests on, with who sent them.
struct Requests {
    router: Router,
    direct: Arc<Direct>,
    from: SocketAddr,
    /// A request has come.
    served: Arc<AtomicBool>,
}

impl Service<Request<Incoming>> for Requests {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        self.served.store(true, Ordering::Relaxed);
        if let Some(answers) = self.direct.find(request.uri().path()) {
            return Answer::Direct(answers.answer(request));
        }
        let mut request = request.map(axum::body::Body::new);
        request.extensions_mut().insert(Caller(self.from));
        let mut router = self.router.clone();
        // A router is always ready.
        Answer::Routed(Box::pin(tower::Service::call(&mut router, request)))
    }
}

/// An answer on its way.
enum Answer {
    Direct(Answering),
    Routed(Pin<Box<RouteFuture<Infallible>>>),
}

impl Future for Answer {
    type Output = Result<Response<Body>, Infallible>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.get_mut() {
            Self::Direct(answer) => answer
                .as_mut()
                .poll(context)
                .map_ok(|response| status::explain(response, None)),
            Self::Routed(answer) => {
                let answer = answer.as_mut().poll(context);
                answer.map_ok(|response| response.map(Body::new))
            }
        }
    }
}
