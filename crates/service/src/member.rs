//! One member as its services see it: what it was started with, its directory, and its replica once
//! it is part of a cluster.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tally_consensus::{Deps, Member as Peer, Replica, ReplicaOptions, Role, Status, Stores};
use tally_model::explanation::codes;
use tally_model::{ClusterId, MemberId, Revision, View};
use tally_proto::fault::Fault;
use tally_proto::v1;
use tally_storage::DataDir;
use tokio::sync::watch;
use tokio::time::timeout_at;

use crate::ending::Ending;
use crate::hub::Hub;
use crate::metrics::Metrics;
use crate::peer::PeerTransport;
use crate::server::{Faults, ServerConfig, StartError};
use crate::system::System;

/// How often is looked whether there is a leader still, by who waits to hear from it.
const LEADER_LOOKED_FOR_EVERY: Duration = Duration::from_millis(50);

/// What stands between a start and a running replica.
#[derive(Clone)]
pub(crate) enum Phase {
    /// Not part of a cluster yet, and why.
    Waiting(Fault),
    Running(Replica),
}

/// See the module.
pub(crate) struct Member {
    pub(crate) config: ServerConfig,
    pub(crate) faults: Faults,
    pub(crate) data: DataDir,
    pub(crate) stores: Stores,
    /// Digest of the initial cluster that this member was started with.
    pub(crate) formation: Vec<u8>,
    pub(crate) metrics: Metrics,
    pub(crate) ending: Ending,
    /// Why the member cannot go on; `None` while it can.
    pub(crate) broken: watch::Sender<Option<String>>,
    /// What the others say when they have removed this member.
    pub(crate) removed: watch::Sender<Option<Fault>>,
    /// Once true, always true: every watch asks again and again, and need not ask the state.
    founded: AtomicBool,
    /// See `catching_up`; once true, always true.
    caught_up: AtomicBool,
    phase: watch::Sender<Phase>,
    /// The latest revision of a write that this member answered. When another one leads, its own state may
    /// come to it later.
    answered: AtomicU64,
    /// Made for the first watcher.
    hub: OnceLock<Hub>,
    starting: tokio::sync::Mutex<()>,
}

impl Member {
    pub(crate) fn new(
        config: ServerConfig,
        faults: Faults,
        data: DataDir,
        stores: Stores,
        formation: Vec<u8>,
        broken: watch::Sender<Option<String>>,
    ) -> Arc<Self> {
        let fault = Fault::new(codes::NOT_READY, "the member is starting");
        Arc::new(Self {
            metrics: Metrics::default(),
            config,
            faults,
            data,
            stores,
            formation,
            broken,
            removed: watch::Sender::new(None),
            founded: AtomicBool::new(false),
            caught_up: AtomicBool::new(false),
            ending: Ending::default(),
            phase: watch::Sender::new(Phase::Waiting(fault)),
            answered: AtomicU64::new(0),
            hub: OnceLock::new(),
            starting: tokio::sync::Mutex::default(),
        })
    }

    pub(crate) fn id(&self) -> MemberId {
        self.data.member()
    }

    pub(crate) fn cluster(&self) -> Option<ClusterId> {
        self.data.cluster()
    }

    /// The running replica, or why there is none.
    pub(crate) fn replica(&self) -> Result<Replica, Fault> {
        match &*self.phase.borrow() {
            Phase::Running(replica) => Ok(replica.clone()),
            Phase::Waiting(fault) => Err(fault.clone()),
        }
    }

    /// The running replica of a member that may serve, or why there is none.
    pub(crate) fn may_serve(&self) -> Result<Replica, Fault> {
        match self.foreign() {
            Some(foreign) => Err(foreign),
            None => self.replica(),
        }
    }

    /// The replica, once it runs; `None` when it never will.
    pub(crate) async fn running(&self) -> Option<Replica> {
        let mut phase = self.phase.subscribe();
        loop {
            if let Phase::Running(replica) = &*phase.borrow_and_update() {
                return Some(replica.clone());
            }
            phase.changed().await.ok()?;
        }
    }

    /// Notes that a write was done at a revision, before its requester is told.
    pub(crate) fn answers_write(&self, revision: Revision) {
        self.answered.fetch_max(revision.0, Ordering::Relaxed);
    }

    /// The revision after which a watcher that comes now is to be told: neither what this member has applied
    /// nor what it has answered is news.
    ///
    /// # Errors
    /// When the state cannot be read: the member has stopped.
    pub(crate) fn known_revision(&self) -> Result<Revision, tonic::Status> {
        let answered = Revision(self.answered.load(Ordering::Relaxed));
        Ok(self.revision()?.max(answered))
    }

