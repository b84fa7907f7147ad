//! The ways in which a log server's start-up ends.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod fake;

use std::path::Path;
use std::time::Duration;

use fake::{CLUSTER, Fake, Twist};
use tally_client::log_server::{Identity, StartUp, Started, start};
use tally_client::{
    By, Client, ClusterId, Error, Marker, MarkerFile, MarkerFileError, SetState, StorageState,
    marker_file,
};
use tally_model::{RetryCheck, Settings};
use tempfile::TempDir;

fn client(fake: &Fake) -> Client {
    let builder = Client::builder().endpoints(fake.endpoints());
    builder
        .attempt_max(Duration::from_millis(300))
        .build()
        .unwrap()
}

fn start_up(dir: &Path) -> StartUp {
    StartUp {
        dir: dir.join("data"),
        name: "ls1".to_owned(),
        address: "127.0.0.1:1".to_owned(),
        location: "eu.a".to_owned(),
    }
}

/// The marker on disk.
fn marker(dir: &Path) -> Option<Marker> {
    let file = marker_file::read(&dir.join("data")).unwrap();
    file.map(|file| file.marker)
}

/// Every file in the data directory, ascending.
fn files(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir.join("data")).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// A disk that belongs to a log server of this name in this cluster.
fn disk_of(name: &str, cluster: ClusterId) -> (TempDir, MarkerFile) {
    let dir = tempfile::tempdir().unwrap();
    let file = MarkerFile {
        name: name.to_owned(),
        cluster,
        marker: tally_client::fresh_marker(),
    };
    marker_file::create(&dir.path().join("data"), &file).unwrap();
    (dir, file)
}

async fn started(fake: &Fake, dir: &Path) -> Result<Started, Error> {
    start(&client(fake), start_up(dir)).await
}

