//! Replicas over real stores in temporary directories.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tally_consensus::{Clock, Deps, Entropy, Member, Replica, ReplicaOptions, Role, Stores};
use tally_model::command::{Found, OpenSession, RegisterNode, SetStorageState};
use tally_model::{
    Actor, ClusterId, Command, Effect, HistoryEntry, Location, Marker, MemberId, NodeId, NodeName,
    Outcome, Request, Revision, SessionId, Settings, StorageState, Tag, Tagged,
};
use tally_proto::convert::digest;
use tally_storage::{DataDir, LogOptions, OnFailure, OpenOptions, StateOptions};
use tempfile::TempDir;

use crate::wire::Wire;

/// Far longer than anything here takes; a test that waits so long has failed.
const DEADLINE: Duration = Duration::from_secs(20);

const MARKER: Marker = Marker {
    bits: 7,
    created_unix_ms: 1,
};

/// The machine's clock, and numbers that follow from a seed.
struct Machine(AtomicU64);

impl Clock for Machine {
    fn unix_ms(&self) -> u64 {
        let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
        since.as_millis().try_into().unwrap()
    }
}

impl Entropy for Machine {
    fn next_u64(&self) -> u64 {
        self.0.fetch_add(0x9e37_79b9, Ordering::Relaxed)
    }
}

/// One replica and what it stands on.
struct Running {
    member: Member,
    directory: TempDir,
    replica: Replica,
    _data: DataDir,
}

pub(crate) struct Cluster {
    pub(crate) wire: Wire,
    tune: fn(&mut ReplicaOptions),
    running: Vec<Running>,
}

/// Waits for a condition.
pub(crate) async fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

impl Cluster {
    /// Members that have founded a cluster.
    pub(crate) async fn founded(count: u64) -> Self {
        Self::founded_with(count, |_| {}).await
    }

    pub(crate) async fn founded_with(count: u64, tune: fn(&mut ReplicaOptions)) -> Self {
        let mut cluster = Self {
            wire: Wire::new(),
            tune,
            running: Vec::new(),
        };
        for number in 1..=count {
            cluster.start(member(number, &format!("n{number}"))).await;
        }
        let members: Vec<Member> = cluster
            .running
            .iter()
            .map(|one| one.member.clone())
            .collect();
        let found = Found {
            cluster: ClusterId(1),
            settings: Settings::default(),
        };
        let deadline = Instant::now() + DEADLINE;
        cluster
            .replica(0)
            .found(&members, found, deadline)
            .await
            .unwrap();
        cluster.leader().await;
        cluster
    }

    /// A member that belongs to no cluster yet. Gives its position.
    pub(crate) async fn add_stranger(&mut self, name: &str) -> usize {
        let number = self.running.len() as u64 + 1;
        self.start(member(number, name)).await;
        self.running.len() - 1
    }

    async fn start(&mut self, member: Member) {
        let directory = tempfile::tempdir().unwrap();
        let (data, replica) = self.open(&member, &directory).await;
        self.running.push(Running {
            member,
            directory,
            replica,
            _data: data,
        });
    }

    async fn open(&self, member: &Member, directory: &TempDir) -> (DataDir, Replica) {
        let (data, stores) = open_stores(member, directory);
        let machine = Arc::new(Machine(AtomicU64::new(member.id.0)));
        let deps = Deps {
            clock: machine.clone(),
            entropy: machine,
            transport: Arc::new(self.wire.end(member.id)),
        };
        let mut options = ReplicaOptions::new(member.id, member.name.clone());
        options.heartbeat_ms = 50;
        options.election_ms = 250..=500;
        (self.tune)(&mut options);
        let replica = Replica::start(options, stores, deps).await.unwrap();
        self.wire.connect(member.id, replica.clone());
        (data, replica)
    }

    /// Stops a replica and starts it again on what its stores hold.
    pub(crate) async fn restart(&mut self, index: usize) {
        self.restart_after(index, |_| {}).await;
    }

    /// The same, after its stores were changed while it was stopped.
    pub(crate) async fn restart_after(&mut self, index: usize, change: impl FnOnce(&Stores)) {
        let stopped = self.running.remove(index);
        self.wire.disconnect(stopped.member.id);
        stopped.replica.shutdown().await;
        let Running {
            member,
            directory,
            replica,
            _data,
        } = stopped;
        drop((replica, _data));
        let (data, stores) = open_stores(&member, &directory);
        change(&stores);
        drop((data, stores));
        let (data, replica) = self.open(&member, &directory).await;
        let running = Running {
            member,
            directory,
            replica,
            _data: data,
        };
        self.running.insert(index, running);
    }

