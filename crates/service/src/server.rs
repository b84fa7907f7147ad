//! A member's process: its directory, its listeners, its end.

use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use sha2::{Digest, Sha256};
use tally_consensus::Stores;
use tally_model::explanation::codes;
use tally_model::{MemberId, Settings};
use tally_proto::v1;
use tally_storage::{DataDir, LogOptions, OnFailure, OpenError, OpenOptions, StateOptions};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};

use crate::member::{Member, said};
use crate::ports::Ports;
use crate::{catching_up, client, formation, http, lease_time, peer, reclaiming, removal};

/// What a member is started with.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// This member's name, one of those in `initial_cluster`.
    pub name: String,
    /// A directory of its own.
    pub data_dir: PathBuf,
    /// Name and peer address, `HOST:PORT`, of every member, in the same order everywhere; the first
    /// one founds the cluster.
    pub initial_cluster: Vec<(String, String)>,
    /// Where clients reach this member, `HOST:PORT`; told to others.
    pub advertise_client: String,
    /// What the cluster is founded with; without effect afterwards.
    pub settings: Settings,
    pub tuning: Tuning,
}

/// How a member runs; may differ between members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tuning {
    /// Time between a leader's signs of life, milliseconds.
    pub heartbeat_ms: u64,
    /// A follower that hears nothing for a time between these two stands for election, milliseconds.
    pub election_ms_min: u64,
    pub election_ms_max: u64,
    /// Log entries after which a snapshot is taken.
    pub snapshot_entries: u64,
    /// Entries that stay in the log although a snapshot covers them.
    pub keep_entries: u64,
    /// Commands under way at a time; more are turned away.
    pub inflight_max: usize,
    /// Largest message from a client, bytes; of the etcd API [`Tuning::request_bytes_max`].
    pub message_bytes_max: usize,
    /// Largest write of the etcd API, bytes.
    pub request_bytes_max: usize,
    /// Operations, comparisons and nested ones in a transaction of the etcd API.
    pub txn_ops_max: usize,
    /// Time without an event after which a watcher that asked for it is told how far the store has come,
    /// milliseconds.
    pub progress_notify_ms: u64,
    /// Revisions whose history a leader keeps; older ones are compacted. 0 keeps all, until a client compacts.
    pub keep_revisions: u64,
    /// Watches at a time, and requests of one connection at a time; more watches are turned away.
    pub streams_max: usize,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            heartbeat_ms: 100,
            election_ms_min: 500,
            election_ms_max: 1_000,
            snapshot_entries: 10_000,
            keep_entries: 1_000,
            inflight_max: 4_096,
            message_bytes_max: 64 << 10,
            request_bytes_max: 3 << 19,
            txn_ops_max: 128,
            progress_notify_ms: 600_000,
            keep_revisions: 0,
            streams_max: 1_024,
        }
    }
}

/// Where a member listens.
#[derive(Debug)]
pub struct Listeners {
    /// For clients: gRPC.
    pub client: TcpListener,
    /// For members: gRPC.
    pub peer: TcpListener,
    /// For operators: HTTP with `/livez`, `/readyz` and `/metrics`.
    pub http: TcpListener,
}

/// Switches that break things on purpose. Only `tally dev` sets them.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// While true, answers to activations and to changes of a storage state are withheld, after the
    /// commit, for ever.
    pub drop_replies: Arc<AtomicBool>,
}

/// Why a member did not start. Nothing was changed that another start would miss.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Directory(#[from] OpenError),
    #[error("{0}")]
    Config(String),
    #[error("the listener cannot be used: {0}")]
    Listener(std::io::Error),
    #[error(transparent)]
    Replica(tally_consensus::StartError),
    #[error("{0}")]
    Internal(String),
}

impl StartError {
    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Directory(error) => error.code(),
            Self::Config(_) | Self::Replica(tally_consensus::StartError::Options(_)) => {
                codes::INVALID_CONFIG
            }
            Self::Listener(_) => codes::ADDRESS_IN_USE,
            Self::Replica(tally_consensus::StartError::Storage(_)) => codes::DAMAGED,
            Self::Internal(_) => codes::HALTED,
        }
    }

    /// What to do about it, where there is something.
    pub fn next(&self) -> Option<String> {
        match self {
            Self::Directory(error) => Some(error.next()),
            Self::Config(_) | Self::Listener(_) | Self::Replica(_) | Self::Internal(_) => None,
        }
    }
}

