//! Whose directory it is, and who has it open.

use std::fs;
use std::path::Path;

use tally_model::{ClusterId, MemberId};
use tally_storage::{DataDir, JoinError, OpenError, OpenOptions};

use crate::member::{Member, options};

fn open(path: &Path) -> Result<DataDir, OpenError> {
    DataDir::open(path, &options())
}

#[test]
fn an_empty_directory_is_formatted_once() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("data");
    let first = open(&path).unwrap();
    assert!(first.was_empty());
    assert_eq!(first.member(), MemberId(7));
    assert_eq!(first.cluster(), None);
    drop(first);

    let again = OpenOptions {
        fresh_member: MemberId(8),
        ..options()
    };
    let second = DataDir::open(&path, &again).unwrap();
    assert!(!second.was_empty());
    assert_eq!(second.member(), MemberId(7), "a member id is given once");
    assert_eq!(second.identity().formation, b"formation");
}

#[test]
fn a_cluster_is_joined_for_ever() {
    let directory = tempfile::tempdir().unwrap();
    let data = open(directory.path()).unwrap();
    data.join(ClusterId(5)).unwrap();
    data.join(ClusterId(5)).unwrap();
    assert!(matches!(
        data.join(ClusterId(6)),
        Err(JoinError::OtherCluster { .. })
    ));
    drop(data);
    assert_eq!(
        open(directory.path()).unwrap().cluster(),
        Some(ClusterId(5))
    );
}

#[test]
fn a_second_open_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let held = open(directory.path()).unwrap();
    assert_eq!(open(directory.path()).err().unwrap().code(), "T-013");
    drop(held);
    open(directory.path()).unwrap();
}

#[test]
fn the_stores_keep_the_directory_locked() {
    let directory = tempfile::tempdir().unwrap();
    let Member {
        directory: data,
        log,
        state,
        ..
    } = Member::open(directory.path());
    drop((data, log));
    assert_eq!(open(directory.path()).err().unwrap().code(), "T-013");
    drop(state);
    open(directory.path()).unwrap();
}

#[test]
fn another_name_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    drop(open(directory.path()).unwrap());
    let other = OpenOptions {
        name: "n2".to_owned(),
        ..options()
    };
    let error = DataDir::open(directory.path(), &other).err().unwrap();
    assert_eq!(error.code(), "T-012");
    assert!(
        error
            .to_string()
            .ends_with("belongs to member n1, expected n2"),
        "{error}"
    );
}

#[test]
fn a_newer_format_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    drop(open(directory.path()).unwrap());
    let path = directory.path().join("IDENTITY");
    let mut content = fs::read(&path).unwrap();
    // The payload begins with field 1, the format, as a varint.
    assert_eq!(content[16..18], [8, 3]);
    content[17] = 4;
    let checksum = crc32c::crc32c(&content[16..]);
    content[12..16].copy_from_slice(&checksum.to_be_bytes());
    fs::write(&path, content).unwrap();
    let error = open(directory.path()).err().unwrap();
    assert_eq!(error.code(), "T-012");
    assert!(
        error.to_string().contains("has format 4, expected 3"),
        "{error}"
    );
}

#[test]
fn any_flipped_bit_of_the_identity_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    drop(open(directory.path()).unwrap());
    let path = directory.path().join("IDENTITY");
    let sound = fs::read(&path).unwrap();
    for position in 0..sound.len() {
        let mut flipped = sound.clone();
        flipped[position] ^= 0x10;
        fs::write(&path, &flipped).unwrap();
        let error = open(directory.path()).err().unwrap();
        assert_eq!(error.code(), "T-018", "byte {position}: {error}");
        assert!(error.next().contains("tally member replace n1"));
    }
    fs::write(&path, &sound).unwrap();
    open(directory.path()).unwrap();
}

#[test]
fn a_lost_identity_beside_data_is_damage() {
    let directory = tempfile::tempdir().unwrap();
    drop(Member::open(directory.path()));
    fs::remove_file(directory.path().join("IDENTITY")).unwrap();
    assert_eq!(open(directory.path()).err().unwrap().code(), "T-018");
}
