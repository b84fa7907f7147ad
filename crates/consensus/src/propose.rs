//! Commands on their way to an answer. Whoever leads appends; everyone else passes the command on
//! under its tag, again and again while leadership moves, until it is answered or its deadline is
//! past.

use std::time::Duration;

use bytes::Bytes;
use openraft::errors::ClientWriteError;
use openraft::impls::OneshotResponder;
use openraft::raft::ClientWriteResult;
use tally_model::{Answer, MemberId, Outcome, Refusal, Request};
use tally_proto::convert::encode_request;
use tally_proto::storage;
use tokio::time::{Instant, timeout, timeout_at};

use crate::forward::ForwardError;
use crate::raft::{Proposal, TypeConfig};
use crate::replica::Replica;
use crate::status::count;

/// How long to wait for news of a leader before asking again.
const LEADER_NEWS: Duration = Duration::from_millis(20);
/// How long to leave a leader alone that has just taken over and has no room: twice as long each time, up to this.
const ROOM_MAX: Duration = Duration::from_millis(640);

/// Why a command was not taken. Nothing of it will ever take effect.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAccepted {
    /// Too many commands are under way.
    #[error("too many commands are under way")]
    Overloaded,
    /// No leader could be reached in time.
    #[error("no leader could be reached in time")]
    NoLeader,
    /// The leader does not know this command: it runs an older version.
    #[error("the leader does not know this command")]
    NotUnderstood,
    /// This member has stopped.
    #[error("this member has stopped: {0}")]
    Halted(String),
}

/// Why there is no answer to a command.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// See [`NotAccepted`]: sending it again is safe, under any tag.
    #[error(transparent)]
    NotAccepted(#[from] NotAccepted),
    /// It may take effect, or have taken effect. Sending it again is safe under the same tag only.
    #[error("the outcome is unknown")]
    Unknown,
}

/// How one attempt ended without an answer.
#[derive(Debug)]
pub(crate) enum Attempt {
    /// Nothing was appended: no leader is known, or who was asked does not lead.
    NotLeader,
    /// Too much under way where it was to be appended; nothing was.
    Overloaded,
    /// The leader does not know the command; nothing was appended.
    NotUnderstood,
    /// It may have been appended.
    Lost,
    /// The replica has stopped before it was appended.
    Halted(String),
}

/// True for refusals that apply gives without looking for, or keeping, the tag's outcome: an earlier
/// attempt may have been applied, or may be yet.
fn forgets(answer: &Answer) -> bool {
    matches!(
        answer.outcome,
        Outcome::Refused(Refusal::SessionExpired { .. } | Refusal::TooManyUnacknowledged { .. })
    )
}

impl Replica {
    /// Proposes a command and waits for what apply decided, until `deadline`.
    ///
    /// A tagged command takes effect at most once however often it is proposed. An untagged one is
    /// sent again too: opening a second session leaves an idle one, and a cluster is founded once.
    ///
    /// # Errors
    /// See [`ProposeError`], which says what a retry risks.
    pub async fn propose(
        &self,
        request: Request,
        deadline: std::time::Instant,
    ) -> Result<Answer, ProposeError> {
        count(&self.counts.proposals);
        // However much clients ask, leases end and what was compacted goes.
        let _permit = match (self.inflight.try_acquire(), &request.command) {
            (Ok(permit), _) => Some(permit),
            (Err(_), own) if own.is_the_leaders_own() => None,
            (Err(_), _) => {
                count(&self.counts.overloaded);
                return Err(NotAccepted::Overloaded.into());
            }
        };
        let deadline = Instant::from_std(deadline);
        let request = encode_request(&request);
        let mut maybe_appended = false;
        // Once leadership has moved: how long to wait when there is no room at the next leader, which all turn to at a time.
        let mut for_room = None;
        let refusal = loop {
            let asked = self.status.borrow().leader;
            let attempt = match self.attempt(&request, deadline).await {
                // Apply does not remember what became of an earlier attempt.
                Ok(answer) if maybe_appended && forgets(&answer) => {
                    return Err(ProposeError::Unknown);
                }
                Ok(answer) => {
                    if maybe_appended && answer.repeat {
                        count(&self.counts.recognised);
                    }
                    return Ok(answer);
                }
                Err(attempt) => attempt,
            };
            let late = match attempt {
                Attempt::NotLeader => {
                    self.leader_news(deadline).await;
                    NotAccepted::NoLeader
                }
                Attempt::Lost => {
                    maybe_appended = true;
                    // Who lost it may lose it again.
                    if self.status.borrow().leader == asked {
                        self.leader_news(deadline).await;
                    }
                    NotAccepted::NoLeader
                }
                Attempt::Overloaded => match for_room {
                    Some(wait) => {
                        self.news_within(deadline, wait).await;
                        for_room = Some(ROOM_MAX.min(wait * 2));
                        NotAccepted::Overloaded
                    }
                    None => break NotAccepted::Overloaded,
                },
                Attempt::NotUnderstood => break NotAccepted::NotUnderstood,
                Attempt::Halted(why) => break NotAccepted::Halted(why),
            };
            if Instant::now() >= deadline {
                break late;
            }
            for_room = for_room.or(Some(LEADER_NEWS));
            count(&self.counts.retried);
        };
        if maybe_appended {
            return Err(ProposeError::Unknown);
        }
        if refusal == NotAccepted::Overloaded {
            count(&self.counts.overloaded);
        }
        Err(refusal.into())
    }

