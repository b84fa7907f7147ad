//! What readers of the log see, and in which order the disk follows.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use tally_proto::storage::{LogEntry, LogId, Vote};
use tally_storage::{DataDir, LogBounds, LogOptions, LogStore};

use crate::member::{append, options, outcome, recorder, wait};
use crate::script::{MARKER_A, blank, id, proposal, register, tagged};

fn open(path: &Path) -> LogStore {
    open_with(path, LogOptions::new(recorder().0))
}

fn open_with(path: &Path, log_options: LogOptions) -> LogStore {
    DataDir::open(path, &options())
        .unwrap()
        .open_log(log_options)
        .unwrap()
}

fn truncate(log: &LogStore, last_kept: Option<u64>) -> io::Result<()> {
    let (done, result) = outcome();
    log.truncate_after(last_kept, done);
    wait(&result)
}

fn purge(log: &LogStore, through: LogId) -> io::Result<()> {
    let (done, result) = outcome();
    log.purge(through, done);
    wait(&result)
}

fn indices(entries: &[LogEntry]) -> Vec<u64> {
    entries
        .iter()
        .map(|entry| entry.id.unwrap().index)
        .collect()
}

fn at_term(index: u64, term: u64) -> LogEntry {
    LogEntry {
        id: Some(LogId { term, ..id(index) }),
        ..blank(index)
    }
}

fn large(index: u64) -> LogEntry {
    let command = register(&"x".repeat(100), MARKER_A);
    proposal(index, 1, tagged(2, 1, 1, MARKER_A, command))
}

/// Holds writes back until it is opened.
#[derive(Default)]
struct Gate {
    open: Mutex<bool>,
    changed: Condvar,
}

impl Gate {
    fn open(&self) {
        *self.open.lock().unwrap() = true;
        self.changed.notify_all();
    }

    fn wait(&self) {
        let open = self.open.lock().unwrap();
        drop(self.changed.wait_while(open, |open| !*open).unwrap());
    }
}

fn gated(path: &Path, tail_bytes_max: usize) -> (LogStore, Arc<Gate>) {
    let gate = Arc::new(Gate::default());
    let waiting = gate.clone();
    let options = LogOptions {
        tail_bytes_max,
        before_sync: Some(Arc::new(move || {
            waiting.wait();
            Ok(())
        })),
        ..LogOptions::new(recorder().0)
    };
    (open_with(path, options), gate)
}

#[test]
fn appended_entries_are_readable_before_they_are_on_disk() {
    let directory = tempfile::tempdir().unwrap();
    let (log, gate) = gated(directory.path(), 0);
    let (done, result) = outcome();
    log.append((0..10).map(blank).collect(), done);
    assert_eq!(indices(&log.read(3..7, usize::MAX).unwrap()), [3, 4, 5, 6]);
    assert!(
        result.try_recv().is_err(),
        "nothing is reported before it is on disk"
    );
    gate.open();
    wait(&result).unwrap();
    assert_eq!(indices(&log.read(3..7, usize::MAX).unwrap()), [3, 4, 5, 6]);
}

#[test]
fn a_truncation_is_visible_at_once_and_what_replaces_it_too() {
    let directory = tempfile::tempdir().unwrap();
    let (log, gate) = gated(directory.path(), 0);
    let (first, appended) = outcome();
    let (second, truncated) = outcome();
    let (third, replaced) = outcome();
    log.append((0..10).map(blank).collect(), first);
    log.truncate_after(Some(4), second);
    assert_eq!(log.bounds().last, Some(id(4)));
    assert_eq!(
        indices(&log.read(0..u64::MAX, usize::MAX).unwrap()),
        [0, 1, 2, 3, 4]
    );
    log.append(vec![at_term(5, 2)], third);
    gate.open();
    for result in [appended, truncated, replaced] {
        wait(&result).unwrap();
    }
    let expected: Vec<_> = (0..5).map(blank).chain([at_term(5, 2)]).collect();
    assert_eq!(log.read(0..u64::MAX, usize::MAX).unwrap(), expected);
    drop(log);
    assert_eq!(
        open(directory.path())
            .read(0..u64::MAX, usize::MAX)
            .unwrap(),
        expected
    );
}

#[test]
fn entries_beyond_the_memory_bound_are_read_from_disk() {
    let directory = tempfile::tempdir().unwrap();
    let options = LogOptions {
        tail_bytes_max: 500,
        ..LogOptions::new(recorder().0)
    };
    let log = open_with(directory.path(), options);
    let entries: Vec<_> = (0..100).map(large).collect();
    for chunk in entries.chunks(7) {
        append(&log, chunk).unwrap();
    }
    assert_eq!(log.read(0..100, usize::MAX).unwrap(), entries);
    assert_eq!(log.read(50..99, usize::MAX).unwrap(), entries[50..99]);
    truncate(&log, Some(20)).unwrap();
    assert_eq!(log.read(0..100, usize::MAX).unwrap(), entries[..21]);
    append(&log, &[at_term(21, 2)]).unwrap();
    assert_eq!(log.read(21..22, usize::MAX).unwrap(), [at_term(21, 2)]);
}

