//! What other members ask of this one. Who they are was checked before.

use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::stream::BoxStream;
use futures::{Stream, StreamExt, TryStreamExt};
use openraft::errors::{Fatal, RaftError};
use prost::Message;
use tally_model::Answer;
use tally_proto::convert::{decode_request, encode_request};
use tally_proto::peer;
use tally_proto::peer::forward_answer::Kind;
use tally_proto::peer::forward_failure::Reason;
use tokio::time::Instant;

use crate::forward::{BATCH_BYTES_MAX, BATCH_MAX};
use crate::link::{Answers, LinkError};
use crate::propose::Attempt;
use crate::raft::{self, Incomplete, TypeConfig};
use crate::replica::Replica;
use crate::snapshot;

/// Passed-on commands of one stream that are under way at a time.
const FORWARDED_MAX: usize = 4_096;

fn refused(what: impl ToString) -> LinkError {
    LinkError::Refused(what.to_string())
}

fn stopped(fatal: Fatal<TypeConfig>) -> LinkError {
    LinkError::Refused(format!("this member has stopped: {fatal}"))
}

fn stopped_raft(error: RaftError<TypeConfig>) -> LinkError {
    stopped(error.unwrap_fatal())
}

impl Replica {
    /// Replication: answers come in the order of the requests, each when its entries are on disk.
    pub fn on_append(
        &self,
        requests: impl Stream<Item = peer::AppendRequest> + Send + 'static,
    ) -> Answers<peer::AppendResponse> {
        let heard = self.heard.clone();
        let understood = requests
            .inspect(move |_| heard.now())
            .map(raft::append)
            .inspect_err(
                |error: &Incomplete| tracing::error!(%error, "replication cannot be understood"),
            )
            // Ends the stream: the leader begins anew.
            .take_while(|request| futures::future::ready(request.is_ok()))
            .filter_map(|request| futures::future::ready(request.ok()));
        let results = self.raft.stream_append(understood);
        results
            .map(|result| Ok(raft::append_result_message(result.map_err(stopped)?)))
            .boxed()
    }

    /// A candidate asks for this member's vote. Answered when the vote is on disk.
    ///
    /// # Errors
    /// When the request cannot be understood or this member has stopped.
    pub async fn on_vote(&self, ask: peer::VoteRequest) -> Result<peer::VoteResponse, LinkError> {
        let request = raft::vote_request(ask).map_err(refused)?;
        let response = self.raft.vote(request).await.map_err(stopped_raft)?;
        Ok(raft::vote_response_message(&response))
    }

    /// Would this member vote for the candidate? Nothing changes.
    ///
    /// # Errors
    /// As for [`Replica::on_vote`].
    pub async fn on_pre_vote(
        &self,
        ask: peer::VoteRequest,
    ) -> Result<peer::VoteResponse, LinkError> {
        let request = raft::vote_request(ask).map_err(refused)?;
        let response = self.raft.pre_vote(request).await.map_err(stopped_raft)?;
        Ok(raft::vote_response_message(&response))
    }

    /// The leader asks this member to take over.
    ///
    /// # Errors
    /// As for [`Replica::on_vote`].
    pub async fn on_transfer_leader(
        &self,
        ask: peer::TransferLeaderRequest,
    ) -> Result<peer::TransferLeaderResponse, LinkError> {
        let request = raft::transfer_request(&ask).map_err(refused)?;
        let answer = self.raft.handle_transfer_leader(request).await;
        let refusal = answer.map_err(stopped)?.err();
        Ok(peer::TransferLeaderResponse {
            accepted: refusal.is_none(),
            reason: refusal.map(|why| why.to_string()).unwrap_or_default(),
        })
    }

    /// A whole snapshot, one at a time.
    ///
    /// # Errors
    /// When the snapshot is not what its header and digest say, when another one is being received,
    /// or when this member has stopped.
    pub async fn on_install_snapshot(
        &self,
        frames: impl Stream<Item = Result<peer::SnapshotFrame, LinkError>> + Send,
    ) -> Result<peer::InstallSnapshotResponse, LinkError> {
        let busy = |_| refused("another snapshot is being received");
        let _one = self.installing.try_lock().map_err(busy)?;
        let received = snapshot::receive(&self.stores.state, frames).await;
        let (vote, received) = received.inspect_err(
            |error| tracing::warn!(%error, "a snapshot did not arrive; nothing of it is kept"),
        )?;
        let snapshot = raft::snapshot_of(received).map_err(refused)?;
        self.heard.now();
        let installed = self
            .raft
            .install_full_snapshot(vote, snapshot)
            .await
            .map_err(stopped)?;
        Ok(peer::InstallSnapshotResponse {
            vote: Some(raft::vote_message(&installed.vote)),
        })
    }

