//! Starts, runs and ends a log server.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tally_client::log_server::{self, Identity, StartUp, Started};
use tally_client::{Consistency, Refused, StorageState, marker_file, v1};
use tally_listener::{Bounds, Counts, Port, Served, Speaks};
use tally_proto::logserver as api;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use crate::disk::{DiskGuard, make_read_only};
use crate::error::{StartError, is_no_space};
use crate::follow::{fenced, follow};
use crate::options::LogServerOptions;
use crate::records::Records;
use crate::service::{MESSAGE_BYTES_MAX, READS_MAX, Service, state};
use crate::standing::{Ended, Shared};
use crate::writer::Writer;

/// Directory of the records, in the data directory.
const RECORDS_DIR: &str = "records";

/// The refusal of a log server that shows no marker where there must be one.
const MARKER_MISSING: &str = "T-311";

/// What the listener takes on. Half of the files that may be open are left to the records.
const BOUNDS: Bounds = Bounds {
    connections_max: 1_024,
    one_file_in: 2,
    streams_max: 128,
    keep_alive_every: Duration::from_secs(10),
    keep_alive_timeout: Duration::from_secs(20),
    adaptive_window: false,
};

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

/// A log server that serves. Dropping it ends it without waiting; a process that then ends at once may be
/// aborted by RocksDB, whose records another thread still closes, so [`Running::shutdown`] comes first.
#[derive(Debug)]
pub struct Running {
    identity: Identity,
    address: SocketAddr,
    standing: Shared,
    tasks: JoinSet<()>,
    stop: CancellationToken,
    writer: Option<JoinHandle<()>>,
}

/// Opens the records in a directory, or says why not.
type Open = fn(&Path) -> Result<Records, String>;

/// What came of opening the records. A full disk does not end the start-up at once: the cluster must
/// hear of it.
enum Opened {
    Records(Records),
    NoRoom(String),
}

impl LogServer {
    /// Starts: marker, registration, activation, and when the cluster agrees, opens the records and
    /// serves. What this machine lacks, a listener, an address or a directory of its own, is found
    /// before the cluster is asked.
    ///
    /// # Errors
    /// When the cluster does not answer, or the disk or the listener cannot be used. Starting again is
    /// always safe.
    pub async fn start(options: LogServerOptions) -> Result<Start, StartError> {
        start(options, open_or_make).await
    }
}

async fn start(options: LogServerOptions, open: Open) -> Result<Start, StartError> {
    check_advertise(&options.advertise)?;
    let listening = listen(&options.listen)?;
    let prepared = log_server::prepare(StartUp {
        dir: options.data_dir.clone(),
        name: options.name.clone(),
        address: options.advertise.clone(),
        location: options.location.clone(),
    })
    .await?;
    let records_dir = options.data_dir.join(RECORDS_DIR);
    // With a marker the records are opened first, so that damaged ones fence nobody. Without one
    // nothing is written before the cluster has agreed.
    let opened = match prepared.has_marker() {
        true => Some(open_in(&records_dir, open).await?),
        false if records_dir.exists() => return Ok(marker_lost(&options.data_dir)),
        false => None,
    };
    let started = match (prepared.start(&options.client).await, &opened) {
        (Err(error), Some(Opened::NoRoom(problem))) => {
            // The full disk is what must be mended first, whatever the cluster says.
            return Err(StartError::DiskFull {
                path: records_dir,
                problem: format!("{problem}; the start-up ended with: {error}"),
                told: false,
            });
        }
        (started, _) => started?,
    };
    let identity = match &started {
        Started::Applied { identity, .. } | Started::Replayed { identity, .. } => identity.clone(),
        Started::Conflict { .. } | Started::DataLost { .. } | Started::Disabled { .. } => {
            return Ok(Start {
                started,
                running: None,
            });
        }
    };
    let opened = match opened {
        Some(opened) => opened,
        None => open_in(&records_dir, open).await?,
    };
    let records = match opened {
        Opened::Records(records) => Arc::new(records),
        Opened::NoRoom(problem) => {
            return Err(StartError::DiskFull {
                told: tell_of_no_room(&started, &identity, &problem).await,
                path: records_dir,
                problem,
            });
        }
    };
    let running = Some(run(options, listening, identity, records).await?);
    Ok(Start { started, running })
}

