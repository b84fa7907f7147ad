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
    RecordsError::Failed("the thread that writes is gone".to_owned())
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
                return refuse_all(&error, waiting);
            }
        }
    }
}

/// Answers with the reason of the failed write until the last way to the thread is dropped, so that
/// those who waited while it failed learn the same: a full disk is no reason to end.
fn refuse_all(error: &RecordsError, mut waiting: mpsc::Receiver<Job>) {
    while let Some(job) = waiting.blocking_recv() {
        let _: Result<(), Answer> = job.answer.send(Err(error.clone()));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::sync::mpsc::sync_channel;

    use tokio::sync::oneshot::Receiver;

    use super::*;

    fn append() -> Append {
        Append {
            log: 1,
            data: Vec::new(),
        }
    }

    fn queue(writer: &Writer) -> Receiver<Answer> {
        let (answer, answered) = oneshot::channel();
        let job = Job {
            append: append(),
            answer,
        };
        writer.jobs.try_send(job).map_err(|_| ()).unwrap();
        answered
    }

    #[tokio::test]
    async fn whoever_waited_while_a_write_failed_learns_why_and_so_do_all_later_ones() {
        for error in [
            RecordsError::Full("no room".to_owned()),
            RecordsError::Failed("i/o error".to_owned()),
        ] {
            let (begun, begins) = sync_channel(1);
            let (fail, fails) = sync_channel(1);
            let found = error.clone();
            let (writer, thread) = Writer::start(move |_| {
                begun.send(()).unwrap();
                fails.recv().unwrap();
                Err(found.clone())
            })
            .unwrap();
            let first = queue(&writer);
            begins.recv().unwrap();
            let waited = [queue(&writer), queue(&writer)];
            fail.send(()).unwrap();
            assert_eq!(first.await.unwrap(), Err(error.clone()));
            for answered in waited {
                assert_eq!(answered.await.unwrap(), Err(error.clone()));
            }
            assert_eq!(writer.append(append()).await, Err(error));
            drop(writer);
            thread.join().unwrap();
        }
    }
}
