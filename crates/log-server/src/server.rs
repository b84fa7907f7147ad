//! Starts, runs and ends a log server.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tally_client::log_server::{self, Identity, StartUp, Started};
use tally_client::{Consistency, StorageState, marker_file, v1};
use tally_proto::logserver as api;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;

use crate::disk::DiskGuard;
use crate::error::StartError;
use crate::follow::{fenced, follow};
use crate::options::LogServerOptions;
use crate::records::Records;
use crate::service::{MESSAGE_BYTES_MAX, READS_MAX, Service, state};
use crate::standing::Shared;
use crate::writer::Writer;

/// Directory of the records, in the data directory.
const RECORDS_DIR: &str = "records";

/// Requests at the same time on one connection.
const REQUESTS_PER_CONNECTION_MAX: usize = 128;

/// How long the end waits for requests that are under way, and for the session to be closed.
const SHUTDOWN_WITHIN: Duration = Duration::from_secs(5);

/// A log server.
#[derive(Debug)]
pub struct LogServer;

/// How a start ended.
#[derive(Debug)]
pub struct Start {
    /// What the cluster decided.
    pub started: Started,
    /// The server that runs: there exactly when the cluster answered `Applied` or `Replayed`.
    pub running: Option<Running>,
}

/// A log server that serves. Dropping it ends it without waiting.
#[derive(Debug)]
pub struct Running {
    identity: Identity,
    address: SocketAddr,
    standing: Shared,
    tasks: JoinSet<()>,
    stop: CancellationToken,
    writer: Option<JoinHandle<()>>,
}

impl LogServer {
    /// Starts: marker, registration, activation, and when the cluster agrees, opens the records and
    /// serves.
    ///
    /// # Errors
    /// When the cluster does not answer, or the disk or the listener cannot be used. Starting again is
    /// always safe.
    pub async fn start(options: LogServerOptions) -> Result<Start, StartError> {
        let records_dir = options.data_dir.join(RECORDS_DIR);
        // With a marker the records are opened first: their lock keeps a second process on this
        // directory from registering, which would fence the first. Without one nothing is written
        // before the cluster has agreed.
        let has_marker = options.data_dir.join(marker_file::FILE_NAME).exists();
        let opened = match has_marker {
            true => Some(open(&records_dir).await?),
            false => None,
        };
        let start_up = StartUp {
            dir: options.data_dir.clone(),
            name: options.name.clone(),
            address: options.advertise.clone(),
            location: options.location.clone(),
        };
        let started = log_server::start(&options.client, start_up).await?;
        let identity = match &started {
            Started::Applied { identity, .. } | Started::Replayed { identity, .. } => {
                identity.clone()
            }
            Started::Conflict { .. } | Started::DataLost { .. } | Started::Disabled { .. } => {
                return Ok(Start {
                    started,
                    running: None,
                });
            }
        };
        let records = match opened {
            Some(records) => records,
            None => open(&records_dir).await?,
        };
        let running = Some(run(options, identity, Arc::new(records)).await?);
        Ok(Start { started, running })
    }
}

async fn open(dir: &Path) -> Result<Records, StartError> {
    let path = dir.to_owned();
    let failed = |problem: String| StartError::Records {
        path: dir.to_owned(),
        problem,
    };
    let opened = tokio::task::spawn_blocking(move || {
        std::fs::create_dir_all(&path).map_err(|error| error.to_string())?;
        Records::open(&path).map_err(|error| error.to_string())
    });
    let opened = opened.await.map_err(|error| failed(error.to_string()))?;
    opened.map_err(failed)
}

