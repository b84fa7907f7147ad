//! A whole log server against a cluster in this process.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../../client/tests/fake/mod.rs"]
mod fake;

use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fake::{Fake, Twist};
use tally_client::{By, Client, Register, SetState, StorageState};
use tally_log_server::{LogServer, LogServerOptions, Running, Started};
use tally_proto::fault::Fault;
use tally_proto::logserver::log_server_client::LogServerClient;
use tally_proto::logserver::{AppendRequest, ReadRequest};
use tokio::time::timeout;
use tonic::transport::Channel;
use tonic::{Code, Status};

const WITHIN: Duration = Duration::from_secs(20);

fn client(fake: &Fake) -> Client {
    let builder = Client::builder().endpoints(fake.endpoints());
    builder
        .attempt_max(Duration::from_millis(300))
        .build()
        .unwrap()
}

/// Options with a disk whose free bytes the test sets.
fn options(fake: &Fake, dir: &Path, free: &Arc<AtomicU64>) -> LogServerOptions {
    let listen = TcpListener::bind("127.0.0.1:0").unwrap();
    let free = free.clone();
    LogServerOptions {
        free_bytes_min: 100,
        free_space_check_every: Duration::from_millis(20),
        free_bytes: Arc::new(move |_| Ok(free.load(Ordering::SeqCst))),
        ..LogServerOptions::new("ls1", dir, listen, client(fake))
    }
}

async fn start(fake: &Fake, dir: &Path, free: &Arc<AtomicU64>) -> Running {
    let start = LogServer::start(options(fake, dir, free)).await.unwrap();
    start
        .running
        .unwrap_or_else(|| panic!("{:?}", start.started))
}

struct User(LogServerClient<Channel>);

impl User {
    async fn of(running: &Running) -> Self {
        let endpoint = format!("http://{}", running.address());
        Self(LogServerClient::connect(endpoint).await.unwrap())
    }

    async fn append(&mut self, data: &[u8]) -> Result<u64, Status> {
        let ask = AppendRequest {
            log: 7,
            data: data.to_vec(),
        };
        Ok(self.0.append(ask).await?.into_inner().offset)
    }

    async fn read(&mut self) -> Vec<Vec<u8>> {
        let ask = ReadRequest {
            log: 7,
            from: 1,
            limit: 0,
        };
        let response = self.0.read(ask).await.unwrap().into_inner();
        response
            .records
            .into_iter()
            .map(|record| record.data)
            .collect()
    }
}

fn code_of(status: &Status) -> String {
    assert_eq!(status.code(), Code::FailedPrecondition, "{status:?}");
    Fault::read(status).unwrap().code
}

