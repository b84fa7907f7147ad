//! One member's part in the cluster: starting, managing and stopping it.

use std::collections::BTreeMap;
use std::ops::{Deref, RangeInclusive};
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::FutureExt;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{InitializeError, RaftError};
use openraft::{Config, SnapshotPolicy};
use tally_model::command::Found;
use tally_model::{Answer, Command, MemberId, Request};
use tally_proto::storage;
use tokio::sync::{Semaphore, watch};

use crate::confirm::Asking;
use crate::deps::{Deps, Stores};
use crate::forward::Forwarder;
use crate::hashes;
use crate::leadership::{self, Heard, Lead};
use crate::link::PeerLink;
use crate::membership::{Member, Membership};
use crate::propose::{NotAccepted, ProposeError};
use crate::raft::{self, LogStorage, Network, Node, OwnDisk, Raft, StateMachine};
use crate::read::Rounds;
use crate::replacing::Replacing;
use crate::status::{AppliedMark, Counters, Counts, HashMismatch, Role, Status};
use crate::succession;

/// Entries in one replication message.
const APPEND_ENTRIES_MAX: u64 = 256;

/// A snapshot of which nothing moves for longer is given up, and sent again.
const SNAPSHOT_STALLS_MS_MAX: u64 = 5 * 60 * 1_000;

/// How long a member that is shutting down waits for another one to take over.
const HAND_OVER_MAX: Duration = Duration::from_secs(2);

/// How a replica runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaOptions {
    pub member: MemberId,
    /// Names the replica in logs.
    pub name: String,
    /// Time between a leader's signs of life, milliseconds.
    pub heartbeat_ms: u64,
    /// A follower that hears nothing for this long stands for election, milliseconds.
    pub election_ms: RangeInclusive<u64>,
    /// Entries after which a snapshot is taken.
    pub snapshot_entries: u64,
    /// Entries that stay in the log although a snapshot covers them.
    pub keep_entries: u64,
    /// Commands under way at a time; more are turned away.
    pub inflight_max: usize,
    /// Linearizable reads that wait for a round at a time; more are turned away.
    pub reads_waiting_max: usize,
    /// Bytes of a snapshot in one message.
    pub snapshot_chunk_bytes: usize,
}

impl ReplicaOptions {
    /// The usual bounds: heartbeats every 100 ms and elections after 500 to 1000 ms, which real
    /// fsyncs need; a snapshot every 10 000 entries, 1 000 of which stay.
    pub fn new(member: MemberId, name: impl Into<String>) -> Self {
        Self {
            member,
            name: name.into(),
            heartbeat_ms: 100,
            election_ms: 500..=1_000,
            snapshot_entries: 10_000,
            keep_entries: 1_000,
            inflight_max: 4_096,
            reads_waiting_max: 65_536,
            snapshot_chunk_bytes: 1 << 20,
        }
    }

    /// How long a leader counts as one without a sign of its majority, or of itself.
    pub(crate) fn patience(&self) -> Duration {
        Duration::from_millis(2 * self.election_ms.end())
    }

    fn config(&self) -> Config {
        Config {
            cluster_name: self.name.clone(),
            heartbeat_interval: self.heartbeat_ms,
            election_timeout_min: *self.election_ms.start(),
            election_timeout_max: *self.election_ms.end(),
            max_payload_entries: APPEND_ENTRIES_MAX,
            snapshot_policy: SnapshotPolicy::LogsSinceLast(self.snapshot_entries),
            max_in_snapshot_log_to_keep: self.keep_entries,
            install_snapshot_timeout: SNAPSHOT_STALLS_MS_MAX,
            enable_pre_vote: Some(true),
            // A leader that comes back must not go on in its old term: it sends entries before they are
            // on its own disk, so it may have lost some that the others have, and would give their
            // indices to other entries in the same term, which nobody could tell apart.
            enable_leader_restore: Some(false),
            // A leader that can send but not hear must not keep the others from electing one.
            quorum_loss_probe_interval: Some(2 * self.election_ms.end()),
            ..Config::default()
        }
    }
}

/// Why a replica did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The options contradict each other.
    #[error("{0}")]
    Options(String),
    /// What the disk holds cannot be read.
    #[error("{0}")]
    Storage(String),
}

/// A running replica. Clones are handles to the same one; [`Replica::shutdown`] ends it.
#[derive(Clone)]
pub struct Replica {
    inner: Arc<Inner>,
}

