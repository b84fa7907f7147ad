//! A snapshot on its way from one member to another.

use std::fs;
use std::io;
use std::path::Path;

use tally_proto::storage::SnapshotFile;
use tally_storage::{Snapshot, SnapshotPiece, StateStore};

use crate::flips::{files_below, flip, more};
use crate::member::Member;
use crate::restart::everything;
use crate::script::{blank, history, id};

const CHUNK_BYTES: usize = 700;

fn pieces(snapshot: &Snapshot) -> Vec<SnapshotPiece> {
    snapshot
        .frames(CHUNK_BYTES)
        .map(|piece| piece.expect("the snapshot is sound"))
        .collect()
}

fn receive(
    state: &StateStore,
    snapshot: &Snapshot,
    pieces: &[SnapshotPiece],
) -> io::Result<Snapshot> {
    let mut receiver = state.receive(snapshot.meta().clone())?;
    for piece in pieces {
        match piece {
            SnapshotPiece::Chunk { file, offset, data } => receiver.write(file, *offset, data)?,
            SnapshotPiece::End { digest } => return receiver.finish(digest),
        }
    }
    Err(io::Error::other("no end"))
}

/// A member that has applied the history.
fn leader(path: &Path) -> Member {
    let member = Member::open(path);
    for entry in history() {
        member.state.apply(&entry).unwrap();
    }
    member
}

fn left_in(path: &Path) -> Vec<String> {
    let names = fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap().file_name());
    names
        .map(|name| name.to_string_lossy().into_owned())
        .collect()
}

#[test]
fn a_snapshot_is_the_state_that_it_was_made_of() {
    let directory = tempfile::tempdir().unwrap();
    let leader = leader(&directory.path().join("leader"));
    let follower = Member::open(&directory.path().join("follower"));
    follower.state.apply(&blank(0)).unwrap();
    let expected = everything(&leader.state);
    let snapshot = leader.state.build_snapshot().unwrap();
    leader.state.apply(&blank(17)).unwrap();

    let sent = pieces(&snapshot);
    assert!(sent.len() > 3, "several chunks");
    let received = receive(&follower.state, &snapshot, &sent).unwrap();
    assert_eq!(received.digest(), snapshot.digest());
    assert_eq!(
        follower.state.applied().last_applied,
        Some(id(0)),
        "not yet installed"
    );
    follower.state.install(&received).unwrap();
    assert_eq!(everything(&follower.state), expected);
    assert_eq!(
        follower.state.current_snapshot().unwrap().meta(),
        snapshot.meta()
    );

    follower.state.apply(&blank(17)).unwrap();
    assert_eq!(follower.state.state_hash(), leader.state.state_hash());
    drop((received, follower));
    let follower = Member::open(&directory.path().join("follower"));
    assert_eq!(everything(&follower.state), everything(&leader.state));
    assert_eq!(
        left_in(&directory.path().join("follower/state")).len(),
        2,
        "one generation and the pointer"
    );
}

#[test]
fn views_outlive_the_generation_that_they_were_opened_on() {
    let directory = tempfile::tempdir().unwrap();
    let leader = leader(&directory.path().join("leader"));
    let follower = Member::open(&directory.path().join("follower"));
    follower.state.apply(&blank(0)).unwrap();
    let snapshot = leader.state.build_snapshot().unwrap();
    let received = receive(&follower.state, &snapshot, &pieces(&snapshot)).unwrap();
    follower
        .state
        .with_view(|view| {
            follower.state.install(&received).unwrap();
            assert_eq!(view.applied().last_applied, Some(id(0)));
        })
        .unwrap();
    let generations = left_in(&directory.path().join("follower/state"));
    assert!(
        !generations.contains(&"gen-1".to_owned()),
        "{generations:?}"
    );
}

#[test]
fn every_kind_of_damage_on_the_way_is_refused_and_nothing_is_installed() {
    let directory = tempfile::tempdir().unwrap();
    let leader = leader(&directory.path().join("leader"));
    let follower = Member::open(&directory.path().join("follower"));
    follower.state.apply(&blank(0)).unwrap();
    let before = everything(&follower.state);
    let snapshot = leader.state.build_snapshot().unwrap();
    let sound = pieces(&snapshot);

    let mut corrupted = sound.clone();
    let SnapshotPiece::Chunk { data, .. } = &mut corrupted[1] else {
        panic!("the second piece is a chunk");
    };
    let mut bytes = data.to_vec();
    bytes[0] ^= 1;
    *data = bytes.into();
    let mut without_a_chunk = sound.clone();
    without_a_chunk.remove(1);
    let mut repeated = sound.clone();
    repeated.insert(1, sound[0].clone());
    let mut swapped = sound.clone();
    swapped.swap(0, 1);
    let without_a_file: Vec<_> = sound
        .iter()
        .filter(|piece| !matches!(piece, SnapshotPiece::Chunk { file, .. } if file == "CURRENT"))
        .cloned()
        .collect();
    let cut_short = [&sound[..1], &sound[sound.len() - 1..]].concat();
    for pieces in [
        corrupted,
        without_a_chunk,
        repeated,
        swapped,
        without_a_file,
        cut_short,
    ] {
        let error = receive(&follower.state, &snapshot, &pieces).err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
    }
    assert_eq!(everything(&follower.state), before);
    assert!(follower.state.current_snapshot().is_none());
    assert_eq!(follower.state.failed(), None);
    let left = left_in(&directory.path().join("follower/snapshots"));
    assert!(left.is_empty(), "what was refused is gone: {left:?}");
    receive(&follower.state, &snapshot, &sound).unwrap();
}