    /// Waits until this member has applied what it has answered, as long as there is a leader to hear it from:
    /// it may have passed a write on, and have its answer before the entry.
    pub(crate) async fn applies_its_answers(&self, replica: &Replica, deadline: Instant) {
        let answered = Revision(self.answered.load(Ordering::Relaxed));
        let mut applied = replica.watch_applied();
        loop {
            let now = Instant::now();
            if applied.borrow().revision >= answered
                || now >= deadline
                || replica.status().leader.is_none()
            {
                return;
            }
            let reached = applied.wait_for(|mark| mark.revision >= answered);
            let until = deadline.min(now + LEADER_LOOKED_FOR_EVERY);
            if let Ok(Err(_)) = timeout_at(until.into(), reached).await {
                // The replica has stopped, and applies nothing any more.
                return;
            }
        }
    }

    /// Who tells all watchers of this member's what happens.
    pub(crate) fn hub(&self, replica: &Replica) -> Hub {
        let begin = || {
            let hub = Hub::default();
            tokio::spawn(hub.clone().run(replica.clone()));
            hub
        };
        self.hub.get_or_init(begin).clone()
    }

    /// Watchers through the etcd API, and those of them that read the history for themselves.
    pub(crate) fn watchers(&self) -> (usize, usize) {
        self.hub.get().map_or((0, 0), Hub::watchers)
    }

    /// Notes that everything is applied that was answered before the start.
    pub(crate) fn has_caught_up(&self) {
        self.caught_up.store(true, Ordering::Relaxed);
    }

    /// Notes why the member is not part of a cluster; nothing when it is.
    pub(crate) fn waits_for(&self, fault: Fault) {
        self.phase.send_if_modified(|phase| match phase {
            Phase::Running(_) => false,
            Phase::Waiting(known) if *known == fault => false,
            Phase::Waiting(known) => {
                tracing::info!("not part of a cluster: {}", said(&fault));
                *known = fault;
                true
            }
        });
    }

    /// Starts the replica of a member that has joined its cluster; once.
    pub(crate) async fn start_replica(self: &Arc<Self>) -> Result<Replica, StartError> {
        let _one = self.starting.lock().await;
        if let Ok(replica) = self.replica() {
            return Ok(replica);
        }
        let cluster = self.cluster().ok_or_else(|| {
            StartError::Internal("the replica was to start before the member joined".to_owned())
        })?;
        let tuning = &self.config.tuning;
        let mut options = ReplicaOptions::new(self.id(), self.config.name.clone());
        options.heartbeat_ms = tuning.heartbeat_ms;
        options.election_ms = tuning.election_ms_min..=tuning.election_ms_max;
        options.snapshot_entries = tuning.snapshot_entries;
        options.keep_entries = tuning.keep_entries;
        options.inflight_max = tuning.inflight_max;
        let deps = Deps {
            clock: Arc::new(System),
            entropy: Arc::new(System),
            transport: Arc::new(PeerTransport::new(cluster, self.id())),
        };
        let replica = Replica::start(options, self.stores.clone(), deps)
            .await
            .map_err(StartError::Replica)?;
        tracing::info!(%cluster, member = %self.id(), "the replica runs");
        self.phase.send_replace(Phase::Running(replica.clone()));
        Ok(replica)
    }

    /// Has the cluster's first entry been applied here?
    pub(crate) fn is_founded(&self) -> bool {
        if self.founded.load(Ordering::Relaxed) {
            return true;
        }
        let state = &self.stores.state;
        let founded = state.with_view(|view| view.globals().founded.is_some());
        let founded = founded.unwrap_or(false);
        self.founded.store(founded, Ordering::Relaxed);
        founded
    }

    /// Why this member does not serve; `None` when it does.
    pub(crate) fn not_ready(&self) -> Option<Fault> {
        if let Some(why) = &*self.broken.borrow() {
            return Some(Fault::new(codes::HALTED, why.clone()));
        }
        if self.ending.leaving.is_cancelled() {
            return Some(Fault::new(codes::NOT_READY, "the member is ending"));
        }
        let replica = match self.replica() {
            Ok(replica) => replica,
            Err(fault) => return Some(fault),
        };
        let status = replica.status();
        if let Some(why) = status.halted {
            return Some(Fault::new(codes::HALTED, why));
        }
        if let Some(fault) = self.foreign() {
            return Some(fault);
        }
        if let Some(fault) = self
            .removed
            .borrow()
            .clone()
            .filter(|_| status.leader.is_none())
        {
            return Some(fault);
        }
        if !status.membership.members.contains_key(&self.id()) {
            let found = "the cluster has not admitted this member, or has removed it";
            return Some(Fault::new(codes::NOT_READY, found));
        }
        if !self.is_founded() {
            let found = "the cluster's first entry is not applied here yet";
            return Some(Fault::new(codes::NOT_READY, found));
        }
        if status.leader.is_none() {
            let found = "no leader is known";
            return Some(Fault::new(codes::NO_LEADER, found).with_next("tally cluster status"));
        }
        if !self.caught_up.load(Ordering::Relaxed) {
            let found =
                "catching up: not everything is applied here that was answered before the start";
            return Some(Fault::new(codes::NOT_READY, found));
        }
        None
    }