#[test]
fn a_read_stops_before_its_bound_and_gives_at_least_one_entry() {
    let directory = tempfile::tempdir().unwrap();
    for tail_bytes_max in [0, 4 << 20] {
        let path = directory.path().join(tail_bytes_max.to_string());
        let options = LogOptions {
            tail_bytes_max,
            ..LogOptions::new(recorder().0)
        };
        let log = open_with(&path, options);
        append(&log, &(0..10).map(large).collect::<Vec<_>>()).unwrap();
        assert_eq!(indices(&log.read(2..9, 0).unwrap()), [2]);
        let two = log.counters().appended_bytes as usize / 10 * 2;
        assert_eq!(indices(&log.read(2..9, two + 20).unwrap()), [2, 3]);
        assert!(log.read(20..30, 100).unwrap().is_empty());
    }
}

#[test]
fn a_purge_removes_the_front_and_may_go_beyond_the_end() {
    let directory = tempfile::tempdir().unwrap();
    let log = open(directory.path());
    append(&log, &(0..10).map(blank).collect::<Vec<_>>()).unwrap();
    purge(&log, id(3)).unwrap();
    assert_eq!(indices(&log.read(0..6, usize::MAX).unwrap()), [4, 5]);
    assert_eq!(
        log.bounds(),
        LogBounds {
            purged: Some(id(3)),
            last: Some(id(9))
        }
    );
    purge(&log, id(20)).unwrap();
    assert_eq!(log.bounds().last, Some(id(20)));
    assert!(append(&log, &[blank(10)]).is_err(), "the next entry is 21");
    append(&log, &[blank(21)]).unwrap();
    drop(log);
    let log = open(directory.path());
    assert_eq!(indices(&log.read(0..u64::MAX, usize::MAX).unwrap()), [21]);
    assert_eq!(log.bounds().purged, Some(id(20)));
}

#[test]
fn a_gap_is_refused_and_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let log = open(directory.path());
    append(&log, &[blank(0), blank(1)]).unwrap();
    assert!(append(&log, &[blank(3)]).is_err());
    assert!(append(&log, &[blank(1)]).is_err());
    assert!(append(&log, &[blank(2), blank(4)]).is_err());
    assert_eq!(log.failed(), None, "a refusal is not a failure of the disk");
    append(&log, &[blank(2)]).unwrap();
}

#[test]
fn everything_can_be_truncated_and_begun_again() {
    let directory = tempfile::tempdir().unwrap();
    let log = open(directory.path());
    append(&log, &[blank(2), blank(3)]).unwrap();
    truncate(&log, None).unwrap();
    assert_eq!(log.bounds(), LogBounds::default());
    append(&log, &[blank(0)]).unwrap();
    drop(log);
    let log = open(directory.path());
    assert_eq!(indices(&log.read(0..u64::MAX, usize::MAX).unwrap()), [0]);
}

#[test]
fn what_waits_together_is_written_with_one_fsync() {
    let directory = tempfile::tempdir().unwrap();
    let (log, gate) = gated(directory.path(), 4 << 20);
    let vote = Vote {
        term: 3,
        candidate: 7,
        committed: false,
    };
    let order = Arc::new(Mutex::new(Vec::new()));
    let mut results = Vec::new();
    let mut done = |number: u64| {
        let (done, result) = outcome();
        results.push(result);
        let order = order.clone();
        move |outcome| {
            order.lock().unwrap().push(number);
            done(outcome);
        }
    };
    // The first is alone in its group, because the writer takes it at once; the gate holds it.
    log.append(vec![blank(0)], done(0));
    for index in 1..100 {
        log.append(vec![blank(index)], done(index));
    }
    log.save_vote(vote, done(100));
    gate.open();
    for result in &results {
        wait(result).unwrap();
    }
    assert_eq!(*order.lock().unwrap(), (0..=100).collect::<Vec<_>>());
    let counters = log.counters();
    assert_eq!(counters.appended_entries, 100);
    assert!(
        counters.groups <= 2,
        "101 operations in {} groups",
        counters.groups
    );
}

#[test]
fn a_failed_write_fails_everything_after_it() {
    let directory = tempfile::tempdir().unwrap();
    let failing = Arc::new(AtomicBool::new(false));
    let (on_failure, failures) = recorder();
    let switch = failing.clone();
    let options = LogOptions {
        before_sync: Some(Arc::new(move || match switch.load(Ordering::SeqCst) {
            true => Err(io::Error::other("input/output error")),
            false => Ok(()),
        })),
        ..LogOptions::new(on_failure)
    };
    let log = open_with(directory.path(), options);
    append(&log, &[blank(0)]).unwrap();
    failing.store(true, Ordering::SeqCst);
    assert!(append(&log, &[blank(1)]).is_err());
    // The disk would work again; what it lost meanwhile would not come back.
    failing.store(false, Ordering::SeqCst);
    assert!(append(&log, &[blank(2)]).is_err());
    assert!(purge(&log, id(0)).is_err());
    assert!(log.read(0..1, usize::MAX).is_err());
    let failures = failures.lock().unwrap();
    assert_eq!(
        failures.len(),
        1,
        "the callback is called once: {failures:?}"
    );
    assert!(failures[0].contains("input/output error"));
}

#[test]
fn dropping_the_log_writes_what_waits() {
    let directory = tempfile::tempdir().unwrap();
    let (log, gate) = gated(directory.path(), 4 << 20);
    let mut results = Vec::new();
    for index in 0..50 {
        let (done, result) = outcome();
        log.append(vec![blank(index)], done);
        results.push(result);
    }
    gate.open();
    drop(log);
    for result in &results {
        wait(result).unwrap();
    }
    assert_eq!(open(directory.path()).bounds().last, Some(id(49)));
}
