//! The raft log store in openraft's terms.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, Range, RangeBounds};

use futures::{Stream, StreamExt, TryStreamExt, stream};
use openraft::OptionalSend;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use tally_storage::LogStore;
use tokio::sync::oneshot;

use super::runtime::aside_if;
use super::{Entry, LogId, TypeConfig, Vote, convert};

/// Bytes that one read takes from the disk at most.
const READ_BYTES_MAX: usize = 1 << 20;

/// See the module. Clones are handles to the same log.
#[derive(Clone)]
pub(crate) struct LogStorage {
    log: LogStore,
}

impl LogStorage {
    pub(crate) fn new(log: LogStore) -> Self {
        Self { log }
    }

    /// The first entries of a range, at least one if there is any, and what is left of the range.
    fn read(&self, range: Range<u64>) -> io::Result<(Vec<Entry>, Range<u64>)> {
        let read = self.log.read(range.clone(), READ_BYTES_MAX)?;
        let last = read.last().and_then(|entry| entry.id);
        let left = last.map_or(range.end, |last| last.index + 1)..range.end;
        let entries = read.into_iter().map(convert::entry);
        let entries = entries
            .collect::<Result<_, _>>()
            .map_err(io::Error::other)?;
        Ok((entries, left))
    }
}

fn bounds(range: &impl RangeBounds<u64>) -> Range<u64> {
    let start = match range.start_bound() {
        Bound::Included(&start) => start,
        Bound::Excluded(&start) => start + 1,
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(&end) => end + 1,
        Bound::Excluded(&end) => end,
        Bound::Unbounded => u64::MAX,
    };
    start..end
}

/// Runs an operation of the writer thread and waits until it is on disk.
async fn written(
    log: &LogStore,
    start: impl FnOnce(Box<dyn FnOnce(io::Result<()>) + Send>),
) -> Result<(), io::Error> {
    let (done, written) = oneshot::channel();
    aside_if(log.is_full(), || {
        start(Box::new(move |result| {
            // The waiting side goes away only when the replica is dropped.
            let _ = done.send(result);
        }));
    });
    let gone = |_| io::Error::other("the log's writer has stopped");
    written.await.map_err(gone)?
}

impl RaftLogReader<TypeConfig> for LogStorage {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        let mut range = bounds(&range);
        let mut entries = Vec::new();
        while !range.is_empty() {
            let (read, left) = self.read(range)?;
            entries.extend(read);
            range = left;
        }
        Ok(entries)
    }

    /// What replication reads for one message: a backlog of large entries takes several.
    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry>, io::Error> {
        let (entries, _left) = self.read(start..end)?;
        Ok(entries)
    }

    /// What apply reads: a member that is far behind must not have all of it in memory at once.
    async fn entries_stream<RB>(
        &mut self,
        range: RB,
    ) -> impl Stream<Item = Result<Entry, io::Error>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let chunks = stream::try_unfold(bounds(&range), |range| async {
            if range.is_empty() {
                return Ok(None);
            }
            let (entries, left) = self.read(range)?;
            Ok::<_, io::Error>(Some((stream::iter(entries.into_iter().map(Ok)), left)))
        });
        chunks.try_flatten().boxed()
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.log.vote().as_ref().map(convert::vote))
    }
}

impl RaftLogStorage<TypeConfig> for LogStorage {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let bounds = self.log.bounds();
        Ok(LogState {
            last_purged_log_id: bounds.purged.as_ref().map(convert::log_id),
            last_log_id: bounds.last.as_ref().map(convert::log_id),
        })
    }

    async fn get_log_reader(&mut self) -> Self::LogReader {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let vote = convert::vote_message(vote);
        written(&self.log, |done| self.log.save_vote(vote, done)).await
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        self.log
            .save_committed(committed.as_ref().map(convert::log_id_message));
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(self.log.committed().as_ref().map(convert::log_id))
    }

    async fn append<I>(
        &mut self,
        entries: I,
        callback: IOFlushed<TypeConfig>,
    ) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries = entries.into_iter().map(convert::entry_message).collect();
        aside_if(self.log.is_full(), || {
            self.log
                .append(entries, move |result| callback.io_completed(result));
        });
        Ok(())
    }

    async fn truncate_after(&mut self, last_kept: Option<LogId>) -> Result<(), io::Error> {
        let last_kept = last_kept.map(|id| id.index);
        written(&self.log, |done| self.log.truncate_after(last_kept, done)).await
    }

    async fn purge(&mut self, through: LogId) -> Result<(), io::Error> {
        let through = convert::log_id_message(&through);
        written(&self.log, |done| self.log.purge(through, done)).await
    }
}
