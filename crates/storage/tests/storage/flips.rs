//! One flipped bit in any file of a member: the member notices and stops, or nothing is different.
//!
//! `TALLY_TEST_LONG` flips more, `TALLY_TEST_SEED` flips the same again.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tally_model::View;
use tally_proto::storage::{LogEntry, Vote};
use tally_storage::{LogBounds, SnapshotPiece};

use crate::member::{Member, copy_directory, outcome, wait};
use crate::restart::{Everything, everything};
use crate::script::{MARKER_A, history, id, proposal, register, tagged};

/// Bits of each file that are flipped, one at a time.
const FLIPS_SHORT: usize = 8;
const FLIPS_LONG: usize = 200;
const THREADS: usize = 2;

/// What a member holds.
#[derive(Debug, PartialEq)]
struct Content {
    bounds: LogBounds,
    vote: Option<Vote>,
    entries: Vec<LogEntry>,
    state: Everything,
    snapshot: [u8; 32],
}

/// Opens a directory, completes the state from the log and reads everything.
fn content(path: &Path) -> Result<Content, String> {
    let member = Member::try_open(path).map_err(|error| {
        assert_eq!(error.code(), "T-018", "{error}");
        assert!(error.next().contains("tally member replace n1"), "{error}");
        let within = path.to_string_lossy().into_owned();
        assert!(error.to_string().starts_with(&within), "{error}");
        error.to_string()
    })?;
    let said = |error: std::io::Error| error.to_string();
    let entries = member.log.read(0..u64::MAX, usize::MAX).map_err(said)?;
    let applied = member.state.applied().last_applied;
    for entry in &entries {
        if entry.id.map(|id| id.index) > applied.map(|id| id.index) {
            member.state.apply(entry).map_err(said)?;
        }
    }
    let mut snapshot = [0; 32];
    if let Some(current) = member.state.current_snapshot() {
        for piece in current.frames(1 << 20) {
            if let SnapshotPiece::End { digest } = piece.map_err(said)? {
                snapshot = digest;
            }
        }
    }
    // Every row by its key, which is another way to it than reading them all in order.
    let found = member.state.with_view(|view| {
        let nodes = view.nodes();
        nodes
            .iter()
            .all(|node| view.node_by_name(&node.name).is_some())
    });
    assert!(found.map_err(said)?, "a node is not found by its name");
    let content = Content {
        bounds: member.log.bounds(),
        vote: member.log.vote(),
        entries,
        state: everything(&member.state),
        snapshot,
    };
    assert_eq!(*member.failures.lock().unwrap(), Vec::<String>::new());
    Ok(content)
}

pub(crate) fn more(range: std::ops::Range<u64>) -> Vec<LogEntry> {
    let one = |index| {
        let name = format!("more-{index}");
        let sequence = index - 15;
        let request = tagged(2, sequence, sequence, MARKER_A, register(&name, MARKER_A));
        proposal(index, 1_000 * index, request)
    };
    range.map(one).collect()
}

/// A directory with every kind of file that a member has: both stores with table files and a purged
/// beginning, a write-ahead log, a snapshot. Left as it is while the process runs, and after its end.
fn directories(path: &Path) -> (PathBuf, PathBuf) {
    let (killed, closed) = (path.join("killed"), path.join("closed"));
    let member = Member::open(&closed);
    member.append(&history()[..10]);
    let (done, voted) = outcome();
    let vote = Vote {
        term: 3,
        ..Vote::default()
    };
    member.log.save_vote(vote, done);
    wait(&voted).unwrap();
    member.replay();
    member.state.flush().unwrap();
    member.append(&history()[10..]);
    member.replay();
    drop(member.state.build_snapshot().unwrap());
    let (done, purged) = outcome();
    member.log.purge(id(6), done);
    wait(&purged).unwrap();
    drop(member);

    // What was in the log's write-ahead log becomes a table file.
    let member = Member::open(&closed);
    member.append(&more(17..60));
    member.replay();
    member.state.flush().unwrap();
    for entry in more(60..90) {
        member.append(&[entry]);
    }
    member.replay();
    copy_directory(&closed, &killed);
    drop(member);
    (killed, closed)
}

pub(crate) fn files_below(path: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(path).unwrap() {
        let entry = entry.unwrap();
        match entry.file_type().unwrap().is_dir() {
            true => files.extend(files_below(&entry.path())),
            false => files.push(entry.path()),
        }
    }
    files.sort();
    files
}

