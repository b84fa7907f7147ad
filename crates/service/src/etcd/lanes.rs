//! Tags for writes that come without one. A member is a requester itself: whatever it passes on has a
//! tag, so that passing it on once more after a leader change does not apply it twice.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tally_consensus::{NotAccepted, ProposeError, Replica};
use tally_model::command::OpenSession;
use tally_model::{
    Answer, Command, Effect, Marker, Outcome, Refusal, Request, SessionId, Tag, Tagged,
};

/// Sessions of one member. A request that takes long holds up what its session may forget, so there are
/// several.
const LANES: usize = 16;

/// Requests from the oldest one under way up to the next, in one session. Below the number of outcomes
/// that a session may hold, whatever the cluster was founded with.
const WINDOW_MAX: u64 = 512;

/// How long to wait for a session, whoever needs it.
const OPENED_WITHIN: Duration = Duration::from_secs(10);
const OPENED_AGAIN_AFTER: Duration = Duration::from_millis(20);

/// See the module.
pub(super) struct Lanes {
    marker: Marker,
    next: AtomicUsize,
    lanes: [Arc<Lane>; LANES],
}

#[derive(Default)]
struct Lane {
    /// Held while the session is opened.
    opening: Arc<tokio::sync::Mutex<()>>,
    numbers: Mutex<Numbers>,
}

#[derive(Default)]
struct Numbers {
    session: Option<SessionId>,
    last: u64,
    under_way: BTreeSet<u64>,
}

impl Numbers {
    /// Every sequence below is answered, or will never be asked about again.
    fn acknowledged(&self) -> u64 {
        self.under_way.first().copied().unwrap_or(self.last + 1)
    }
}

/// A tag that is in use.
struct Taken {
    lane: Arc<Lane>,
    tag: Tag,
    acknowledged: u64,
}

impl Drop for Taken {
    fn drop(&mut self) {
        let mut numbers = self.lane.lock();
        if numbers.session == Some(self.tag.session) {
            numbers.under_way.remove(&self.tag.sequence);
        }
    }
}

impl Lane {
    fn lock(&self) -> MutexGuard<'_, Numbers> {
        self.numbers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_full(&self) -> bool {
        let numbers = self.lock();
        numbers.last + 1 - numbers.acknowledged() >= WINDOW_MAX
    }

    /// The next tag, if a session is open.
    fn take(self: &Arc<Self>) -> Option<Taken> {
        let mut numbers = self.lock();
        let session = numbers.session?;
        numbers.last += 1;
        let sequence = numbers.last;
        numbers.under_way.insert(sequence);
        Some(Taken {
            lane: self.clone(),
            tag: Tag { session, sequence },
            acknowledged: numbers.acknowledged(),
        })
    }

    /// The session has ended: the next request opens another one.
    fn forget(&self, session: SessionId) {
        let mut numbers = self.lock();
        if numbers.session == Some(session) {
            *numbers = Numbers::default();
        }
    }
}

impl Lanes {
    /// Tags under a marker of this process.
    pub(super) fn new(marker: Marker) -> Self {
        Self {
            marker,
            next: AtomicUsize::new(0),
            lanes: Default::default(),
        }
    }

    /// Proposes a command under a tag of this member's own.
    ///
    /// # Errors
    /// `None` when too many are under way already.
    pub(super) async fn propose(
        &self,
        replica: &Replica,
        command: Command,
        deadline: Instant,
    ) -> Result<Answer, Option<ProposeError>> {
        loop {
            let taken = self.take(replica, deadline).await?;
            let request = Request {
                tagged: Some(Tagged {
                    tag: taken.tag,
                    marker: Some(self.marker),
                    acknowledged: taken.acknowledged,
                    // No tag is given to two requests, so there is nothing to tell apart.
                    digest: 0,
                }),
                command: command.clone(),
            };
            let answer = replica.propose(request, deadline).await.map_err(Some)?;
            match answer.outcome {
                // Nothing was applied, and nothing will be: the session is gone for ever.
                Outcome::Refused(Refusal::SessionExpired { session }) => taken.lane.forget(session),
                _ => return Ok(answer),
            }
        }
    }