async fn applied(fake: &Fake, dir: &Path) -> Identity {
    match started(fake, dir).await.unwrap() {
        Started::Applied { identity, .. } => identity,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_first_start_makes_a_marker_and_is_applied() {
    let (fake, dir) = (Fake::start(3).await, tempfile::tempdir().unwrap());
    let identity = applied(&fake, dir.path()).await;
    assert_eq!((identity.node, identity.incarnation), (1, 1));
    let file = marker_file::read(&dir.path().join("data"))
        .unwrap()
        .unwrap();
    assert_eq!((file.name.as_str(), file.cluster), ("ls1", CLUSTER));
    let on_disk = Some(file.marker);
    assert_eq!(on_disk, Some(identity.marker));
    let node = fake.node("ls1").unwrap();
    assert_eq!(node.binding.map(|bound| bound.marker), on_disk);
    assert_eq!(node.storage_state, StorageState::ReadWrite);
    assert_eq!(
        fake.sessions_opened(),
        1,
        "one session, under the log server's own marker"
    );
}

#[tokio::test]
async fn an_activation_whose_answer_was_lost_is_replayed() {
    let (fake, dir) = (Fake::start(3).await, tempfile::tempdir().unwrap());
    fake.plan([Twist::Serve, Twist::Silence]);
    let Started::Replayed { identity, now, .. } = started(&fake, dir.path()).await.unwrap() else {
        panic!("expected replayed");
    };
    assert_eq!((identity.incarnation, now), (1, StorageState::ReadWrite));
    let tags = fake.tags("activate");
    assert_eq!((tags.len(), tags[0]), (2, tags[1]));
    assert_eq!(fake.history().len(), 2, "one registration, one transition");
}

#[tokio::test]
async fn a_second_start_is_replayed_with_the_state_of_now() {
    let (fake, dir) = (Fake::start(1).await, tempfile::tempdir().unwrap());
    let identity = applied(&fake, dir.path()).await;
    let read_only = SetState {
        node: identity.node,
        to: StorageState::ReadOnly,
        by: By::Node {
            marker: identity.marker,
            incarnation: identity.incarnation,
        },
        reason: "disk full".to_owned(),
    };
    identity.client.set_state(read_only).await.unwrap();
    drop(identity);
    let Started::Replayed {
        identity,
        since,
        now,
    } = started(&fake, dir.path()).await.unwrap()
    else {
        panic!("expected replayed");
    };
    assert_eq!(
        (identity.incarnation, since, now),
        (2, 3, StorageState::ReadOnly)
    );
}

#[tokio::test]
async fn a_start_that_died_before_its_activation_goes_on_with_its_marker() {
    let (fake, dir) = (Fake::start(1).await, tempfile::tempdir().unwrap());
    fake.plan([Twist::Serve]);
    fake.otherwise(Twist::DropRequest);
    let short = client(&fake).with_deadline(Duration::from_millis(500));
    let error = start(&short, start_up(dir.path())).await.unwrap_err();
    assert!(matches!(error, Error::Unknown { .. }), "{error:?}");
    let on_disk = marker(dir.path()).unwrap();
    fake.otherwise(Twist::Serve);
    let identity = applied(&fake, dir.path()).await;
    assert_eq!((identity.incarnation, identity.marker), (2, on_disk));
}

#[tokio::test]
async fn another_marker_is_a_conflict() {
    let (fake, dir) = (Fake::start(1).await, tempfile::tempdir().unwrap());
    applied(&fake, dir.path()).await;
    let (stranger, file) = disk_of("ls1", CLUSTER);
    let Started::Conflict { refused } = started(&fake, stranger.path()).await.unwrap() else {
        panic!("expected a conflict");
    };
    assert_eq!(refused.code, "T-310");
    assert!(refused.is_marker_conflict());
    let kept = marker_file::read(&stranger.path().join("data")).unwrap();
    assert_eq!(kept, Some(file), "the stranger's marker is left alone");
}

#[tokio::test]
async fn a_lost_marker_is_lost_data_and_none_is_written() {
    let (fake, dir) = (Fake::start(1).await, tempfile::tempdir().unwrap());
    applied(&fake, dir.path()).await;
    let data = dir.path().join("data");
    std::fs::remove_dir_all(&data).unwrap();
    for _ in 0..2 {
        let Started::DataLost { refused } = started(&fake, dir.path()).await.unwrap() else {
            panic!("expected lost data");
        };
        assert_eq!(refused.code, "T-311");
        assert_eq!(files(dir.path()), ["LOCK"]);
    }
    assert_eq!(
        fake.node("ls1").unwrap().incarnation.0,
        1,
        "the owner is not fenced"
    );
}

#[tokio::test]
async fn a_node_out_of_use_is_disabled() {
    let (fake, dir) = (Fake::start(1).await, tempfile::tempdir().unwrap());
    let node = applied(&fake, dir.path()).await.node;
    for state in [
        StorageState::Disabled,
        StorageState::Gone,
        StorageState::Removed,
    ] {
        let force = SetState {
            node,
            to: state,
            by: By::Operator {
                expected_revision: None,
                force: Some("ls1".to_owned()),
            },
            reason: "decommissioned".to_owned(),
        };
        let forced = client(&fake).set_state(force).await.unwrap();
        assert!(forced.refused().is_none(), "{forced:?}");
        let Started::Disabled { state: found, .. } = started(&fake, dir.path()).await.unwrap()
        else {
            panic!("expected disabled");
        };
        assert_eq!(found, state);
    }
}

#[tokio::test]
async fn a_node_disabled_before_its_first_activation_is_disabled() {
    let (fake, dir) = (Fake::start(1).await, tempfile::tempdir().unwrap());
    let operator = client(&fake);
    operator
        .register(tally_client::Register::new("ls1"))
        .await
        .unwrap();
    let disable = SetState {
        node: 1,
        to: StorageState::Disabled,
        by: By::Operator {
            expected_revision: Some(2),
            force: None,
        },
        reason: String::new(),
    };
    assert!(
        operator
            .set_state(disable)
            .await
            .unwrap()
            .refused()
            .is_none()
    );
    let ended = started(&fake, dir.path()).await.unwrap();
    assert!(
        matches!(
            ended,
            Started::Disabled {
                state: StorageState::Disabled,
                ..
            }
        ),
        "{ended:?}"
    );
}

#[tokio::test]
async fn a_damaged_marker_stops_the_start_before_anything_is_sent() {
    let (fake, dir) = (Fake::start(1).await, tempfile::tempdir().unwrap());
    let data = dir.path().join("data");
    std::fs::create_dir(&data).unwrap();
    std::fs::write(data.join(marker_file::FILE_NAME), "{").unwrap();
    let error = started(&fake, dir.path()).await.unwrap_err();
    assert!(
        matches!(error, Error::MarkerFile(MarkerFileError::Damaged { .. })),
        "{error:?}"
    );
    assert!(error.to_string().contains("MARKER"), "{error}");
    assert_eq!(fake.sessions_opened(), 0);
}

/// A directory that is someone else's is refused before anything is asked, and stays as it was.
async fn refused_as_foreign(fake: &Fake, (dir, file): (TempDir, MarkerFile), named: &[String]) {
    let error = started(fake, dir.path()).await.unwrap_err();
    let said = error.to_string();
    assert!(named.iter().all(|part| said.contains(part)), "{said}");
    assert!(said.contains("MARKER"), "{said}");
    assert_eq!(error.code(), "T-012");
    assert_eq!((fake.seen().len(), fake.sessions_opened()), (0, 0));
    let kept = marker_file::read(&dir.path().join("data")).unwrap();
    assert_eq!(kept, Some(file));
}

#[tokio::test]
async fn a_directory_never_becomes_a_node_of_another_name() {
    let fake = Fake::start(1).await;
    let named = ["\"ls1\"", "\"ls2\""].map(str::to_owned);
    refused_as_foreign(&fake, disk_of("ls2", CLUSTER), &named).await;
}

#[tokio::test]
async fn a_directory_never_becomes_a_node_of_another_cluster() {
    let fake = Fake::start(2).await;
    let named = [ClusterId(8).to_string(), CLUSTER.to_string()];
    refused_as_foreign(&fake, disk_of("ls1", ClusterId(8)), &named).await;
}

#[tokio::test]
async fn of_two_clusters_behind_one_list_of_endpoints_the_wrong_one_refuses() {
    let fake = Fake::start(1).await;
    let other = Fake::founded(1, ClusterId(8), Settings::default()).await;
    let mut register = tally_client::Register::new("ls1");
    register.cluster_id = Some(CLUSTER.0);
    let error = client(&other).register(register.clone()).await.unwrap_err();
    assert_eq!(error.code(), "T-005");
    assert!(client(&fake).register(register).await.is_ok());
}

#[tokio::test]
async fn of_two_starts_at_once_on_a_fresh_directory_one_is_told_of_the_other() {
    for _ in 0..10 {
        let (fake, dir) = (Fake::start(1).await, tempfile::tempdir().unwrap());
        let (one, two) = tokio::join!(started(&fake, dir.path()), started(&fake, dir.path()));
        let (won, lost) = match (one, two) {
            (Ok(won), Err(lost)) | (Err(lost), Ok(won)) => (won, lost),
            both => panic!("{both:?}"),
        };
        assert!(matches!(won, Started::Applied { .. }), "{won:?}");
        assert_eq!(lost.code(), "T-013", "{lost}");
        assert_eq!(fake.tags("register").len(), 1);
        assert_eq!(fake.node("ls1").unwrap().incarnation.0, 1);
    }
}

#[tokio::test]
async fn a_directory_is_held_as_long_as_its_log_server_lives() {
    let (fake, dir) = (Fake::start(1).await, tempfile::tempdir().unwrap());
    let identity = applied(&fake, dir.path()).await;
    let clone = identity.clone();
    drop(identity);
    let error = started(&fake, dir.path()).await.unwrap_err();
    assert!(matches!(error, Error::DirectoryLocked { .. }), "{error:?}");
    drop(clone);
    assert!(started(&fake, dir.path()).await.is_ok());
}

#[tokio::test]
async fn a_directory_that_cannot_be_used_is_found_before_anything_is_sent() {
    let (fake, dir) = (Fake::start(1).await, tempfile::tempdir().unwrap());
    std::fs::write(dir.path().join("data"), "a file").unwrap();
    let error = started(&fake, dir.path()).await.unwrap_err();
    assert_eq!(error.code(), "T-015", "{error}");
    assert!(error.to_string().contains("data"), "{error}");
    assert_eq!((fake.seen().len(), fake.sessions_opened()), (0, 0));
}

async fn relaxed() -> Fake {
    let settings = Settings {
        retry_check: RetryCheck::Relaxed,
        ..Settings::default()
    };
    Fake::founded(1, CLUSTER, settings).await
}

#[tokio::test]
async fn a_relaxed_cluster_is_told_that_an_earlier_process_may_have_activated() {
    let (fake, dir) = (relaxed().await, tempfile::tempdir().unwrap());
    // The first process dies between the commit of its activation and the answer.
    fake.plan([Twist::Serve, Twist::DropAnswer]);
    fake.otherwise(Twist::DropRequest);
    let short = client(&fake).with_deadline(Duration::from_millis(500));
    let error = start(&short, start_up(dir.path())).await.unwrap_err();
    assert!(matches!(error, Error::Unknown { .. }), "{error:?}");
    fake.otherwise(Twist::Serve);
    let ended = started(&fake, dir.path()).await.unwrap();
    assert!(matches!(ended, Started::Replayed { .. }), "{ended:?}");
}

#[tokio::test]
async fn a_node_that_was_moved_elsewhere_is_refused_and_no_conflict() {
    let (fake, dir) = (relaxed().await, tempfile::tempdir().unwrap());
    let identity = applied(&fake, dir.path()).await;
    let read_only = SetState {
        node: identity.node,
        to: StorageState::ReadOnly,
        by: By::Operator {
            expected_revision: None,
            force: Some("ls1".to_owned()),
        },
        reason: "disk swap".to_owned(),
    };
    let forced = identity.client.set_state(read_only).await.unwrap();
    assert!(forced.refused().is_none(), "{forced:?}");
    drop(identity);
    let error = started(&fake, dir.path()).await.unwrap_err();
    assert!(
        matches!(&error, Error::Rejected { code, .. } if code == "T-330"),
        "{error:?}"
    );
}