/// Every entry of a directory, ascending.
fn files(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Waits until the log server says that it is in a state.
async fn until(running: &Running, state: &str) {
    let reached = async {
        while running.state().storage_state != state {
            tokio::task::yield_now().await;
        }
    };
    timeout(WITHIN, reached)
        .await
        .unwrap_or_else(|_| panic!("{:?}", running.state()));
}

async fn set(fake: &Fake, to: StorageState) {
    let node = fake.node("ls1").unwrap();
    let by = By::Operator {
        expected_revision: Some(node.revision.0),
        force: None,
    };
    let ask = SetState {
        node: node.id.0,
        to,
        by,
        reason: String::new(),
    };
    let answer = client(fake).set_state(ask).await.unwrap();
    assert!(answer.refused().is_none(), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_are_kept_across_restarts_and_appended_in_read_write_only() {
    let (fake, dir) = (Fake::start(2).await, tempfile::tempdir().unwrap());
    let room = Arc::new(AtomicU64::new(1000));
    let running = start(&fake, dir.path(), &room).await;
    let mut user = User::of(&running).await;
    assert_eq!(user.append(b"one").await.unwrap(), 1);

    set(&fake, StorageState::ReadOnly).await;
    until(&running, "read-only").await;
    assert_eq!(code_of(&user.append(b"never").await.unwrap_err()), "T-020");
    assert_eq!(user.read().await, [b"one"]);

    fake.break_watches();
    set(&fake, StorageState::ReadWrite).await;
    until(&running, "read-write").await;
    assert_eq!(user.append(b"two").await.unwrap(), 2);
    drop(user);
    running.shutdown().await;

    let running = start(&fake, dir.path(), &room).await;
    assert_eq!(running.identity().incarnation, 2);
    let mut user = User::of(&running).await;
    assert_eq!(user.read().await, [b"one", b"two"]);
    assert_eq!(user.append(b"three").await.unwrap(), 3);
    running.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_makes_it_read_only_however_long_the_cluster_takes_to_hear_of_it() {
    let (fake, dir) = (Fake::start(2).await, tempfile::tempdir().unwrap());
    let room = Arc::new(AtomicU64::new(1000));
    let running = start(&fake, dir.path(), &room).await;
    let mut user = User::of(&running).await;
    user.append(b"one").await.unwrap();

    fake.plan([Twist::NoLeader(None), Twist::DropRequest, Twist::Silence]);
    room.store(99, Ordering::SeqCst);
    until(&running, "read-only").await;
    assert_eq!(code_of(&user.append(b"never").await.unwrap_err()), "T-020");
    let node = fake.node("ls1").unwrap();
    assert_eq!(node.storage_state, StorageState::ReadOnly);
    let history = fake.history();
    let reason = &history.last().unwrap().reason;
    assert!(
        reason.contains("99 bytes are free, at least 100"),
        "{reason}"
    );
    let entries = history.len();

    // An operator who looks only at the state is overruled by the disk.
    set(&fake, StorageState::ReadWrite).await;
    timeout(WITHIN, async {
        while fake.history().len() < entries + 2 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    until(&running, "read-only").await;

    room.store(1000, Ordering::SeqCst);
    set(&fake, StorageState::ReadWrite).await;
    until(&running, "read-write").await;
    timeout(WITHIN, async {
        while user.append(b"two").await.is_err() {}
    })
    .await
    .unwrap();
    running.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_incarnation_fences_it() {
    let (fake, dir) = (Fake::start(1).await, tempfile::tempdir().unwrap());
    let room = Arc::new(AtomicU64::new(1000));
    let running = start(&fake, dir.path(), &room).await;
    let mut user = User::of(&running).await;
    let newer = Register {
        marker: Some(running.identity().marker),
        ..Register::new("ls1")
    };
    client(&fake).register(newer).await.unwrap();
    let reason = timeout(WITHIN, running.failed()).await.unwrap();
    assert!(reason.contains("incarnation 2"), "{reason}");
    assert_eq!(running.ended().await.code, "T-320");
    assert_eq!(code_of(&user.append(b"never").await.unwrap_err()), "T-320");
    running.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_process_on_the_same_directory_does_not_fence_the_first() {
    let (fake, dir) = (Fake::start(1).await, tempfile::tempdir().unwrap());
    let room = Arc::new(AtomicU64::new(1000));
    let running = start(&fake, dir.path(), &room).await;
    let error = LogServer::start(options(&fake, dir.path(), &room))
        .await
        .unwrap_err();
    assert_eq!(error.code(), "T-013", "{error}");
    let data = dir.path().to_str().unwrap();
    assert!(error.to_string().contains(data), "{error}");
    assert_eq!(fake.node("ls1").unwrap().incarnation.0, 1);
    User::of(&running).await.append(b"one").await.unwrap();
    running.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_directory_does_not_serve_and_stays_empty_but_for_its_lock() {
    let (fake, dir) = (Fake::start(1).await, tempfile::tempdir().unwrap());
    let room = Arc::new(AtomicU64::new(1000));
    let data = dir.path().join("data");
    start(&fake, &data, &room).await.shutdown().await;
    std::fs::remove_dir_all(&data).unwrap();
    let start = LogServer::start(options(&fake, &data, &room))
        .await
        .unwrap();
    assert!(
        matches!(start.started, Started::DataLost { .. }),
        "{:?}",
        start.started
    );
    assert!(start.running.is_none());
    assert_eq!(files(&data), ["LOCK"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_without_a_marker_never_get_a_new_one() {
    let (fake, dir) = (Fake::start(1).await, tempfile::tempdir().unwrap());
    let room = Arc::new(AtomicU64::new(1000));
    start(&fake, dir.path(), &room).await.shutdown().await;
    std::fs::remove_file(dir.path().join("MARKER")).unwrap();
    // Another name, which the cluster does not know, is as little the owner of the records.
    for name in ["ls1", "ls2"] {
        let seen = fake.seen().len();
        let options = LogServerOptions {
            name: name.to_owned(),
            ..options(&fake, dir.path(), &room)
        };
        let start = LogServer::start(options).await.unwrap();
        let Started::DataLost { refused } = &start.started else {
            panic!("{:?}", start.started);
        };
        assert_eq!(refused.code, "T-311");
        assert!(refused.found.contains("MARKER"), "{refused}");
        assert!(start.running.is_none());
        assert_eq!(fake.seen().len(), seen, "nothing was sent");
        assert_eq!(files(dir.path()), ["LOCK", "records"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_that_nobody_can_reach_is_not_registered() {
    let (fake, dir) = (Fake::start(1).await, tempfile::tempdir().unwrap());
    let room = Arc::new(AtomicU64::new(1000));
    let everywhere = || LogServerOptions {
        free_bytes_min: 0,
        ..LogServerOptions::new(
            "ls1",
            dir.path().join("data"),
            TcpListener::bind("0.0.0.0:0").unwrap(),
            client(&fake),
        )
    };
    let error = LogServer::start(everywhere()).await.unwrap_err();
    assert_eq!(error.code(), "T-015");
    let said = error.to_string();
    assert!(said.contains("0.0.0.0"), "{said}");
    assert!(error.next().unwrap().contains("--advertise"), "{error:?}");
    for unreachable in ["0.0.0.0:7421", "[::]:7421"] {
        let options = LogServerOptions {
            advertise: unreachable.to_owned(),
            ..options(&fake, &dir.path().join("data"), &room)
        };
        assert_eq!(LogServer::start(options).await.unwrap_err().code(), "T-015");
    }
    assert_eq!((fake.seen().len(), fake.sessions_opened()), (0, 0));
    let reachable = LogServerOptions {
        advertise: "host9:7421".to_owned(),
        ..everywhere()
    };
    let start = LogServer::start(reachable).await.unwrap();
    assert_eq!(fake.node("ls1").unwrap().address.as_str(), "host9:7421");
    start.running.unwrap().shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_over_the_bound_is_refused() {
    let (fake, dir) = (Fake::start(1).await, tempfile::tempdir().unwrap());
    let room = Arc::new(AtomicU64::new(1000));
    let running = start(&fake, dir.path(), &room).await;
    let mut user = User::of(&running).await;
    let longest = vec![1; tally_log_server::DATA_BYTES_MAX];
    user.append(&longest).await.unwrap();
    let longer = [longest.as_slice(), &[1]].concat();
    let refused = user.append(&longer).await.unwrap_err();
    assert_eq!(Fault::read(&refused).unwrap().code, "T-007");
    // One that is over the bound of a message does not even get that far.
    let refused = user.append(&vec![1; 2 << 20]).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert_eq!(Fault::read(&refused).unwrap().code, "T-007");
    running.shutdown().await;
}