async fn run(
    options: LogServerOptions,
    identity: Identity,
    records: Arc<Records>,
) -> Result<Running, StartError> {
    let (listener, address) = listen(options.listen)?;
    // The activation's answer has no revision of the state of now, so it is read once; the watch goes
    // on from there.
    let client = identity.client.clone();
    let node = client
        .node(identity.node, Consistency::Linearizable)
        .await?;
    let node = node.unwrap_or_default();
    let standing = standing_of(&identity, &node);
    let watch = client.watch(Some(identity.node), node.revision + 1);
    let writes = records.clone();
    let writer = Writer::start(move |appends| writes.append(appends));
    let (writer, thread) = writer.map_err(|error| StartError::Records {
        path: options.data_dir.join(RECORDS_DIR),
        problem: error.to_string(),
    })?;
    let service = Service {
        node: identity.node,
        records,
        writer,
        reads: Arc::new(Semaphore::new(READS_MAX)),
        standing: standing.clone(),
    };
    let service = api::log_server_server::LogServerServer::new(service)
        .max_decoding_message_size(MESSAGE_BYTES_MAX);
    let guard = DiskGuard {
        identity: identity.clone(),
        data_dir: options.data_dir,
        free_bytes_min: options.free_bytes_min,
        every: options.free_space_check_every,
        free_bytes: options.free_bytes,
        standing: standing.clone(),
    };
    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    tasks.spawn(ended_by(
        stop.clone(),
        follow(identity.clone(), watch, standing.clone()),
    ));
    tasks.spawn(ended_by(stop.clone(), guard.run()));
    let serving = Server::builder()
        .concurrency_limit_per_connection(REQUESTS_PER_CONNECTION_MAX)
        .add_service(service)
        .serve_with_incoming_shutdown(listener, stop.clone().cancelled_owned());
    let ends = standing.clone();
    tasks.spawn(async move {
        if let Err(error) = serving.await {
            ends.end(format!("the listener failed: {error}"));
        }
    });
    Ok(Running {
        identity,
        address,
        standing,
        tasks,
        stop,
        writer: Some(thread),
    })
}

fn listen(listener: TcpListener) -> Result<(TcpListenerStream, SocketAddr), StartError> {
    let failed = |error: std::io::Error| StartError::Listen {
        problem: error.to_string(),
    };
    listener.set_nonblocking(true).map_err(failed)?;
    let listener = tokio::net::TcpListener::from_std(listener).map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok((TcpListenerStream::new(listener), address))
}

fn standing_of(identity: &Identity, node: &v1::Node) -> Shared {
    // A state that only a newer version knows, or none: certainly not one to write in.
    let state = v1::StorageState::decode_required(node.state).unwrap_or(StorageState::Disabled);
    let standing = Shared::new(state, node.state_revision);
    if node.incarnation > identity.incarnation {
        standing.end(fenced(identity, node.incarnation));
    }
    standing
}

async fn ended_by(stop: CancellationToken, work: impl Future<Output = ()>) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = work => {}
    }
}

impl Running {
    /// Where it serves.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Who it is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// What it says of itself over the wire.
    pub fn state(&self) -> api::StateResponse {
        state(self.identity.node, &self.standing)
    }

    /// Resolves with the reason when it cannot go on: fenced by a newer incarnation, or its disk
    /// failed. It refuses everything from then on, and its process must end.
    pub async fn failed(&self) -> String {
        let mut standing = self.standing.subscribe();
        match standing.wait_for(|standing| standing.ended.is_some()).await {
            Ok(standing) => standing.ended.clone().unwrap_or_default(),
            Err(_) => "the server is gone".to_owned(),
        }
    }

    /// Ends: answers what is under way, closes the records and the session.
    pub async fn shutdown(mut self) {
        self.stop.cancel();
        let ended = timeout(SHUTDOWN_WITHIN, async {
            while self.tasks.join_next().await.is_some() {}
        });
        if ended.await.is_err() {
            tracing::warn!("requests were still under way");
            self.tasks.shutdown().await;
        }
        // The last way to the writer's thread ended with the service, so the thread ends too, unless a
        // connection is still held open.
        if let Some(writer) = self.writer.take() {
            let joined = tokio::task::spawn_blocking(move || writer.join());
            let _: Result<_, _> = timeout(SHUTDOWN_WITHIN, joined).await;
        }
        let client = self.identity.client.with_deadline(SHUTDOWN_WITHIN);
        if let Err(error) = client.close().await {
            tracing::debug!(%error, "the session was not closed and ends by itself");
        }
    }
}
