//! Starts on disks without room.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../../client/tests/fake/mod.rs"]
mod fake;

use std::time::Duration;

use fake::{Fake, Twist};
use tally_client::Client;
use tempfile::TempDir;

use super::*;

fn options(fake: &Fake, dir: &TempDir, deadline: Duration) -> LogServerOptions {
    let client = Client::builder()
        .endpoints(fake.endpoints())
        .attempt_max(Duration::from_millis(300))
        .deadline(deadline)
        .build()
        .unwrap();
    let listen = TcpListener::bind("127.0.0.1:0").unwrap();
    LogServerOptions::new("ls1", dir.path(), listen, client)
}

async fn serve_once(fake: &Fake, dir: &TempDir) {
    let options = options(fake, dir, Duration::from_secs(20));
    let start = LogServer::start(options).await.unwrap();
    start.running.unwrap().shutdown().await;
}

fn no_room(_: &Path) -> Result<Records, String> {
    Err("IO error: No space left on device: While appending to MANIFEST".to_owned())
}

async fn start_without_room(fake: &Fake, dir: &TempDir, deadline: Duration) -> (bool, String) {
    let error = start(options(fake, dir, deadline), no_room)
        .await
        .unwrap_err();
    let said = error.to_string();
    assert!(
        said.contains("is full") && said.contains("records"),
        "{said}"
    );
    assert!(error.next().unwrap().starts_with("make room"), "{error:?}");
    match error {
        StartError::DiskFull { told, .. } => (told, said),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_on_a_full_disk_tells_the_cluster_and_says_what_is_full() {
    let (fake, dir) = (Fake::start(2).await, tempfile::tempdir().unwrap());
    serve_once(&fake, &dir).await;
    let within = Duration::from_secs(20);
    for _ in 0..2 {
        let (told, said) = start_without_room(&fake, &dir, within).await;
        assert!(told, "{said}");
        let node = fake.node("ls1").unwrap();
        assert_eq!(node.storage_state, StorageState::ReadOnly);
    }
    let history = fake.history();
    let reason = &history[history.len() - 2].reason;
    assert!(reason.contains("No space left on device"), "{reason}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_start_on_a_full_disk_does_not_stay_writable() {
    let (fake, dir) = (Fake::start(1).await, tempfile::tempdir().unwrap());
    let (told, said) = start_without_room(&fake, &dir, Duration::from_secs(20)).await;
    assert!(told, "{said}");
    let node = fake.node("ls1").unwrap();
    assert_eq!(node.storage_state, StorageState::ReadOnly);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_named_though_the_cluster_does_not_answer() {
    let (fake, dir) = (Fake::start(1).await, tempfile::tempdir().unwrap());
    serve_once(&fake, &dir).await;
    fake.otherwise(Twist::NoLeader(None));
    let short = Duration::from_millis(300);
    let (told, said) = start_without_room(&fake, &dir, short).await;
    assert!(!told && said.contains("no leader"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_found_no_room_is_told_to_the_cluster_and_ends_nothing() {
    let (fake, dir) = (Fake::start(1).await, tempfile::tempdir().unwrap());
    let mut options = options(&fake, &dir, Duration::from_secs(20));
    options.free_bytes_min = 0;
    let start = LogServer::start(options).await.unwrap();
    let running = start.running.unwrap();
    running.standing.write_found_no_room("no room");
    let told = async {
        while running.state().storage_state != "read-only" {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(20), told).await.unwrap();
    let node = fake.node("ls1").unwrap();
    assert_eq!(node.storage_state, StorageState::ReadOnly);
    assert_eq!(running.standing.get().ended, None);
    running.shutdown().await;
}