    /// Commands that another member passes on.
    pub fn on_forward(
        &self,
        requests: impl Stream<Item = peer::ForwardRequest> + Send + 'static,
    ) -> BoxStream<'static, peer::ForwardResponse> {
        let replica = self.clone();
        requests
            .flat_map(|request| futures::stream::iter(request.commands))
            .map(move |command| {
                let replica = replica.clone();
                async move { replica.answer_forwarded(command).await }
            })
            .buffer_unordered(FORWARDED_MAX)
            .ready_chunks(BATCH_MAX)
            .flat_map(|answers| futures::stream::iter(messages(answers)))
            .boxed()
    }

    async fn answer_forwarded(&self, command: peer::ForwardCommand) -> peer::ForwardAnswer {
        let number = command.number;
        let kind = match self.propose_forwarded(command).await {
            Ok(answer) => Kind::Answer(answer.into()),
            Err(reason) => Kind::Failure(peer::ForwardFailure {
                reason: reason.into(),
                leader: self.status.borrow().leader.unwrap_or_default().0,
            }),
        };
        peer::ForwardAnswer {
            number,
            kind: Some(kind),
        }
    }

    async fn propose_forwarded(&self, command: peer::ForwardCommand) -> Result<Answer, Reason> {
        // What is appended must be understood by every member when it is applied. It is written anew,
        // without what a newer member may have put into it: all must come to the same state.
        let checked = decode_request(command.request).map_err(|error| {
            tracing::error!(%error, "a passed-on command cannot be understood");
            Reason::NotUnderstood
        })?;
        let Ok(_permit) = self.inflight.try_acquire() else {
            self.counts.overloaded.fetch_add(1, Ordering::Relaxed);
            return Err(Reason::Overloaded);
        };
        let deadline =
            Instant::now() + Duration::from_millis(command.deadline_ms.min(DEADLINE_MS_MAX));
        match self.propose_here(encode_request(&checked), deadline).await {
            Ok(answer) => Ok(answer),
            Err(Attempt::NotLeader | Attempt::Halted(_)) => Err(Reason::NotLeader),
            Err(Attempt::Overloaded) => Err(Reason::Overloaded),
            Err(Attempt::NotUnderstood) => Err(Reason::NotUnderstood),
            Err(Attempt::Lost) => Err(Reason::Unknown),
        }
    }
}

/// Answers that are ready together, in messages that are not too large to be taken.
fn messages(answers: Vec<peer::ForwardAnswer>) -> Vec<peer::ForwardResponse> {
    let mut messages: Vec<peer::ForwardResponse> = Vec::new();
    let mut bytes = 0;
    for answer in answers {
        let more = answer.encoded_len();
        bytes += more;
        match messages.last_mut() {
            Some(last) if bytes <= BATCH_BYTES_MAX => last.answers.push(answer),
            Some(_) | None => {
                bytes = more;
                messages.push(peer::ForwardResponse {
                    answers: vec![answer],
                });
            }
        }
    }
    messages
}

/// Longest time that a passed-on command waits here.
const DEADLINE_MS_MAX: u64 = 10 * 60 * 1_000;

#[cfg(test)]
mod tests {
    use tally_model::{Effect, KeyAnswer, KeyValue, Outcome, Revision};

    use super::*;

    fn answer(number: u64, bytes: usize) -> peer::ForwardAnswer {
        let revision = Revision(7);
        let previous = KeyValue {
            key: "k".into(),
            value: vec![0; bytes].into(),
            created: revision,
            modified: revision,
            version: 1,
            lease: None,
        };
        let answer = KeyAnswer::Put {
            revision,
            previous: Some(previous),
        };
        let answer = Answer {
            outcome: Outcome::Applied {
                revision,
                effect: Effect::Keys(answer),
            },
            repeat: false,
            now: None,
            revision,
        };
        peer::ForwardAnswer {
            number,
            kind: Some(Kind::Answer(answer.into())),
        }
    }

    #[test]
    fn answers_that_are_too_much_for_one_message_go_in_several() {
        let half = BATCH_BYTES_MAX / 2;
        let sizes = [1, half, 1, half, 2 * BATCH_BYTES_MAX, 1, 1];
        let answers = (0..)
            .zip(sizes)
            .map(|(number, bytes)| answer(number, bytes));
        let numbers = |message: &peer::ForwardResponse| {
            let answers = message.answers.iter();
            answers.map(|answer| answer.number).collect::<Vec<_>>()
        };
        let sent: Vec<_> = messages(answers.collect()).iter().map(numbers).collect();
        assert_eq!(sent, [vec![0, 1, 2], vec![3], vec![4], vec![5, 6]]);
        assert!(messages(Vec::new()).is_empty());
    }
}