/// What the handles share.
pub struct Inner {
    pub(crate) options: ReplicaOptions,
    pub(crate) raft: Raft,
    pub(crate) stores: Stores,
    pub(crate) deps: Deps,
    /// As it was told last: log indices are a little older than those of [`Replica::status`].
    pub(crate) status: watch::Receiver<Status>,
    pub(crate) lead: watch::Receiver<Lead>,
    pub(crate) applied: watch::Receiver<AppliedMark>,
    /// When a leader was last heard.
    pub(crate) heard: Heard,
    pub(crate) inflight: Semaphore,
    pub(crate) forwarder: Forwarder,
    pub(crate) counts: Counts,
    pub(crate) mismatches: watch::Sender<Vec<HashMismatch>>,
    pub(crate) installing: tokio::sync::Mutex<()>,
    pub(crate) replacing: Replacing,
    /// Who is asked whether this member leads.
    pub(crate) asking: Asking,
    /// Rounds of linearizable reads of this member's clients.
    pub(crate) reads: Rounds,
    /// Rounds in which this member confirms that it leads.
    pub(crate) leader_reads: Rounds,
}

impl Deref for Replica {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.inner
    }
}

impl From<Arc<Inner>> for Replica {
    fn from(inner: Arc<Inner>) -> Self {
        Self { inner }
    }
}