pub(crate) fn flip(file: &Path, bit: usize) {
    let mut content = fs::read(file).unwrap();
    content[bit / 8] ^= 1 << (bit % 8);
    fs::write(file, content).unwrap();
}

/// What kind of file it is: its name without numbers.
fn kind(file: &Path) -> String {
    let name = file.to_string_lossy();
    name.chars().filter(|c| !c.is_ascii_digit()).collect()
}

/// Flips one bit at a time, and tells by kind of file how many flips were noticed, of how many.
fn flip_each(sound: &Path, flips: &[(PathBuf, usize)]) -> BTreeMap<String, (usize, usize)> {
    let scratch = tempfile::tempdir().unwrap();
    let reference = scratch.path().join("sound");
    copy_directory(sound, &reference);
    let expected = content(&reference).unwrap();
    let next = AtomicUsize::new(0);
    let work = || {
        let mut noticed: BTreeMap<String, (usize, usize)> = BTreeMap::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some((file, bit)) = flips.get(number) else {
                return noticed;
            };
            let flipped = scratch.path().join(number.to_string());
            copy_directory(sound, &flipped);
            flip(&flipped.join(file), *bit);
            let found = content(&flipped);
            if let Ok(found) = &found {
                let what = format!("bit {bit} of {}", file.display());
                assert_eq!(*found, expected, "{what} was not noticed");
                if kind(file).ends_with(".sst") {
                    println!("{what} was not noticed, and changed nothing");
                }
            }
            let (count, of) = noticed.entry(kind(file)).or_default();
            *count += usize::from(found.is_err());
            *of += 1;
            fs::remove_dir_all(&flipped).unwrap();
        }
    };
    let mut all: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(work)).collect();
        for thread in threads {
            for (kind, (count, of)) in thread.join().unwrap() {
                let (sum, whole) = all.entry(kind).or_default();
                *sum += count;
                *whole += of;
            }
        }
    });
    all
}

#[test]
fn one_flipped_bit_anywhere_is_noticed_or_changes_nothing() {
    let seed: u64 = match std::env::var("TALLY_TEST_SEED") {
        Ok(text) => text.parse().unwrap(),
        Err(_) => rand::random(),
    };
    println!("seed {seed}; the same again: TALLY_TEST_SEED={seed}");
    let long = std::env::var_os("TALLY_TEST_LONG").is_some();
    let each = if long { FLIPS_LONG } else { FLIPS_SHORT };
    let mut random = SmallRng::seed_from_u64(seed);
    let scratch = tempfile::tempdir().unwrap();
    let (killed, closed) = directories(scratch.path());
    for sound in [killed, closed] {
        let mut flips = Vec::new();
        for file in files_below(&sound) {
            let bits = fs::metadata(&file).unwrap().len() as usize * 8;
            let within = file.strip_prefix(&sound).unwrap().to_path_buf();
            for _ in 0..each.min(bits) {
                flips.push((within.clone(), random.random_range(0..bits)));
            }
        }
        let noticed = flip_each(&sound, &flips);
        for (kind, (count, of)) in &noticed {
            println!("{kind}: {count} of {of} noticed");
        }
        // What holds nothing but data must never lose a bit unnoticed.
        let strict = |kind: &str| {
            ["IDENTITY", "META", "CURRENT_GENERATION", "log/.log"].contains(&kind)
                || kind.starts_with("snapshots/")
                || kind.ends_with(".sst")
        };
        for (kind, (count, of)) in noticed.iter().filter(|(kind, _)| strict(kind)) {
            assert_eq!(count, of, "{kind}");
        }
    }
}