    async fn take(
        &self,
        replica: &Replica,
        deadline: Instant,
    ) -> Result<Taken, Option<ProposeError>> {
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        let mut lanes = (0..LANES).map(|more| &self.lanes[(first + more) % LANES]);
        let lane = lanes.find(|lane| !lane.is_full()).ok_or(None)?;
        loop {
            if let Some(taken) = lane.take() {
                return Ok(taken);
            }
            let late = |_| Some(NotAccepted::NoLeader.into());
            let opening = lane.opening.clone().lock_owned();
            let opening = tokio::time::timeout_at(deadline.into(), opening).await;
            let opening = opening.map_err(late)?;
            if lane.lock().session.is_none() {
                // Its session is for those that come after it, too, though nobody waits for it any more.
                let opened = tokio::spawn({
                    let (lane, replica, marker) = (lane.clone(), replica.clone(), self.marker);
                    async move {
                        let session = open(&replica, marker).await?;
                        lane.lock().session = Some(session);
                        drop(opening);
                        Ok(())
                    }
                });
                let opened = tokio::time::timeout_at(deadline.into(), opened).await;
                match opened.map_err(late)? {
                    Ok(Ok(())) => {}
                    // Of the caller's own nothing was appended, and it may have more time than that took.
                    Ok(Err(Some(
                        ProposeError::Unknown | ProposeError::NotAccepted(NotAccepted::NoLeader),
                    )))
                    | Err(_)
                        if Instant::now() < deadline =>
                    {
                        tokio::time::sleep(OPENED_AGAIN_AFTER).await;
                    }
                    Ok(Err(Some(ProposeError::Unknown))) | Err(_) => {
                        return Err(Some(NotAccepted::NoLeader.into()));
                    }
                    Ok(Err(why)) => return Err(why),
                }
            }
        }
    }
}

/// Opens a session of this member's own.
async fn open(replica: &Replica, marker: Marker) -> Result<SessionId, Option<ProposeError>> {
    let request = Request {
        tagged: None,
        command: Command::OpenSession(OpenSession { marker }),
    };
    let deadline = Instant::now() + OPENED_WITHIN;
    let answer = replica.propose(request, deadline).await.map_err(Some)?;
    match answer.outcome {
        Outcome::Applied {
            effect: Effect::SessionOpened { session },
            ..
        } => Ok(session),
        outcome => {
            tracing::error!(?outcome, "a session of this member's own was not opened");
            Err(Some(NotAccepted::NoLeader.into()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(session: u64) -> Arc<Lane> {
        let lane = Arc::new(Lane::default());
        lane.lock().session = Some(SessionId(session));
        lane
    }

    fn take(lane: &Arc<Lane>) -> Taken {
        lane.take().expect("a session is open")
    }

    #[test]
    fn nothing_from_the_oldest_request_under_way_on_is_acknowledged() {
        let lane = open(7);
        let (first, second) = (take(&lane), take(&lane));
        assert_eq!((first.tag.sequence, second.tag.sequence), (1, 2));
        drop(second);
        assert_eq!(take(&lane).acknowledged, 1);
        drop(first);
        let next = take(&lane);
        assert_eq!((next.tag.sequence, next.acknowledged), (4, 4));
    }

    #[test]
    fn one_request_that_takes_long_fills_its_lane_and_no_other() {
        let lanes = Lanes::new(Marker {
            bits: 7,
            created_unix_ms: 0,
        });
        let [lane, other, ..] = &lanes.lanes;
        for lane in [lane, other] {
            lane.lock().session = Some(SessionId(7));
        }
        let long = take(lane);
        for _ in 1..WINDOW_MAX {
            assert!(!lane.is_full());
            drop(take(lane));
        }
        assert!(lane.is_full() && !other.is_full());
        drop(long);
        assert!(!lane.is_full());
    }

    #[test]
    fn a_request_of_a_session_that_has_ended_takes_nothing_from_the_next() {
        let lane = open(7);
        let old = take(&lane);
        lane.forget(SessionId(7));
        assert!(lane.take().is_none());
        lane.lock().session = Some(SessionId(8));
        let new = take(&lane);
        // Of the session before: it was noticed late.
        lane.forget(SessionId(7));
        drop(old);
        assert_eq!(take(&lane).acknowledged, new.tag.sequence);
    }
}
