//! What a disk may do to the log, and that it is noticed before the member votes.

use std::fs;
use std::path::{Path, PathBuf};

use tally_storage::{DataDir, LogOptions, LogStore, OpenError};

use crate::member::{Member, append, options, recorder};
use crate::script::{MARKER_A, blank, id, proposal, register, tagged};

fn open(path: &Path) -> Result<LogStore, OpenError> {
    DataDir::open(path, &options())?.open_log(LogOptions::new(recorder().0))
}

fn refusal(path: &Path) -> OpenError {
    open(path).expect_err("the log is refused")
}

fn refused_for(path: &Path, why: &str) {
    let error = refusal(path);
    assert!(error.to_string().contains(why), "{error}");
}

/// The largest write-ahead log file: the one that holds the entries.
fn write_ahead_log(path: &Path) -> PathBuf {
    let files = fs::read_dir(path.join("log"))
        .unwrap()
        .map(|entry| entry.unwrap().path());
    files
        .filter(|file| file.extension().is_some_and(|extension| extension == "log"))
        .max_by_key(|file| fs::metadata(file).unwrap().len())
        .unwrap()
}

fn fill(path: &Path, range: std::ops::Range<u64>) {
    let log = open(path).unwrap();
    for index in range {
        append(
            &log,
            &[proposal(
                index,
                index,
                tagged(2, 1, 1, MARKER_A, register("ls1", MARKER_A)),
            )],
        )
        .unwrap();
    }
}

#[test]
fn a_flipped_byte_anywhere_in_the_log_is_noticed() {
    let directory = tempfile::tempdir().unwrap();
    let sound = directory.path().join("sound");
    fill(&sound, 0..20);
    let length = fs::metadata(write_ahead_log(&sound)).unwrap().len() as usize;
    for position in (0..length).step_by(length / 16) {
        let flipped = directory.path().join(position.to_string());
        crate::member::copy_directory(&sound, &flipped);
        let file = write_ahead_log(&flipped);
        let mut content = fs::read(&file).unwrap();
        content[position] ^= 0x40;
        fs::write(&file, content).unwrap();
        let error = refusal(&flipped);
        assert_eq!(error.code(), "T-018", "byte {position}: {error}");
        assert!(
            error.next().contains("tally member replace n1"),
            "{}",
            error.next()
        );
    }
}

#[test]
fn a_torn_tail_below_the_floor_is_damage_and_stays_so() {
    let directory = tempfile::tempdir().unwrap();
    fill(directory.path(), 0..20);
    let file = write_ahead_log(directory.path());
    let length = fs::metadata(&file).unwrap().len();
    fs::OpenOptions::new()
        .write(true)
        .open(&file)
        .unwrap()
        .set_len(length - 10)
        .unwrap();
    let error = refusal(directory.path());
    assert_eq!(error.code(), "T-018");
    assert!(
        error
            .to_string()
            .contains("ends at entry 18, and entry 19 was acknowledged"),
        "{error}"
    );
    assert_eq!(
        refusal(directory.path()).code(),
        "T-018",
        "opening again does not heal it"
    );
}

#[test]
fn a_torn_tail_above_the_floor_is_what_a_crash_leaves() {
    let directory = tempfile::tempdir().unwrap();
    fill(directory.path(), 0..20);
    let floor = directory.path().join("FLOOR");
    let earlier = fs::read(&floor).unwrap();
    fill(directory.path(), 20..25);
    fs::write(&floor, earlier).unwrap();
    let file = write_ahead_log(directory.path());
    let length = fs::metadata(&file).unwrap().len();
    fs::OpenOptions::new()
        .write(true)
        .open(&file)
        .unwrap()
        .set_len(length - 10)
        .unwrap();
    let log = open(directory.path()).unwrap();
    assert_eq!(log.bounds().last, Some(id(23)));
    append(&log, &[blank(24)]).unwrap();
}

#[test]
fn a_lost_log_is_damage() {
    let directory = tempfile::tempdir().unwrap();
    fill(directory.path(), 0..3);
    fs::remove_dir_all(directory.path().join("log")).unwrap();
    refused_for(
        directory.path(),
        "holds no entry, and entry 2 was acknowledged",
    );
}

#[test]
fn a_lost_or_unreadable_floor_is_damage() {
    let directory = tempfile::tempdir().unwrap();
    fill(directory.path(), 0..3);
    let floor = directory.path().join("FLOOR");
    fs::write(&floor, vec![0; 8192]).unwrap();
    assert_eq!(refusal(directory.path()).code(), "T-018");
    fs::remove_file(&floor).unwrap();
    assert_eq!(refusal(directory.path()).code(), "T-018");
}

#[test]
fn a_log_restored_from_an_older_copy_is_damage() {
    let directory = tempfile::tempdir().unwrap();
    fill(directory.path(), 0..3);
    let older = tempfile::tempdir().unwrap();
    crate::member::copy_directory(&directory.path().join("log"), older.path());
    fill(directory.path(), 3..6);
    fs::remove_dir_all(directory.path().join("log")).unwrap();
    crate::member::copy_directory(older.path(), &directory.path().join("log"));
    refused_for(
        directory.path(),
        "ends at entry 2, and entry 5 was acknowledged",
    );
}

#[test]
fn a_truncation_below_the_floor_lowers_it_first() {
    let directory = tempfile::tempdir().unwrap();
    fill(directory.path(), 0..20);
    let log = open(directory.path()).unwrap();
    let (done, truncated) = crate::member::outcome();
    log.truncate_after(Some(4), done);
    crate::member::wait(&truncated).unwrap();
    let crashed = tempfile::tempdir().unwrap();
    crate::member::copy_directory(directory.path(), crashed.path());
    assert_eq!(open(crashed.path()).unwrap().bounds().last, Some(id(4)));
}

#[test]
fn a_lost_state_whose_log_is_purged_is_damage() {
    let directory = tempfile::tempdir().unwrap();
    let member = Member::open(directory.path());
    member.append(&crate::script::history());
    member.replay();
    drop(member.state.build_snapshot().unwrap());
    let (done, purged) = crate::member::outcome();
    member.log.purge(id(8), done);
    crate::member::wait(&purged).unwrap();
    drop(member);
    fs::remove_dir_all(directory.path().join("state")).unwrap();
    let error = Member::try_open(directory.path()).err().unwrap();
    assert_eq!(error.code(), "T-018");
    assert!(
        error
            .to_string()
            .contains("applied nothing, and the log is purged up to 8"),
        "{error}"
    );
}
