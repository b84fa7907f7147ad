//! One thread appends: whatever waits goes to disk in one synced write, in order.

use std::io;
use std::thread::JoinHandle;

use tokio::sync::{mpsc, oneshot};

use crate::error::RecordsError;
use crate::records::Append;

/// Appends that may wait for the thread.
pub(crate) const WAITING_MAX: usize = 256;
/// Appends in one write; with the longest records 64 MiB.
const BATCH_MAX: usize = 64;

type Answer = Result<u64, RecordsError>;
/// Offsets of the records, in order.
pub(crate) type Appended = Result<Vec<u64>, RecordsError>;

struct Job {
    append: Append,
    answer: oneshot::Sender<Answer>,
}

/// The way to the thread. The thread ends when the last one is dropped.
#[derive(Clone)]
pub(crate) struct Writer {
    jobs: mpsc::Sender<Job>,
}

impl Writer {
    /// Starts the thread, which writes with `append`: all of its records in order, synced, or none.
    pub(crate) fn start(
        append: impl Fn(&[Append]) -> Appended + Send + 'static,
    ) -> io::Result<(Self, JoinHandle<()>)> {
        let (jobs, waiting) = mpsc::channel(WAITING_MAX);
        let thread = std::thread::Builder::new().name("records".to_owned());
        let thread = thread.spawn(move || run(append, waiting))?;
        Ok((Self { jobs }, thread))
    }

    /// Appends and answers once it is on disk. When the caller stops waiting it is appended all the
    /// same.
    pub(crate) async fn append(&self, append: Append) -> Answer {
        let (answer, answered) = oneshot::channel();
        let sent = self.jobs.try_send(Job { append, answer });
        sent.map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => RecordsError::Overloaded(WAITING_MAX),
            mpsc::error::TrySendError::Closed(_) => ended(),
        })?;
        answered.await.unwrap_or_else(|_| Err(ended()))
    }
}

fn ended() -> RecordsError {
    RecordsError::Failed("an earlier write failed".to_owned())
}

fn run(append: impl Fn(&[Append]) -> Appended, mut waiting: mpsc::Receiver<Job>) {
    while let Some(first) = waiting.blocking_recv() {
        let (mut appends, mut answers) = (vec![first.append], vec![first.answer]);
        while appends.len() < BATCH_MAX
            && let Ok(next) = waiting.try_recv()
        {
            appends.push(next.append);
            answers.push(next.answer);
        }
        match append(&appends) {
            Ok(offsets) => {
                for (answer, offset) in answers.into_iter().zip(offsets) {
                    // A caller who has gone does not want to know.
                    let _: Result<(), Answer> = answer.send(Ok(offset));
                }
            }
            Err(error) => {
                for answer in answers {
                    let _: Result<(), Answer> = answer.send(Err(error.clone()));
                }
                // After a failed write nothing is known of what the disk holds, so there is no other.
                return;
            }
        }
    }
}