/// What clients wait for when the member ends is finished within this time, or answered with a reason.
const REQUESTS_END_WITHIN: Duration = Duration::from_secs(2);

/// Connections that stay open at the end are cut off after this time.
const CONNECTIONS_END_WITHIN: Duration = Duration::from_secs(1);

/// A running member.
pub struct Server {
    member: Arc<Member>,
    /// Serves clients, and ends before everything else does.
    clients: JoinSet<Result<(), String>>,
    tasks: JoinSet<Result<(), String>>,
}

impl Server {
    /// Opens the directory and serves. Forming the cluster goes on in the background; `/readyz` says
    /// when the member takes requests.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start(
        config: ServerConfig,
        listeners: Listeners,
        faults: Faults,
    ) -> Result<Self, StartError> {
        check(&config)?;
        let formation = formation_digest(&config);
        let broken = watch::Sender::new(None);
        let opening = open(&config, formation.clone(), broken.clone());
        let (data, stores) = opening.await?;
        let member = Member::new(config, faults, data, stores, formation, broken);
        if member.cluster().is_some() {
            member.start_replica().await?;
        }
        let (mut clients, mut tasks) = (JoinSet::new(), JoinSet::new());
        for listener in [&listeners.client, &listeners.peer, &listeners.http] {
            listener
                .set_nonblocking(true)
                .map_err(StartError::Listener)?;
        }
        let ports = Ports::new(&member.config, listeners.http.local_addr().ok());
        let client = tokio::net::TcpListener::from_std(listeners.client);
        let peer = tokio::net::TcpListener::from_std(listeners.peer);
        let http = tokio::net::TcpListener::from_std(listeners.http);
        clients.spawn(named(
            "clients",
            client::serve(
                member.clone(),
                client.map_err(StartError::Listener)?,
                ports.clone(),
            ),
        ));
        tasks.spawn(named(
            "members",
            peer::serve(
                member.clone(),
                peer.map_err(StartError::Listener)?,
                ports.clone(),
            ),
        ));
        tasks.spawn(named(
            "operators",
            http::serve(member.clone(), http.map_err(StartError::Listener)?, ports),
        ));
        tasks.spawn(formation::run(member.clone()));
        tasks.spawn(catching_up::run(member.clone()));
        tasks.spawn(lease_time::run(member.clone()));
        tasks.spawn(reclaiming::run(member.clone()));
        tasks.spawn(removal::run(member.clone()));
        Ok(Self {
            member,
            clients,
            tasks,
        })
    }

    /// What this member knows; never waits.
    pub fn status(&self) -> v1::StatusResponse {
        self.member.status()
    }

    /// True when the member takes requests: part of a cluster, and a leader is known.
    pub fn is_ready(&self) -> bool {
        self.member.not_ready().is_none()
    }

    /// Why it does not, in a line with what to run; `None` when it does.
    pub fn not_ready(&self) -> Option<String> {
        self.member.not_ready().map(|fault| said(&fault))
    }

    /// True when the member belongs to a cluster, whether it takes requests or not.
    pub fn has_cluster(&self) -> bool {
        self.member.cluster().is_some()
    }

    /// Resolves when the member cannot go on, with the reason. The process must end: what its disk
    /// holds is no longer certain.
    pub async fn failed(&self) -> String {
        let mut broken = self.member.broken.subscribe();
        let disk = async {
            match broken
                .wait_for(Option::is_some)
                .await
                .map(|why| why.clone())
            {
                Ok(Some(why)) => why,
                Ok(None) | Err(_) => std::future::pending().await,
            }
        };
        let replica = async {
            match self.member.running().await {
                Some(replica) => replica.halted().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // The disk's own words before those of whoever stumbled over it.
            biased;
            why = disk => why,
            why = replica => why,
        }
    }

    /// Ends well: is not ready any more, hands leadership over, finishes what clients wait for or says
    /// why not, lets everyone go, and closes the files. Nothing that was answered is lost, also when it
    /// is given up on the way.
    pub async fn shutdown(mut self) {
        let ending = self.member.ending.clone();
        ending.leaving.cancel();
        let replica = self.member.replica().ok();
        if let Some(replica) = &replica {
            // Clients are still served meanwhile: what comes is passed on to the one that takes over.
            replica.hand_over().await;
        }
        ending.closing.cancel();
        // Members still reach this one: without replication it could not answer what is under way.
        if !all_end(&mut self.clients, REQUESTS_END_WITHIN).await {
            tracing::info!("clients still wait and are told to ask another member");
            ending.refusing.cancel();
            if !all_end(&mut self.clients, CONNECTIONS_END_WITHIN).await {
                tracing::info!("connections of clients were still open and are cut off");
                self.clients.shutdown().await;
            }
        }
        ending.ended.cancel();
        if !all_end(&mut self.tasks, CONNECTIONS_END_WITHIN).await {
            tracing::info!("connections were still open and are cut off");
            self.tasks.shutdown().await;
        }
        if let Some(replica) = &replica {
            replica.shutdown().await;
        }
        let state = self.member.stores.state.clone();
        match tokio::task::spawn_blocking(move || state.flush()).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                tracing::warn!(%error, "the state was not flushed; the log replays it")
            }
            Err(error) => tracing::warn!(%error, "the state was not flushed; the log replays it"),
        }
    }
}