/// The write-ahead log that the newest entries are in, and its length after each of them.
fn tail_of(path: &Path, count: u64) -> (PathBuf, Vec<u64>) {
    let member = Member::open(path);
    member.append(&history());
    let log = fs::read_dir(path.join("log"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|file| file.extension().is_some_and(|extension| extension == "log"))
        .unwrap();
    let mut lengths = Vec::new();
    for entry in more(17..17 + count) {
        member.append(&[entry]);
        lengths.push(fs::metadata(&log).unwrap().len());
    }
    copy_directory(path, &path.with_extension("killed"));
    (log.strip_prefix(path).unwrap().to_path_buf(), lengths)
}

#[test]
fn an_acknowledged_entry_that_a_killed_process_left_is_never_a_torn_tail() {
    let scratch = tempfile::tempdir().unwrap();
    let (log, lengths) = tail_of(&scratch.path().join("member"), 5);
    let killed = scratch.path().join("member.killed");
    for length in [lengths[4] - 1, lengths[4] - 20, lengths[3], lengths[0]] {
        let cut = scratch.path().join(length.to_string());
        copy_directory(&killed, &cut);
        let file = fs::OpenOptions::new().write(true).open(cut.join(&log));
        file.unwrap().set_len(length).unwrap();
        let refused = content(&cut).expect_err("the log is too short");
        assert!(refused.contains("entry 21 was acknowledged"), "{refused}");
    }
}

#[test]
fn a_flipped_bit_is_no_torn_tail_although_a_power_loss_took_the_floor_back() {
    let scratch = tempfile::tempdir().unwrap();
    let early = scratch.path().join("early");
    drop(Member::open(&early));
    let (log, lengths) = tail_of(&scratch.path().join("member"), 3);
    let killed = scratch.path().join("member.killed");
    fs::copy(early.join("FLOOR"), killed.join("FLOOR")).unwrap();
    let last = lengths[1] * 8..lengths[2] * 8;
    let mut flips: Vec<_> = last.clone().step_by(61).collect();
    // All of the header: checksum, length, type.
    flips.extend(last.take(56));
    for bit in flips {
        let flipped = scratch.path().join(bit.to_string());
        copy_directory(&killed, &flipped);
        flip(&flipped.join(&log), bit as usize);
        let refused = content(&flipped).expect_err("the last record has changed");
        assert!(
            refused.contains("log is damaged: the record at byte"),
            "bit {bit}: {refused}"
        );
        fs::remove_dir_all(&flipped).unwrap();
    }
}

#[test]
fn a_damaged_table_is_found_although_all_that_is_in_it_was_purged() {
    let scratch = tempfile::tempdir().unwrap();
    let member = Member::open(scratch.path());
    member.append(&history());
    member.append(&more(17..200));
    member.replay();
    drop(member.state.build_snapshot().unwrap());
    drop(member);
    // What was in the write-ahead log is a table now.
    let member = Member::open(scratch.path());
    let (done, purged) = outcome();
    member.log.purge(id(199), done);
    wait(&purged).unwrap();
    drop(member);
    let table = files_below(&scratch.path().join("log"))
        .into_iter()
        .find(|file| file.extension().is_some_and(|extension| extension == "sst"))
        .unwrap();
    flip(&table, 8 * 100);
    let refused = content(scratch.path()).expect_err("the table is damaged");
    assert!(refused.contains(".sst"), "{refused}");
}

/// There are the filters, the lists of what is where, and the footer: nobody reads them for a row.
#[test]
fn the_end_of_a_table_is_found_damaged_as_its_rows_are() {
    let scratch = tempfile::tempdir().unwrap();
    let (_, closed) = directories(scratch.path());
    let mut flips = Vec::new();
    for file in files_below(&closed) {
        let within = file.strip_prefix(&closed).unwrap().to_path_buf();
        if kind(&within).ends_with(".sst") && !within.starts_with("snapshots") {
            let bytes = fs::metadata(&file).unwrap().len() as usize;
            let places = (bytes.saturating_sub(2_000)..bytes).step_by(29);
            flips.extend(places.map(|byte| (within.clone(), byte * 8 + byte % 8)));
        }
    }
    for (kind, (count, of)) in flip_each(&closed, &flips) {
        assert!(count == of && of > 0, "{kind}: {count} of {of} noticed");
    }
}

#[test]
fn what_refuses_a_start_leaves_the_directory_as_it_is() {
    let scratch = tempfile::tempdir().unwrap();
    let (killed, _) = directories(scratch.path());
    let snapshot = files_below(&killed.join("snapshots"))
        .into_iter()
        .find(|file| file.ends_with("META"))
        .unwrap();
    flip(&snapshot, 200);
    let before = files_below(&killed.join("snapshots"));
    assert!(content(&killed).unwrap_err().contains("META: checksum"));
    assert_eq!(files_below(&killed.join("snapshots")), before);
    flip(&snapshot, 200);
    assert!(content(&killed).is_ok(), "mended, it starts");
}