    /// Proposes once, to whoever leads now, and gives up when leadership moves.
    async fn attempt(&self, request: &Bytes, deadline: Instant) -> Result<Answer, Attempt> {
        let (leader, halted) = {
            let status = self.status.borrow();
            (status.leader, status.halted.clone())
        };
        if let Some(why) = halted {
            return Err(Attempt::Halted(why));
        }
        let Some(leader) = leader else {
            return Err(Attempt::NotLeader);
        };
        let answer = async {
            if leader == self.options.member {
                self.propose_here(request.clone(), deadline).await
            } else {
                self.pass_on(leader, request.clone(), deadline).await
            }
        };
        tokio::select! {
            // The answer first: it may be there although leadership has moved.
            biased;
            answer = answer => answer,
            () = self.leader_is_not(leader) => Err(Attempt::Lost),
        }
    }

    /// Appends here, if this member leads, and waits until it is applied.
    pub(crate) async fn propose_here(
        &self,
        request: Bytes,
        deadline: Instant,
    ) -> Result<Answer, Attempt> {
        let proposal = Proposal(storage::Proposal {
            request,
            unix_ms: self.deps.clock.unix_ms(),
        });
        let (responder, answered) =
            OneshotResponder::<TypeConfig, ClientWriteResult<TypeConfig>>::new_pair();
        let submitted = self.raft.client_write_ff(proposal, Some(responder)).await;
        submitted.map_err(|fatal| Attempt::Halted(fatal.to_string()))?;
        let Ok(Ok(written)) = timeout_at(deadline, answered).await else {
            // Late, or the replica stopped while it was under way.
            return Err(Attempt::Lost);
        };
        match written {
            Ok(response) => response.data.ok_or(Attempt::Lost),
            Err(ClientWriteError::ForwardToLeader(_)) => Err(Attempt::NotLeader),
            Err(ClientWriteError::LogEntryDiscarded(_)) => Err(Attempt::Lost),
            Err(
                error @ (ClientWriteError::ChangeMembershipError(_)
                | ClientWriteError::PreconditionFailed(_)),
            ) => {
                tracing::error!(%error, "a command was refused for a reason that commands do not have");
                Err(Attempt::Lost)
            }
        }
    }

    async fn pass_on(
        &self,
        leader: MemberId,
        request: Bytes,
        deadline: Instant,
    ) -> Result<Answer, Attempt> {
        count(&self.counts.forwarded);
        let link = || self.link(leader);
        let forwarded = self.forwarder.forward(leader, link, request, deadline);
        match timeout_at(deadline, forwarded).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(ForwardError::NotSent | ForwardError::NotLeader)) => Err(Attempt::NotLeader),
            Ok(Err(ForwardError::Overloaded)) => Err(Attempt::Overloaded),
            Ok(Err(ForwardError::NotUnderstood)) => Err(Attempt::NotUnderstood),
            Ok(Err(ForwardError::Lost)) | Err(_) => Err(Attempt::Lost),
        }
    }

    /// Resolves when this member believes in another leader than `leader`. That there is none for a
    /// moment is no news: the same one may go on.
    async fn leader_is_not(&self, leader: MemberId) {
        let mut lead = self.lead.clone();
        let moved = lead.wait_for(|now| {
            let another = now.leader.is_some_and(|now| now != leader);
            another || now.halted
        });
        if moved.await.is_err() {
            // The replica is being dropped, and the attempt with it.
            std::future::pending::<()>().await;
        }
    }

    /// Waits for a change of leadership, but not for long: who refused may know it already.
    pub(crate) async fn leader_news(&self, deadline: Instant) {
        self.news_within(deadline, LEADER_NEWS).await;
    }

    async fn news_within(&self, deadline: Instant, wait: Duration) {
        let mut lead = self.lead.clone();
        let before = lead.borrow_and_update().leader;
        let left = deadline.saturating_duration_since(Instant::now());
        let changed = lead.wait_for(|now| now.leader != before);
        // News or not, the caller looks again.
        let _ = timeout(left.min(wait), changed).await;
    }
}