/// True when every task has ended in time.
async fn all_end(tasks: &mut JoinSet<Result<(), String>>, within: Duration) -> bool {
    let ended = async {
        while let Some(ended) = tasks.join_next().await {
            report(ended);
        }
    };
    tokio::time::timeout(within, ended).await.is_ok()
}

/// Says when a listener has ended.
async fn named(
    whose: &'static str,
    listener: impl Future<Output = Result<(), String>>,
) -> Result<(), String> {
    let ended = listener.await;
    tracing::debug!(whose, "the listener has ended");
    ended
}

fn report(ended: Result<Result<(), String>, JoinError>) {
    match ended {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(error, "a listener did not end as it should"),
        Err(error) => tracing::warn!(%error, "a listener did not end as it should"),
    }
}

fn check(config: &ServerConfig) -> Result<(), StartError> {
    let names = config.initial_cluster.iter().map(|(name, _)| name.as_str());
    let names: Vec<&str> = names.collect();
    if !names.contains(&config.name.as_str()) {
        return Err(StartError::Config(format!(
            "the name {} is not in the initial cluster, which has {}",
            config.name,
            names.join(", ")
        )));
    }
    Ok(())
}

/// Members found a cluster together only when they were started with the same list and settings.
fn formation_digest(config: &ServerConfig) -> Vec<u8> {
    let mut digest = Sha256::new();
    for (name, address) in &config.initial_cluster {
        digest.update(format!("{name}={address}\n"));
    }
    let settings = &config.settings;
    let replication = settings.replication.map(|wanted| wanted.to_string());
    digest.update(format!(
        "retry-check={}\nreplication={}\n",
        settings.retry_check,
        replication.unwrap_or_default()
    ));
    digest.finalize().to_vec()
}

/// Opens directory and stores on a thread that may wait for the disk.
async fn open(
    config: &ServerConfig,
    formation: Vec<u8>,
    broken: watch::Sender<Option<String>>,
) -> Result<(DataDir, Stores), StartError> {
    let path = config.data_dir.clone();
    let options = OpenOptions {
        name: config.name.clone(),
        formation,
        fresh_member: MemberId(rand::random_range(1..=u64::MAX)),
    };
    let on_failure: OnFailure = Arc::new(move |why: &str| {
        tracing::error!(why, "the disk cannot be trusted any more");
        broken.send_replace(Some(why.to_owned()));
    });
    let opened = tokio::task::spawn_blocking(move || {
        let data = DataDir::open(&path, &options)?;
        let log = data.open_log(LogOptions::new(on_failure.clone()))?;
        let state = data.open_state(StateOptions { on_failure })?;
        Ok((data, Stores { log, state }))
    });
    opened
        .await
        .map_err(|error| StartError::Internal(error.to_string()))?
        .map_err(StartError::Directory)
}