    pub(crate) fn replicas(&self) -> Vec<Replica> {
        self.running.iter().map(|one| one.replica.clone()).collect()
    }

    pub(crate) fn replica(&self, index: usize) -> Replica {
        self.running[index].replica.clone()
    }

    pub(crate) fn member(&self, index: usize) -> Member {
        self.running[index].member.clone()
    }

    pub(crate) fn id(&self, index: usize) -> MemberId {
        self.running[index].member.id
    }

    pub(crate) fn name(&self, index: usize) -> String {
        self.running[index].member.name.clone()
    }

    /// Waits for a leader that a majority follows, and gives its position.
    pub(crate) async fn leader(&self) -> usize {
        let majority = self.running.len() / 2 + 1;
        let found = || {
            let statuses: Vec<_> = self
                .running
                .iter()
                .map(|one| one.replica.status())
                .collect();
            let leader = statuses
                .iter()
                .position(|status| status.role == Role::Leader)?;
            let id = self.running[leader].member.id;
            let (term, followers) = (statuses[leader].term, statuses.iter());
            let followers =
                followers.filter(|status| status.leader == Some(id) && status.term == term);
            (followers.count() >= majority).then_some(leader)
        };
        until("a leader", || found().is_some()).await;
        found().expect("leadership has moved at once")
    }

    /// Opens a session through one member.
    pub(crate) async fn session(&self, index: usize) -> SessionId {
        let request = Request {
            tagged: None,
            command: Command::OpenSession(OpenSession { marker: MARKER }),
        };
        let deadline = Instant::now() + DEADLINE;
        let answer = self
            .replica(index)
            .propose(request, deadline)
            .await
            .unwrap();
        match answer.outcome {
            Outcome::Applied {
                effect: Effect::SessionOpened { session },
                ..
            } => session,
            other => panic!("{other:?}"),
        }
    }

    /// The history as one member has it.
    pub(crate) fn history(&self, index: usize) -> Vec<HistoryEntry> {
        let state = &self.running[index].replica.stores().state;
        state
            .with_view(|view| view.history_after(Revision(0), None, 10_000))
            .unwrap()
    }

    /// Waits until every member has applied the same entries, and checks that they are in the same
    /// state.
    pub(crate) async fn states_agree(&self) {
        let hashes = || -> Vec<(u64, u128)> {
            let states = self.running.iter().map(|one| &one.replica.stores().state);
            states.map(|state| state.state_hash()).collect()
        };
        let level = |hashes: &[(u64, u128)]| hashes.iter().all(|(index, _)| *index == hashes[0].0);
        until("equal applied indices", || level(&hashes())).await;
        let now = hashes();
        if level(&now) {
            assert!(now.iter().all(|one| *one == now[0]), "{now:?}");
        }
    }
}

fn member(number: u64, name: &str) -> Member {
    Member {
        id: MemberId(number),
        name: name.to_owned(),
        peer_address: format!("{name}:{number}"),
        client_address: String::new(),
    }
}

fn open_stores(member: &Member, directory: &TempDir) -> (DataDir, Stores) {
    let options = OpenOptions {
        name: member.name.clone(),
        formation: Vec::new(),
        fresh_member: member.id,
    };
    // A replica that was stopped lets go of its stores when its last task has ended.
    let deadline = Instant::now() + DEADLINE;
    let data = loop {
        match DataDir::open(directory.path(), &options) {
            Ok(data) => break data,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let on_failure: OnFailure = Arc::new(|why: &str| panic!("the store failed: {why}"));
    let log = data.open_log(LogOptions::new(on_failure.clone())).unwrap();
    let state = data.open_state(StateOptions { on_failure }).unwrap();
    (data, Stores { log, state })
}

/// A command of the session that the tests share.
pub(crate) fn tagged(session: SessionId, sequence: u64, command: Command) -> Request {
    Request {
        tagged: Some(Tagged {
            tag: Tag { session, sequence },
            marker: Some(MARKER),
            acknowledged: 1,
            digest: digest(&command),
        }),
        command,
    }
}

pub(crate) fn register(name: &str) -> Command {
    Command::RegisterNode(RegisterNode {
        name: NodeName::new(name.to_owned()).unwrap(),
        marker: None,
        address: String::new(),
        location: Location::new(String::new()).unwrap(),
    })
}

pub(crate) fn set_state(node: u32, to: StorageState, expected: Revision) -> Command {
    Command::SetStorageState(SetStorageState {
        node: NodeId(node),
        to,
        actor: Actor::Operator {
            expected_revision: Some(expected),
            force: None,
        },
        reason: String::new(),
    })
}