/// An address that is told to others must not be one that means "here".
fn check_advertise(address: &str) -> Result<(), StartError> {
    match address.parse::<SocketAddr>() {
        Ok(parsed) if parsed.ip().is_unspecified() => Err(StartError::Advertise {
            address: address.to_owned(),
        }),
        _ => Ok(()),
    }
}

/// Records without a marker: whose they are cannot be shown, and a new marker would pass them off as
/// another node's.
fn marker_lost(data_dir: &Path) -> Start {
    let refused = Refused {
        code: MARKER_MISSING.to_owned(),
        found: format!(
            "{} holds records and no {}, expected both or neither; nothing was registered",
            data_dir.display(),
            marker_file::FILE_NAME
        ),
        details: BTreeMap::from([(
            "next".to_owned(),
            format!(
                "restore {}, or start with an empty directory",
                data_dir.join(marker_file::FILE_NAME).display()
            ),
        )]),
    };
    Start {
        started: Started::DataLost { refused },
        running: None,
    }
}

fn open_or_make(dir: &Path) -> Result<Records, String> {
    std::fs::create_dir_all(dir).map_err(|error| error.to_string())?;
    Records::open(dir).map_err(|error| error.to_string())
}

async fn open_in(dir: &Path, open: Open) -> Result<Opened, StartError> {
    let path = dir.to_owned();
    let opened = tokio::task::spawn_blocking(move || open(&path)).await;
    match opened.unwrap_or_else(|error| Err(error.to_string())) {
        Ok(records) => Ok(Opened::Records(records)),
        Err(problem) if is_no_space(&problem) => Ok(Opened::NoRoom(problem)),
        Err(problem) => Err(StartError::opening(dir, problem)),
    }
}

/// The node is activated and cannot serve, so the cluster must not count it among those that write.
/// True when the cluster knows.
async fn tell_of_no_room(started: &Started, identity: &Identity, problem: &str) -> bool {
    let told = match started {
        Started::Replayed { now, .. } if *now != StorageState::ReadWrite => true,
        _ => match make_read_only(identity, &format!("the disk is full: {problem}")).await {
            Ok(answer) => answer.refused().is_none(),
            Err(error) => {
                tracing::warn!(%error, "the cluster does not know that the disk is full");
                false
            }
        },
    };
    close_session(identity).await;
    told
}

async fn close_session(identity: &Identity) {
    let client = identity.client.with_deadline(SHUTDOWN_WITHIN);
    if let Err(error) = client.close().await {
        tracing::debug!(%error, "the session was not closed and ends by itself");
    }
}

async fn run(
    options: LogServerOptions,
    (listener, address): (tokio::net::TcpListener, SocketAddr),
    identity: Identity,
    records: Arc<Records>,
) -> Result<Running, StartError> {
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
    let port = Port {
        name: format!("the port of log server {}", options.name),
        speaks: Speaks::Grpc,
        elsewhere: Vec::new(),
        lists: None,
        counts: Counts::default(),
    };
    let router = Routes::new(service).into_axum_router();
    tasks.spawn(tally_listener::serve(
        listener,
        port,
        Served {
            router,
            ..Served::default()
        },
        BOUNDS,
        stop.clone(),
    ));
    Ok(Running {
        identity,
        address,
        standing,
        tasks,
        stop,
        writer: Some(thread),
    })
}

fn listen(listener: &TcpListener) -> Result<(tokio::net::TcpListener, SocketAddr), StartError> {
    let failed = |error: std::io::Error| StartError::Listen {
        problem: error.to_string(),
    };
    let listener = listener.try_clone().map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    let listener = tokio::net::TcpListener::from_std(listener).map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok((listener, address))
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
    pub async fn ended(&self) -> Ended {
        let mut standing = self.standing.subscribe();
        let ended = standing.wait_for(|standing| standing.ended.is_some()).await;
        let ended = ended.ok().and_then(|standing| standing.ended.clone());
        ended.unwrap_or_else(|| Ended::halted("the server is gone"))
    }

    /// What [`Running::ended`] found, in one line.
    pub async fn failed(&self) -> String {
        self.ended().await.found
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
        close_session(&self.identity).await;
    }
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