impl Replica {
    /// Starts a replica on its stores. A member whose stores are empty waits until it is founded or
    /// hears of a leader.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start(
        options: ReplicaOptions,
        stores: Stores,
        deps: Deps,
    ) -> Result<Self, StartError> {
        let invalid = |error: openraft::ConfigError| StartError::Options(error.to_string());
        let config = options.config().validate().map_err(invalid)?;
        snapshot_beyond_log(&stores)
            .await
            .map_err(StartError::Storage)?;
        let machine = StateMachine::new(stores.state.clone());
        let applied = machine.watch();
        let network = Network {
            member: options.member,
            transport: deps.transport.clone(),
            snapshot_chunk_bytes: options.snapshot_chunk_bytes,
            state: stores.state.clone(),
            disk: OwnDisk::new(stores.state.clone(), 2 * options.patience()),
        };
        let log = LogStorage::new(stores.log.clone());
        let start = Raft::new(options.member.0, Arc::new(config), network, log, machine);
        let raft = raft::with_seed(deps.entropy.next_u64(), start)
            .await
            .map_err(|fatal| StartError::Storage(fatal.to_string()))?;
        let membership = raft
            .with_raft_state(|state| Membership::of(state.membership_state.effective()))
            .await
            .map_err(|fatal| StartError::Storage(fatal.to_string()))?;
        let (mismatches, _) = watch::channel(Vec::new());
        let heard = Heard::default();
        let (status, lead) =
            leadership::follow(&raft, membership, options.patience(), heard.clone());
        // The tasks hold the replica weakly, or it would never go away.
        let inner = Arc::new_cyclic(|weak: &Weak<Inner>| Inner {
            status,
            lead,
            heard,
            inflight: Semaphore::new(options.inflight_max),
            forwarder: Forwarder::default(),
            counts: Counts::default(),
            installing: tokio::sync::Mutex::new(()),
            replacing: Replacing::default(),
            asking: Asking::default(),
            reads: Rounds::start(options.reads_waiting_max, weak.clone(), |replica| {
                async move { replica.read_round().await }.boxed()
            }),
            leader_reads: Rounds::start(options.reads_waiting_max, weak.clone(), |replica| {
                async move { replica.leader_round().await }.boxed()
            }),
            options,
            raft,
            stores,
            deps,
            applied,
            mismatches,
        });
        tokio::spawn(hashes::compare_for_ever(Arc::downgrade(&inner)));
        tokio::spawn(succession::run(Arc::downgrade(&inner)));
        Ok(inner.into())
    }

    /// What this replica knows now.
    pub fn status(&self) -> Status {
        let mut status = self.status.borrow().clone();
        status.take_indices(&self.raft.metrics().borrow_watched());
        status
    }

    /// The term of the last applied entry. Unlike that of [`Replica::status`] no vote changes it: who has applied more is in
    /// no earlier one.
    pub fn applied_term(&self) -> u64 {
        self.applied.borrow().term
    }

    /// Follows how far the state has come.
    pub fn watch_applied(&self) -> watch::Receiver<AppliedMark> {
        self.applied.clone()
    }

    /// Members whose state differed from this one's after the same entry.
    pub fn hash_mismatches(&self) -> Vec<HashMismatch> {
        self.mismatches.borrow().clone()
    }

    /// What was done since the start.
    pub fn counters(&self) -> Counters {
        self.counts.read()
    }

    /// The stores that the replica runs on.
    pub fn stores(&self) -> &Stores {
        &self.stores
    }

    /// Who this is.
    pub fn member(&self) -> MemberId {
        self.options.member
    }

    /// Resolves when the replica has stopped for a reason of its own, with the reason.
    pub async fn halted(&self) -> String {
        let mut lead = self.lead.clone();
        // An error says that the replica is gone.
        let _ = lead.wait_for(|lead| lead.halted).await;
        let reason = self.status.borrow().halted.clone();
        reason.unwrap_or_else(|| "it was shut down".to_owned())
    }

    /// Resolves when this member has known no leader for longer than an election takes, or has stopped.
    pub async fn leader_lost(&self) {
        let mut lead = self.lead.clone();
        while lead.wait_for(|lead| lead.leader.is_none()).await.is_ok() {
            let found = lead.wait_for(|lead| lead.leader.is_some());
            match tokio::time::timeout(self.options.patience(), found).await {
                Ok(Ok(_)) => {}
                Ok(Err(_)) | Err(_) => return,
            }
        }
    }

    /// A link to a member of the cluster.
    pub(crate) fn link(&self, id: MemberId) -> Option<Arc<dyn PeerLink>> {
        let status = self.status.borrow();
        let member = status.membership.members.get(&id)?;
        Some(self.deps.transport.link(member))
    }

    /// Begins a cluster with these members, all of them voters, and this one among them; with none,
    /// goes on where an earlier attempt wrote the membership and nothing else.
    ///
    /// Safe to repeat after a failure: a cluster is founded once.
    ///
    /// # Errors
    /// As for [`Replica::propose`].
    pub async fn found(
        &self,
        members: &[Member],
        found: Found,
        deadline: std::time::Instant,
    ) -> Result<Answer, ProposeError> {
        let nodes: BTreeMap<u64, Node> = members
            .iter()
            .map(|member| (member.id.0, member.into()))
            .collect();
        if !nodes.is_empty() {
            match self.raft.initialize(nodes).await {
                // Not allowed: an earlier attempt has done it.
                Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => {}
                Err(error) => return Err(NotAccepted::Halted(error.to_string()).into()),
            }
        }
        let request = Request {
            tagged: None,
            command: Command::Found(found),
        };
        self.propose(request, deadline).await
    }

    /// Hands leadership over if this member leads, so that the cluster need not wait for an election.
    pub async fn hand_over(&self) {
        if self.status().role != Role::Leader {
            return;
        }
        let deadline = std::time::Instant::now() + HAND_OVER_MAX;
        if let Err(error) = self.transfer_leader(None, deadline).await {
            tracing::info!(%error, "stopping while leading");
        }
    }

    /// Stops taking part, and waits for that. Nothing that was answered is lost with it.
    pub async fn shutdown(&self) {
        self.forwarder.close();
        if let Err(error) = self.raft.shutdown().await {
            tracing::warn!(%error, "the replica did not stop as it should");
        }
    }
}

/// Takes a snapshot of a state that is ahead of its log: the others had made its last entries durable, and this
/// member had not yet when it ended. openraft drops a log that ends before the state, up to the state, and
/// whoever lags behind needs a snapshot that begins where the log does.
async fn snapshot_beyond_log(stores: &Stores) -> Result<(), String> {
    let index = |id: Option<storage::LogId>| id.map(|id| id.index);
    let Stores { log, state } = stores;
    let applied = index(state.applied().last_applied);
    if applied <= index(log.bounds().last) {
        return Ok(());
    }
    let current = state.current_snapshot();
    let covered = current.and_then(|snapshot| snapshot.meta().applied.clone());
    if covered.is_some_and(|covered| index(covered.last_applied) >= applied) {
        return Ok(());
    }
    let state = state.clone();
    let built = tokio::task::spawn_blocking(move || state.build_snapshot().map(drop));
    let built = built.await.map_err(|error| error.to_string())?;
    built.map_err(|error| error.to_string())
}