#[test]
fn metadata_that_lies_about_the_state_is_refused_at_installation() {
    let directory = tempfile::tempdir().unwrap();
    let leader = leader(&directory.path().join("leader"));
    let follower = Member::open(&directory.path().join("follower"));
    let snapshot = leader.state.build_snapshot().unwrap();
    let mut meta = snapshot.meta().clone();
    meta.state_hash[0] ^= 1;
    let mut receiver = follower.state.receive(meta).unwrap();
    let mut received = None;
    for piece in pieces(&snapshot) {
        match piece {
            SnapshotPiece::Chunk { file, offset, data } => {
                receiver.write(&file, offset, &data).unwrap()
            }
            SnapshotPiece::End { digest } => {
                received = Some(receiver.finish(&digest).unwrap());
                break;
            }
        }
    }
    let error = follower.state.install(&received.unwrap()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
    assert_eq!(follower.state.failed(), None);
    follower.state.apply(&blank(0)).unwrap();
}

#[test]
fn names_that_leave_the_directory_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let leader = leader(&directory.path().join("leader"));
    let meta = leader.state.build_snapshot().unwrap().meta().clone();
    for name in ["../IDENTITY", "/etc/passwd", "..", "", ".hidden", "a/b"] {
        let mut hostile = meta.clone();
        hostile.files = vec![SnapshotFile {
            name: name.to_owned(),
            length: 1,
        }];
        assert!(leader.state.receive(hostile).is_err(), "{name:?}");
    }
    let mut twice = meta.clone();
    twice.files.push(meta.files[meta.files.len() - 1].clone());
    assert!(leader.state.receive(twice).is_err());
}

#[test]
fn an_older_snapshot_does_not_take_the_state_back() {
    let directory = tempfile::tempdir().unwrap();
    let leader = leader(&directory.path().join("leader"));
    let old = leader.state.build_snapshot().unwrap();
    leader.state.apply(&blank(17)).unwrap();
    let error = leader.state.install(&old).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    assert_eq!(leader.state.applied().last_applied, Some(id(17)));
}

#[test]
fn a_snapshot_that_rots_on_disk_is_not_sent_as_sound() {
    let directory = tempfile::tempdir().unwrap();
    let leader = leader(directory.path());
    let snapshot = leader.state.build_snapshot().unwrap();
    let path = directory.path().join("snapshots/snap-1/files");
    let largest = fs::read_dir(&path)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .max_by_key(|file| fs::metadata(file).unwrap().len())
        .unwrap();
    let mut content = fs::read(&largest).unwrap();
    content[0] ^= 1;
    fs::write(&largest, content).unwrap();
    let last = snapshot.frames(CHUNK_BYTES).last().unwrap();
    assert!(last.is_err(), "{last:?}");
}

/// Receives as a member does.
fn receive_as_member(
    state: &StateStore,
    snapshot: &Snapshot,
    pieces: &[SnapshotPiece],
) -> io::Result<Snapshot> {
    let mut receiver = state.receive(snapshot.meta().clone())?;
    for piece in pieces {
        match piece {
            SnapshotPiece::Chunk { file, offset, data } => {
                state.receive_chunk(&mut receiver, file, *offset, data)?;
            }
            SnapshotPiece::End { digest } => return state.receive_end(receiver, digest),
        }
    }
    Err(io::Error::other("no end"))
}

#[test]
fn a_snapshot_of_a_state_that_had_rotted_is_refused_and_its_sender_learns_of_it() {
    let directory = tempfile::tempdir().unwrap();
    let leader = leader(&directory.path().join("leader"));
    let follower = Member::open(&directory.path().join("follower"));
    follower.state.apply(&blank(0)).unwrap();
    for entry in more(17..150) {
        leader.state.apply(&entry).unwrap();
    }
    leader.state.flush().unwrap();
    let table = files_below(&directory.path().join("leader/state/gen-1"))
        .into_iter()
        .find(|file| file.extension().is_some_and(|extension| extension == "sst"))
        .unwrap();
    // Beyond the rows that say where the state stands, which are looked at first.
    flip(&table, fs::metadata(&table).unwrap().len() as usize * 8 / 2);
    let snapshot = leader.state.build_snapshot().unwrap();
    let sent = pieces(&snapshot);

    let error = receive_as_member(&follower.state, &snapshot, &sent).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
    assert!(
        error.to_string().contains(".sst"),
        "names the file: {error}"
    );
    assert_eq!(follower.state.failed(), None);
    assert_eq!(follower.state.applied().last_applied, Some(id(0)));
    let left = left_in(&directory.path().join("follower/snapshots"));
    assert!(left.is_empty(), "what was refused is gone: {left:?}");

    assert_eq!(leader.state.failed(), None);
    leader.state.refused_elsewhere(&snapshot);
    let failed = leader.state.failed().unwrap();
    assert!(failed.contains("a snapshot is damaged"), "{failed}");
}

