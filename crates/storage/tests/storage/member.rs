//! One member's directory with both stores open, and what tests do with them.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tally_model::{Answer, MemberId};
use tally_proto::storage::LogEntry;
use tally_storage::{
    DataDir, LogOptions, LogStore, OnFailure, OpenError, OpenOptions, StateOptions, StateStore,
};

/// Far longer than any write takes; a test that waits so long has failed.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// Entries that are applied together after a restart.
const TOGETHER: usize = 7;

pub(crate) struct Member {
    pub(crate) directory: DataDir,
    pub(crate) log: LogStore,
    pub(crate) state: StateStore,
    pub(crate) failures: Arc<Mutex<Vec<String>>>,
}

pub(crate) fn options() -> OpenOptions {
    OpenOptions {
        name: "n1".to_owned(),
        formation: b"formation".to_vec(),
        fresh_member: MemberId(7),
    }
}

/// A failure callback that records, and its record.
pub(crate) fn recorder() -> (OnFailure, Arc<Mutex<Vec<String>>>) {
    let failures = Arc::new(Mutex::new(Vec::new()));
    let record = failures.clone();
    (
        Arc::new(move |what: &str| record.lock().unwrap().push(what.to_owned())),
        failures,
    )
}

impl Member {
    pub(crate) fn open(path: &Path) -> Self {
        Self::try_open(path).expect("the directory opens")
    }

    pub(crate) fn try_open(path: &Path) -> Result<Self, OpenError> {
        let (on_failure, failures) = recorder();
        let directory = DataDir::open(path, &options())?;
        let log = directory.open_log(LogOptions::new(on_failure.clone()))?;
        let state = directory.open_state(StateOptions { on_failure })?;
        Ok(Self {
            directory,
            log,
            state,
            failures,
        })
    }

    /// Appends entries and waits until they are on disk.
    pub(crate) fn append(&self, entries: &[LogEntry]) {
        append(&self.log, entries).expect("the entries are appended");
    }

    /// Applies what stands in the log after the last applied entry.
    pub(crate) fn replay(&self) -> Vec<Option<Answer>> {
        let from = self
            .state
            .applied()
            .last_applied
            .map_or(0, |id| id.index + 1);
        let entries = self.log.read(from..u64::MAX, usize::MAX).unwrap();
        let together = entries.chunks(TOGETHER);
        together
            .flat_map(|entries| {
                self.state
                    .apply_all(entries.to_vec())
                    .expect("they are applied")
            })
            .collect()
    }
}

/// A callback for the log, and where its result arrives.
pub(crate) fn outcome() -> (
    impl FnOnce(io::Result<()>) + Send + 'static,
    Receiver<io::Result<()>>,
) {
    let (sender, receiver) = mpsc::channel();
    (
        move |result| {
            // A test that does not wait for the result has dropped the receiver.
            let _ = sender.send(result);
        },
        receiver,
    )
}

pub(crate) fn wait(receiver: &Receiver<io::Result<()>>) -> io::Result<()> {
    receiver
        .recv_timeout(DEADLINE)
        .expect("the log answers in time")
}

pub(crate) fn append(log: &LogStore, entries: &[LogEntry]) -> io::Result<()> {
    let (done, result) = outcome();
    log.append(entries.to_vec(), done);
    wait(&result)
}

/// Copies a directory as it is on disk: what a crash at this moment would leave behind, as far as
/// the page cache survives it.
pub(crate) fn copy_directory(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_directory(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}
