//! Commands that a follower passes on: one multiplexed stream to the leader, many commands to a
//! message, answers in any order.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures::StreamExt;
use tally_model::{Answer, MemberId};
use tally_proto::peer::forward_answer::Kind;
use tally_proto::peer::forward_failure::Reason;
use tally_proto::peer::{ForwardAnswer, ForwardCommand, ForwardRequest};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;

use crate::link::{Answers, LinkError, PeerLink};

/// Commands in one message.
pub(crate) const BATCH_MAX: usize = 256;
/// Bytes in one message, unless a single command is larger.
pub(crate) const BATCH_BYTES_MAX: usize = 8 << 20;
/// Commands that wait to be sent to one member.
const QUEUE_MAX: usize = 4_096;
/// Messages between this task and the network.
const MESSAGES_WAITING_MAX: usize = 4;

/// Why a command that was passed on has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ForwardError {
    /// It never left this member.
    NotSent,
    /// The other member does not lead and appended nothing.
    NotLeader,
    /// The other member has too much under way and appended nothing.
    Overloaded,
    /// The other member does not know this command and appended nothing.
    NotUnderstood,
    /// It may have been appended.
    Lost,
}

type Reply = oneshot::Sender<Result<Answer, ForwardError>>;

struct Job {
    request: Bytes,
    deadline: Instant,
    reply: Reply,
}

/// The streams that are open, by the member at their other end.
#[derive(Default)]
pub(crate) struct Forwarder {
    streams: Mutex<BTreeMap<MemberId, mpsc::Sender<Job>>>,
}

impl Forwarder {
    /// Passes a command on and waits for the answer, for ever: the caller has a deadline. `link` is
    /// asked for only when there is no stream yet; without one the command is not sent.
    pub(crate) async fn forward(
        &self,
        to: MemberId,
        link: impl FnOnce() -> Option<Arc<dyn PeerLink>>,
        request: Bytes,
        deadline: Instant,
    ) -> Result<Answer, ForwardError> {
        let (reply, answered) = oneshot::channel();
        let job = Job {
            request,
            deadline,
            reply,
        };
        let queue = self.queue(to, link).ok_or(ForwardError::NotSent)?;
        if queue.send(job).await.is_err() {
            return Err(ForwardError::NotSent);
        }
        // A reply that was dropped: the task ended with the command under way.
        answered.await.unwrap_or(Err(ForwardError::Lost))
    }

    /// The queue of a stream that lives.
    fn queue(
        &self,
        to: MemberId,
        link: impl FnOnce() -> Option<Arc<dyn PeerLink>>,
    ) -> Option<mpsc::Sender<Job>> {
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        streams.retain(|_, queue| !queue.is_closed());
        if let Some(queue) = streams.get(&to) {
            return Some(queue.clone());
        }
        let (queue, jobs) = mpsc::channel(QUEUE_MAX);
        tokio::spawn(run(link()?, jobs));
        streams.insert(to, queue.clone());
        Some(queue)
    }

    /// Ends every stream.
    pub(crate) fn close(&self) {
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        streams.clear();
    }
}

/// Serves one stream until it breaks, and then says of every command what became of it.
async fn run(link: Arc<dyn PeerLink>, mut jobs: mpsc::Receiver<Job>) {
    let (messages, sent) = mpsc::channel(MESSAGES_WAITING_MAX);
    let mut pending = HashMap::new();
    // Taken from the queue and not given to the network yet.
    let mut batch = Vec::new();
    match link.forward(ReceiverStream::new(sent).boxed()).await {
        Ok(answers) => {
            if let Err(error) = carry(&mut jobs, &mut batch, &messages, answers, &mut pending).await
            {
                tracing::debug!(%error, "the stream of passed-on commands broke");
            }
        }
        Err(error) => tracing::debug!(%error, "commands cannot be passed on"),
    }
    jobs.close();
    for (_, reply) in pending {
        let _ = reply.send(Err(ForwardError::Lost));
    }
    while let Some(job) = jobs.recv().await {
        batch.push(job);
    }
    for job in batch {
        let _ = job.reply.send(Err(ForwardError::NotSent));
    }
}

async fn carry(
    jobs: &mut mpsc::Receiver<Job>,
    batch: &mut Vec<Job>,
    messages: &mpsc::Sender<ForwardRequest>,
    mut answers: Answers<tally_proto::peer::ForwardResponse>,
    pending: &mut HashMap<u64, Reply>,
) -> Result<(), LinkError> {
    let ended = || LinkError::Broken("the stream ended".to_owned());
    let mut number = 0;
    loop {
        tokio::select! {
            received = jobs.recv_many(batch, BATCH_MAX), if batch.is_empty() => {
                if received == 0 {
                    // Nobody can ask any more.
                    return Ok(());
                }
            }
            permit = messages.reserve(), if !batch.is_empty() => {
                let permit = permit.map_err(|_| ended())?;
                permit.send(message(batch, &mut number, pending));
            }
            answer = answers.next() => {
                for answer in answer.ok_or_else(ended)??.answers {
                    resolve(answer, pending);
                }
            }
        }
    }
}

/// Takes as much of the batch as one message may hold.
fn message(
    batch: &mut Vec<Job>,
    number: &mut u64,
    pending: &mut HashMap<u64, Reply>,
) -> ForwardRequest {
    let now = Instant::now();
    let mut bytes = 0;
    let fitting = batch.iter().take_while(|job| {
        let first = bytes == 0;
        bytes += job.request.len();
        first || bytes <= BATCH_BYTES_MAX
    });
    let fitting = fitting.count();
    let commands = batch.drain(..fitting).map(|job| {
        *number += 1;
        let left = job.deadline.saturating_duration_since(now);
        pending.insert(*number, job.reply);
        ForwardCommand {
            number: *number,
            request: job.request,
            deadline_ms: left.as_millis().try_into().unwrap_or(u64::MAX),
        }
    });
    ForwardRequest {
        commands: commands.collect(),
    }
}

fn resolve(answer: ForwardAnswer, pending: &mut HashMap<u64, Reply>) {
    let Some(reply) = pending.remove(&answer.number) else {
        tracing::warn!(number = answer.number, "an answer that nobody asked for");
        return;
    };
    let result = match answer.kind {
        Some(Kind::Answer(answer)) => Answer::try_from(answer).map_err(|error| {
            tracing::error!(%error, "an answer cannot be understood");
            ForwardError::Lost
        }),
        Some(Kind::Failure(failure)) => Err(match failure.reason() {
            Reason::NotLeader => ForwardError::NotLeader,
            Reason::Overloaded => ForwardError::Overloaded,
            Reason::NotUnderstood => ForwardError::NotUnderstood,
            Reason::Unknown | Reason::Unspecified => ForwardError::Lost,
        }),
        None => Err(ForwardError::Lost),
    };
    // The caller's deadline may be past.
    let _ = reply.send(result);
}