#[test]
fn a_sound_snapshot_is_received_and_installed_again_and_again() {
    let directory = tempfile::tempdir().unwrap();
    let leader = leader(&directory.path().join("leader"));
    let follower = Member::open(&directory.path().join("follower"));
    let snapshot = leader.state.build_snapshot().unwrap();
    let sent = pieces(&snapshot);
    for _ in 0..3 {
        let received = receive_as_member(&follower.state, &snapshot, &sent).unwrap();
        follower.state.install(&received).unwrap();
        assert_eq!(everything(&follower.state), everything(&leader.state));
    }
    leader.state.refused_elsewhere(&snapshot);
    assert_eq!(
        leader.state.failed(),
        None,
        "it was refused for another reason"
    );
    assert_eq!(
        left_in(&directory.path().join("follower/snapshots")).len(),
        1
    );
}

#[test]
fn a_newer_snapshot_replaces_the_old_one_when_nobody_reads_it_any_more() {
    let directory = tempfile::tempdir().unwrap();
    let leader = leader(directory.path());
    let first = leader.state.build_snapshot().unwrap();
    assert_eq!(
        first.digest(),
        leader.state.build_snapshot().unwrap().digest(),
        "nothing was applied"
    );
    leader.state.apply(&blank(17)).unwrap();
    let second = leader.state.build_snapshot().unwrap();
    assert_eq!(second.meta().applied, Some(leader.state.applied()));
    assert!(
        matches!(pieces(&first).last(), Some(SnapshotPiece::End { .. })),
        "it is still there"
    );
    drop(first);
    assert_eq!(left_in(&directory.path().join("snapshots")).len(), 1);
}

#[test]
fn a_snapshot_that_shares_files_with_the_one_before_it_arrives_whole() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("leader");
    let leader = leader(&path);
    leader.state.build_snapshot().unwrap();
    for (round, entry) in more(17..22).iter().enumerate() {
        leader.state.apply(entry).unwrap();
        let snapshot = leader.state.build_snapshot().unwrap();
        let follower = Member::open(&directory.path().join(format!("follower-{round}")));
        let received = receive(&follower.state, &snapshot, &pieces(&snapshot)).unwrap();
        follower.state.install(&received).unwrap();
        assert_eq!(everything(&follower.state), everything(&leader.state));
    }
    let expected = everything(&leader.state);
    drop(leader);
    assert_eq!(everything(&Member::open(&path).state), expected);
}

/// A file that stands in one snapshot after another keeps the digest that it had when it was new: damage
/// that came later is found, whichever snapshot is sent.
#[test]
fn damage_to_a_file_that_an_earlier_snapshot_holds_is_found_in_a_later_one() {
    let directory = tempfile::tempdir().unwrap();
    let leader = leader(directory.path());
    let first = leader.state.build_snapshot().unwrap();
    let table = files_below(&directory.path().join("snapshots"))
        .into_iter()
        .find(|file| file.extension().is_some_and(|kind| kind == "sst"))
        .expect("the snapshot has a table file");
    // Where the state stands is read when a snapshot is made, and is in a newer table then.
    for entry in more(17..18) {
        leader.state.apply(&entry).unwrap();
    }
    flip(&table, 8 * 20);
    let second = leader.state.build_snapshot().unwrap();
    for snapshot in [first, second] {
        let broken = snapshot.frames(CHUNK_BYTES).find_map(Result::err);
        let broken = broken.expect("damage is found").to_string();
        assert!(broken.contains("damaged"), "{broken}");
    }
}

#[test]
fn a_received_snapshot_that_was_never_installed_is_gone_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let leader = leader(&directory.path().join("leader"));
    let path = directory.path().join("follower");
    let follower = Member::open(&path);
    let snapshot = leader.state.build_snapshot().unwrap();
    let received = receive(&follower.state, &snapshot, &pieces(&snapshot)).unwrap();
    let crashed = directory.path().join("crashed");
    crate::member::copy_directory(&path, &crashed);
    drop(received);
    let follower = Member::open(&crashed);
    assert!(follower.state.current_snapshot().is_none());
    assert!(left_in(&crashed.join("snapshots")).is_empty());
}