    /// Why this member must not serve although its own cluster would let it: it is at the place of a
    /// member of another one.
    pub(crate) fn foreign(&self) -> Option<Fault> {
        let kept_out = self.removed.borrow().clone();
        kept_out.filter(is_foreign)
    }

    /// Waits until this member must not serve any more. See [`Member::foreign`].
    pub(crate) async fn becomes_foreign(&self) {
        let mut removed = self.removed.subscribe();
        // Fails only when this member is gone.
        let _ = removed
            .wait_for(|found| found.as_ref().is_some_and(is_foreign))
            .await;
    }

    /// The store's revision, as far as this member has applied.
    ///
    /// # Errors
    /// When the state cannot be read: the member has stopped.
    pub(crate) fn revision(&self) -> Result<Revision, tonic::Status> {
        let revision = self.stores.state.with_view(|view| view.revision());
        revision.map_err(|error| crate::fault::disk(&error))
    }

    /// This member as others are told.
    pub(crate) fn as_peer(&self) -> Peer {
        let own = self.config.initial_cluster.iter();
        let mut own = own.filter(|(name, _)| *name == self.config.name);
        Peer {
            id: self.id(),
            name: self.config.name.clone(),
            peer_address: own
                .next()
                .map(|(_, address)| address.clone())
                .unwrap_or_default(),
            client_address: self.config.advertise_client.clone(),
        }
    }

    /// What this member knows; never waits.
    pub(crate) fn status(&self) -> v1::StatusResponse {
        let (status, mismatches) = match self.replica() {
            Ok(replica) => (replica.status(), replica.hash_mismatches()),
            Err(_) => (Status::default(), Vec::new()),
        };
        let (applied_index, state_hash) = self.stores.state.state_hash();
        let store = self.stores.state.with_view(|view| {
            let settings = view.globals().founded.map(|(_, settings)| settings);
            (view.revision(), settings)
        });
        let (revision, settings) = store.map_or((0, None), |(revision, found)| (revision.0, found));
        let members = status.membership.members.values().map(|peer| v1::Member {
            id: peer.id.0,
            name: peer.name.clone(),
            peer_address: peer.peer_address.clone(),
            client_address: peer.client_address.clone(),
            voter: status.membership.voters.contains(&peer.id),
        });
        v1::StatusResponse {
            cluster_id: self.cluster().map(cluster_bytes).unwrap_or_default(),
            member: self.id().0,
            name: self.config.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            role: role(status.role).into(),
            term: status.term,
            leader: status.leader.unwrap_or_default().0,
            last_log_index: status.last_log_index.unwrap_or(0),
            committed_index: status.committed_index.unwrap_or(0),
            applied_index,
            snapshot_index: status.snapshot_index.unwrap_or(0),
            purged_index: status.purged_index.unwrap_or(0),
            revision,
            state_hash: state_hash.to_be_bytes().to_vec(),
            members: members.collect(),
            retry_check: settings
                .map(|found| found.retry_check.to_string())
                .unwrap_or_default(),
            not_ready: self
                .not_ready()
                .map(|fault| said(&fault))
                .unwrap_or_default(),
            hash_mismatches: mismatches
                .iter()
                .map(|mismatch| v1::HashMismatch {
                    index: mismatch.index,
                    member: mismatch.member.0,
                })
                .collect(),
        }
    }
}

/// A fault in one line, with what to run.
pub(crate) fn said(fault: &Fault) -> String {
    match fault.next.as_str() {
        "" => fault.to_string(),
        next => format!("{fault}; run: {next}"),
    }
}

pub(crate) fn cluster_bytes(cluster: ClusterId) -> Vec<u8> {
    cluster.0.to_be_bytes().to_vec()
}

fn role(role: Role) -> v1::Role {
    match role {
        Role::Follower => v1::Role::Follower,
        Role::Candidate => v1::Role::Candidate,
        Role::Leader => v1::Role::Leader,
        Role::Learner => v1::Role::Learner,
        Role::Stopped => v1::Role::Stopped,
    }
}

fn is_foreign(fault: &Fault) -> bool {
    fault.code == codes::FOREIGN_DIRECTORY
}
