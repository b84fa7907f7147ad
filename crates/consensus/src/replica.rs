//! One member's part in the cluster: starting, managing and stopping it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Deref, RangeInclusive};
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::FutureExt;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{ChangeMembershipError, ClientWriteError, InitializeError, RaftError};
use openraft::metrics::RaftMetrics;
use openraft::{ChangeMembers, Config, Instant as _, SnapshotPolicy};
use tally_model::command::Found;
use tally_model::{Answer, Command, MemberId, Request};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, MissedTickBehavior, timeout_at};

use crate::deps::{Deps, Stores};
use crate::forward::Forwarder;
use crate::hashes;
use crate::link::PeerLink;
use crate::membership::Member;
use crate::propose::{NotAccepted, ProposeError};
use crate::raft::{self, LogStorage, Network, Node, Raft, StateMachine, TypeConfig};
use crate::read::Rounds;
use crate::status::{AppliedMark, Counters, Counts, HashMismatch, Role, Status};

/// Entries in one replication message.
const APPEND_ENTRIES_MAX: u64 = 256;

/// A snapshot that is sent for longer is sent again.
const SNAPSHOT_SENT_MS_MAX: u64 = 10 * 60 * 1_000;

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

    /// How long a leader counts as one without hearing from a majority.
    fn patience(&self) -> Duration {
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
            install_snapshot_timeout: SNAPSHOT_SENT_MS_MAX,
            enable_pre_vote: Some(true),
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

/// Why a request about the cluster itself was not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManageError {
    /// Only the leader can do it.
    #[error("this member does not lead")]
    NotLeader,
    /// There is no such member.
    #[error("there is no member {0} in the cluster")]
    UnknownMember(String),
    /// Nothing to do it with, or to do.
    #[error("{0}")]
    Impossible(String),
    /// It was begun and has not ended in time; it may still.
    #[error("{0} has not ended in time; it may still")]
    Late(&'static str),
    /// The replica has stopped.
    #[error("this member has stopped: {0}")]
    Halted(String),
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
    pub(crate) status: watch::Receiver<Status>,
    pub(crate) applied: watch::Receiver<AppliedMark>,
    pub(crate) inflight: Semaphore,
    pub(crate) forwarder: Forwarder,
    pub(crate) counts: Counts,
    pub(crate) mismatches: watch::Sender<Vec<HashMismatch>>,
    pub(crate) installing: tokio::sync::Mutex<()>,
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
        let machine = StateMachine::new(stores.state.clone());
        let applied = machine.watch();
        let network = Network {
            member: options.member,
            transport: deps.transport.clone(),
            snapshot_chunk_bytes: options.snapshot_chunk_bytes,
        };
        let log = LogStorage::new(stores.log.clone());
        let start = Raft::new(options.member.0, Arc::new(config), network, log, machine);
        let raft = raft::with_seed(deps.entropy.next_u64(), start)
            .await
            .map_err(|fatal| StartError::Storage(fatal.to_string()))?;
        let (mismatches, _) = watch::channel(Vec::new());
        // The tasks hold the replica weakly, or it would never go away.
        let inner = Arc::new_cyclic(|weak: &Weak<Inner>| Inner {
            status: follow(&raft, options.patience()),
            inflight: Semaphore::new(options.inflight_max),
            forwarder: Forwarder::default(),
            counts: Counts::default(),
            installing: tokio::sync::Mutex::new(()),
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
        Ok(inner.into())
    }

    /// What this replica knows now.
    pub fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    /// Follows [`Replica::status`].
    pub fn watch_status(&self) -> watch::Receiver<Status> {
        self.status.clone()
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
        let mut status = self.status.clone();
        let halted = status.wait_for(|status| status.halted.is_some()).await;
        let reason = halted.ok().and_then(|status| status.halted.clone());
        reason.unwrap_or_else(|| "it was shut down".to_owned())
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

    /// Hands leadership to a voter by name, or to the one that has most of the log, and waits until
    /// this member knows that it leads.
    ///
    /// # Errors
    /// See [`ManageError`].
    pub async fn transfer_leader(
        &self,
        to: Option<&str>,
        deadline: std::time::Instant,
    ) -> Result<Member, ManageError> {
        let status = self.status();
        if status.role != Role::Leader {
            return Err(ManageError::NotLeader);
        }
        let target = match to {
            Some(name) => {
                let found = status.membership.by_name(name);
                let member = found.ok_or_else(|| ManageError::UnknownMember(name.to_owned()))?;
                if !status.membership.voters.contains(&member.id) {
                    return Err(ManageError::Impossible(format!(
                        "{name} is a learner and cannot lead"
                    )));
                }
                member.clone()
            }
            None => self.best_follower(&status).ok_or_else(|| {
                ManageError::Impossible("there is no other voter that could lead".to_owned())
            })?,
        };
        if target.id == self.options.member {
            return Ok(target);
        }
        let moved = async {
            let mut watched = self.status.clone();
            loop {
                let asked = self.raft.trigger().transfer_leader(target.id.0).await;
                asked.map_err(|fatal| ManageError::Halted(fatal.to_string()))?;
                // The target refuses while it lacks entries; it is asked again a little later.
                let leads = watched.wait_for(|status| status.leader == Some(target.id));
                let again = Duration::from_millis(*self.options.election_ms.end());
                match tokio::time::timeout(again, leads).await {
                    Ok(Ok(_)) => return Ok(target.clone()),
                    Ok(Err(_)) => return Err(ManageError::Halted("it was shut down".to_owned())),
                    Err(_) if self.status().role == Role::Leader => {}
                    Err(_) => return Err(ManageError::Late("the transfer")),
                }
            }
        };
        let late = Err(ManageError::Late("the transfer"));
        timeout_at(Instant::from_std(deadline), moved)
            .await
            .unwrap_or(late)
    }

    /// The other voter that has most of this leader's log.
    fn best_follower(&self, status: &Status) -> Option<Member> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let replication = metrics.replication.as_ref();
        let matching = |id: MemberId| replication.and_then(|all| all.get(&id.0).cloned().flatten());
        let heard = |id: MemberId| {
            let heard = metrics.heartbeat.as_ref()?.get(&id.0)?.as_ref()?;
            Some(heard.elapsed() < self.options.patience())
        };
        let voters = status.membership.voters.iter();
        let others = voters.filter(|&&id| id != self.options.member);
        let best = others.max_by_key(|&&id| (heard(id), matching(id).map(|id| id.index)))?;
        status.membership.members.get(best).cloned()
    }

    /// Takes a snapshot and waits until it is on disk. Gives the last index that it covers.
    ///
    /// # Errors
    /// See [`ManageError`].
    pub async fn snapshot(&self, deadline: std::time::Instant) -> Result<u64, ManageError> {
        let applied = self.applied.borrow().index;
        let applied = applied.ok_or_else(|| {
            ManageError::Impossible(
                "nothing has been applied that a snapshot could hold".to_owned(),
            )
        })?;
        let asked = self.raft.trigger().snapshot().await;
        asked.map_err(|fatal| ManageError::Halted(fatal.to_string()))?;
        let mut status = self.status.clone();
        let taken = status.wait_for(|status| status.snapshot_index >= Some(applied));
        match timeout_at(Instant::from_std(deadline), taken).await {
            Ok(Ok(status)) => Ok(status.snapshot_index.unwrap_or(applied)),
            Ok(Err(_)) => Err(ManageError::Halted("it was shut down".to_owned())),
            Err(_) => Err(ManageError::Late("the snapshot")),
        }
    }

    /// Puts a member in the place of the one that has its name: admits it as a learner, waits until
    /// it has caught up, makes it a voter and removes the old one. Gives the removed id.
    ///
    /// Safe to repeat after a failure, also with the same new member.
    ///
    /// # Errors
    /// See [`ManageError`].
    pub async fn replace_member(
        &self,
        new: &Member,
        deadline: std::time::Instant,
    ) -> Result<MemberId, ManageError> {
        let status = self.status();
        if status.role != Role::Leader {
            return Err(ManageError::NotLeader);
        }
        let mut same_name = status.membership.members.values();
        let old = same_name
            .find(|member| member.name == new.name && member.id != new.id)
            .ok_or_else(|| ManageError::UnknownMember(new.name.clone()))?
            .id;
        let change = async {
            let learner = self.raft.add_learner(new.id.0, new.into(), true).await;
            learner.map_err(manage_error)?;
            let mut voters: BTreeSet<u64> =
                status.membership.voters.iter().map(|id| id.0).collect();
            voters.remove(&old.0);
            voters.insert(new.id.0);
            let change = ChangeMembers::ReplaceAllVoters(voters);
            let changed = self.raft.change_membership(change, false).await;
            changed.map_err(manage_error)?;
            Ok(old)
        };
        let late = Err(ManageError::Late("the replacement"));
        timeout_at(Instant::from_std(deadline), change)
            .await
            .unwrap_or(late)
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

fn manage_error(error: RaftError<TypeConfig, ClientWriteError<TypeConfig>>) -> ManageError {
    match error {
        RaftError::Fatal(fatal) => ManageError::Halted(fatal.to_string()),
        RaftError::APIError(
            ClientWriteError::ForwardToLeader(_) | ClientWriteError::LogEntryDiscarded(_),
        ) => ManageError::NotLeader,
        RaftError::APIError(ClientWriteError::ChangeMembershipError(
            ChangeMembershipError::InProgress(_),
        )) => ManageError::Impossible("another change of the membership is under way".to_owned()),
        RaftError::APIError(error) => ManageError::Impossible(error.to_string()),
    }
}

/// Translates openraft's metrics as they change, until the replica is gone.
fn follow(raft: &Raft, patience: Duration) -> watch::Receiver<Status> {
    let mut metrics = raft.metrics();
    let mut leadership = Leadership {
        patience,
        since: None,
    };
    let first = leadership.status(&metrics.borrow_watched());
    let (send, status) = watch::channel(first);
    tokio::spawn(async move {
        let mut ticks = tokio::time::interval(patience / 4);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                changed = metrics.changed() => if changed.is_err() {
                    return;
                },
                _ = ticks.tick() => {}
            }
            let now = leadership.status(&metrics.borrow_watched());
            send.send_if_modified(|known| {
                let changed = *known != now;
                *known = now;
                changed
            });
        }
    });
    status
}

/// A leader that has not heard from a majority for some time is none: another one may lead already.
/// openraft lets it go on in the hope that its majority comes back; whoever asks this member must not
/// wait for that.
struct Leadership {
    patience: Duration,
    /// Since when this member leads.
    since: Option<Instant>,
}

impl Leadership {
    fn status(&mut self, metrics: &RaftMetrics<TypeConfig>) -> Status {
        let mut status = Status::of(metrics);
        if status.role != Role::Leader {
            self.since = None;
            return status;
        }
        let since = *self.since.get_or_insert_with(Instant::now);
        let alone = status.membership.voters.len() == 1;
        let confirmed = metrics.last_quorum_acked.map(|at| at.elapsed());
        let silence = confirmed.unwrap_or(Duration::MAX).min(since.elapsed());
        if !alone && silence > self.patience {
            status.role = Role::Candidate;
            status.leader = None;
        }
        status
    }
}
