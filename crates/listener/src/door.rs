//! Accepts connections, as many as there may be, until it is told to end.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tower::util::MapResponseLayer;

use crate::connection::Connection;
use crate::direct::Direct;
use crate::notes::Notes;
use crate::port::{Port, Speaks};
use crate::{files, status, stray};

/// Nobody can be let in for a reason that is this machine's, for example too many open files: trying
/// again at once would only keep it busy.
const ACCEPT_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// How much a port takes on.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Connections at a time; more are closed at once.
    pub connections_max: usize,
    /// At most one in so many of the files that the process may open is a connection of this port.
    pub one_file_in: u64,
    /// Requests of one connection at a time.
    pub streams_max: u32,
    /// How often a silent connection is asked whether it is still there.
    pub keep_alive_every: Duration,
    /// How long it may take to say so.
    pub keep_alive_timeout: Duration,
    /// Whether HTTP/2 windows follow what the network carries.
    pub adaptive_window: bool,
}

impl Bounds {
    fn connections(&self) -> usize {
        let files = files::limit() / self.one_file_in.max(1);
        let files = usize::try_from(files).unwrap_or(usize::MAX);
        self.connections_max.min(files).max(1)
    }
}

/// What a port serves.
#[derive(Clone, Debug, Default)]
pub struct Served {
    /// What is not called directly.
    pub router: Router,
    pub direct: Direct,
    /// All that is served over HTTP/1, where the port speaks gRPC and plain HTTP: a browser can send anything over
    /// that, in the name of any page.
    pub http1: Router,
}

/// Gives what tonic itself answers a code of Tally's. `lists` is [`Port::lists`].
pub fn explained(router: Router, lists: Option<&'static str>) -> Router {
    router.layer(MapResponseLayer::new(move |response: Response<Body>| {
        status::explain(response, lists)
    }))
}

/// Serves a port until `ending` is cancelled and every connection has ended: requests under way are
/// finished, new ones are not taken. Whoever drops the future cuts every connection off.
pub async fn serve(
    listener: TcpListener,
    port: Port,
    served: Served,
    bounds: Bounds,
    ending: CancellationToken,
) {
    let notes = Arc::new(Notes::new(port));
    let room = Arc::new(Semaphore::new(bounds.connections()));
    let with_strays = |router: Router| {
        let strays = notes.clone();
        let router = router.fallback(move |request: Request<Body>| {
            std::future::ready(stray::answer(&strays, &request))
        });
        explained(router, notes.port().lists)
    };
    let router = with_strays(served.router);
    let http1 = match notes.port().speaks {
        Speaks::GrpcAndHttp { .. } => with_strays(served.http1),
        Speaks::Grpc | Speaks::Http => router.clone(),
    };
    let direct = Arc::new(served.direct);
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(ended) = connections.join_next(), if !connections.is_empty() => {
                report(ended);
                continue;
            }
            () = ending.cancelled() => break,
        };
        let (stream, from) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                failed(&error, &notes, &ending).await;
                continue;
            }
        };
        let Ok(permit) = room.clone().try_acquire_owned() else {
            let why = format!("{} connections are open already", bounds.connections());
            notes.closed(from, &why);
            continue;
        };
        let open = notes.port().counts.opened();
        let connection = Connection {
            stream,
            from,
            notes: notes.clone(),
            router: router.clone(),
            http1: http1.clone(),
            direct: direct.clone(),
            bounds,
            ending: ending.clone(),
        };
        connections.spawn(async move {
            connection.run().await;
            drop((permit, open));
        });
    }
    // Nobody else connects from now on.
    drop(listener);
    while let Some(ended) = connections.join_next().await {
        report(ended);
    }
}

/// A caller that is gone before it was let in is no failure.
async fn failed(error: &io::Error, notes: &Notes, ending: &CancellationToken) {
    if matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
    ) {
        return;
    }
    let port = &notes.port().name;
    tracing::error!(%error, port, "no connection can be accepted; tried again soon");
    tokio::select! {
        () = tokio::time::sleep(ACCEPT_AGAIN_AFTER) => {}
        () = ending.cancelled() => {}
    }
}

fn report(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a connection did not end as it should");
    }
}
