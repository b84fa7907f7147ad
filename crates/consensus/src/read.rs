//! Linearizable reads by ReadIndex (Ongaro's thesis, section 6.4): the leader confirms that it
//! still leads and names the index that a reader must have applied. One round serves everyone who
//! asked before it began.

use std::sync::Weak;
use std::time::Duration;

use futures::future::BoxFuture;
use openraft::LinearizerOption;
use openraft::errors::{Fatal, LinearizableReadError, RaftError};
use tally_proto::storage;
use tally_storage::StateReader;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout, timeout_at};

use crate::raft::{self, LogId, TypeConfig};
use crate::replica::{Inner, Replica};
use crate::status::count;

/// How fresh a read must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consistency {
    /// Sees every write that was answered before the read began.
    Linearizable,
    /// Whatever this member has applied.
    Stale,
}

/// Why a read was not served. Reads change nothing; asking again is always safe.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Too many reads wait already.
    #[error("too many reads wait already")]
    Overloaded,
    /// No leader confirmed in time that it leads.
    #[error("no leader confirmed in time that it leads")]
    NoLeader,
    /// This member has not caught up in time.
    #[error("this member has not caught up in time")]
    Behind,
    /// This member has stopped.
    #[error("this member has stopped: {0}")]
    Halted(String),
}

/// One round takes no longer: an isolated leader never hears from its followers.
const ROUND_MAX: Duration = Duration::from_secs(1);

type Waiter = oneshot::Sender<Result<LogId, ReadError>>;

/// Where readers wait for a round.
pub(crate) struct Rounds {
    waiters: mpsc::Sender<Waiter>,
}

impl Rounds {
    /// Runs rounds, one at a time, as long as the replica lives.
    pub(crate) fn start(
        waiting_max: usize,
        replica: Weak<Inner>,
        round: impl Fn(Replica) -> BoxFuture<'static, Result<LogId, ReadError>> + Send + 'static,
    ) -> Self {
        let (waiters, mut waiting) = mpsc::channel::<Waiter>(waiting_max);
        tokio::spawn(async move {
            let mut served = Vec::new();
            while waiting.recv_many(&mut served, waiting_max).await > 0 {
                let Some(replica) = replica.upgrade() else {
                    return;
                };
                let late = Err(ReadError::NoLeader);
                let result = timeout(ROUND_MAX, round(replica.into()))
                    .await
                    .unwrap_or(late);
                for waiter in served.drain(..) {
                    // A reader whose deadline is past has gone.
                    let _ = waiter.send(result.clone());
                }
            }
        });
        Self { waiters }
    }

    /// The result of a round that begins after this call.
    pub(crate) async fn next(&self) -> Result<LogId, ReadError> {
        let (waiter, result) = oneshot::channel();
        let full = |_| ReadError::Overloaded;
        self.waiters.try_send(waiter).map_err(full)?;
        let stopped = Err(ReadError::Halted("it is shutting down".to_owned()));
        result.await.unwrap_or(stopped)
    }
}

impl Replica {
    /// A view of the state that is as fresh as asked for.
    ///
    /// # Errors
    /// See [`ReadError`]; a stale read always succeeds.
    pub async fn read(
        &self,
        consistency: Consistency,
        deadline: std::time::Instant,
    ) -> Result<StateReader, ReadError> {
        if consistency == Consistency::Linearizable {
            count(&self.counts.reads);
            self.catch_up(Instant::from_std(deadline)).await?;
        }
        Ok(self.stores.state.reader())
    }

    /// Waits until this member has applied everything that was answered before the call.
    async fn catch_up(&self, deadline: Instant) -> Result<(), ReadError> {
        let read_log = loop {
            let round = timeout_at(deadline, self.reads.next()).await;
            match round.unwrap_or(Err(ReadError::NoLeader)) {
                Ok(index) => break index,
                Err(ReadError::NoLeader) if Instant::now() < deadline => {
                    self.leader_news(deadline).await;
                }
                Err(error) => return Err(error),
            }
        };
        let mut applied = self.applied.clone();
        let reached = applied.wait_for(|mark| mark.index >= Some(read_log.index));
        match timeout_at(deadline, reached).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(ReadError::Halted("it is shutting down".to_owned())),
            Err(_) => Err(ReadError::Behind),
        }
    }

    /// One round, as the leader or by asking it.
    pub(crate) async fn read_round(&self) -> Result<LogId, ReadError> {
        count(&self.counts.read_rounds);
        let (leader, halted) = {
            let status = self.status.borrow();
            (status.leader, status.halted.clone())
        };
        if let Some(why) = halted {
            return Err(ReadError::Halted(why));
        }
        let leader = leader.ok_or(ReadError::NoLeader)?;
        if leader == self.options.member {
            return self.leader_reads.next().await;
        }
        let link = self.link(leader).ok_or(ReadError::NoLeader)?;
        let answer = link.read_index().await.map_err(|error| {
            tracing::debug!(%error, "the leader gave no read index");
            ReadError::NoLeader
        })?;
        let read = raft::sent_log_ids(&answer.read).ok().flatten();
        read.ok_or(ReadError::NoLeader)
    }

    /// One round of a leader: a majority confirms it, after it has told what was committed.
    pub(crate) async fn leader_round(&self) -> Result<LogId, ReadError> {
        let halted = |fatal: Fatal<TypeConfig>| ReadError::Halted(fatal.to_string());
        let vote = self.leads_by().await.map_err(halted)?;
        let vote = vote.ok_or(ReadError::NoLeader)?;
        // Whom openraft takes for confirmed is asked again below, so it may be by its lease.
        let option = LinearizerOption::new(None, true);
        let read = match self.raft.get_read_log_id(option).await {
            Ok((read, _)) => *read.log_id(),
            Err(RaftError::APIError(
                LinearizableReadError::ForwardToLeader(_)
                | LinearizableReadError::QuorumNotEnough(_),
            )) => return Err(ReadError::NoLeader),
            Err(RaftError::Fatal(fatal)) => return Err(halted(fatal)),
        };
        match self.still_leads_by(vote).await.map_err(halted)? {
            true => Ok(read),
            false => Err(ReadError::NoLeader),
        }
    }

    /// The index that a linearizable read must wait for; only a leader answers.
    ///
    /// # Errors
    /// [`ReadError::NoLeader`] where this member does not lead.
    pub async fn on_read_index(&self) -> Result<storage::LogId, ReadError> {
        let read = self.leader_reads.next().await?;
        Ok(raft::log_id_message(&read))
    }
}
