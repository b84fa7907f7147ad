//! What every writer does: it sends a call to one member after the other under the same tag until it
//! is answered, and writes down what came of it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tally_proto::v1;
use tokio::sync::watch;
use tokio::time::timeout;
use tonic::transport::Channel;

use super::{LoadOptions, Recorded, Sent};
use crate::call::{Call, is_final, send};
use crate::read::Reader;
use crate::requester::{Requester, fresh_marker, lazy_channel};

/// Before the same call is sent to the next member.
const BETWEEN_ATTEMPTS: Duration = Duration::from_millis(20);
/// A session keeps a bounded number of outcomes that were not acknowledged. None is acknowledged here,
/// so that every call can be sent again at the end; so each session is used for so many calls.
const CALLS_PER_SESSION_MAX: usize = 500;

/// See the module.
pub(super) struct Writer {
    ways: Vec<Channel>,
    /// The member that is asked next.
    next: usize,
    options: LoadOptions,
    stopping: watch::Receiver<bool>,
    answered: watch::Sender<usize>,
    session: Option<Requester>,
    session_calls: usize,
    recorded: Recorded,
}

impl Writer {
    pub(super) fn new(
        addresses: &[String],
        first: usize,
        options: &LoadOptions,
        stopping: watch::Receiver<bool>,
        answered: watch::Sender<usize>,
    ) -> Result<Self> {
        let ways = addresses.iter().map(|address| lazy_channel(address));
        Ok(Self {
            ways: ways.collect::<Result<_>>()?,
            next: first,
            options: options.clone(),
            stopping,
            answered,
            session: None,
            session_calls: 0,
            recorded: Recorded::default(),
        })
    }

    /// What was recorded, at the end.
    pub(super) fn finish(self) -> Recorded {
        self.recorded
    }

    pub(super) fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    /// Sends the call that `make` makes, under the next tag of a session, until it is answered;
    /// `None` when the writer was stopped before.
    pub(super) async fn ask(
        &mut self,
        name: &str,
        make: impl FnOnce(&mut Requester) -> Call,
    ) -> Result<Option<v1::Answer>> {
        let Some(session) = self.session().await else {
            return Ok(None);
        };
        let call = make(session);
        let answer = self.call(name, call).await;
        self.rest(self.options.pause).await;
        answer
    }

    /// The session for the next call; `None` when the writer was stopped before there was one.
    async fn session(&mut self) -> Option<&mut Requester> {
        if self.session_calls >= CALLS_PER_SESSION_MAX {
            self.session = None;
        }
        let marker = fresh_marker();
        while self.session.is_none() {
            if self.is_stopping() {
                return None;
            }
            let way = self.way();
            let opening = Requester::try_open(&way, marker.clone());
            match timeout(self.options.attempt, opening).await {
                Ok(Ok(session)) => {
                    self.session = Some(session);
                    self.session_calls = 0;
                }
                // At worst an idle session is left.
                Ok(Err(_)) | Err(_) => self.rest(BETWEEN_ATTEMPTS).await,
            }
        }
        self.session_calls += 1;
        self.session.as_mut()
    }

    async fn call(&mut self, name: &str, call: Call) -> Result<Option<v1::Answer>> {
        let mut sent = Sent::begun(name, call);
        while sent.answered.is_none() && (sent.attempts == 0 || !self.is_stopping()) {
            sent.attempts += 1;
            let way = self.way();
            match send(&way, &sent.call, self.options.attempt).await {
                Ok(answer) => {
                    check_sane(&answer).with_context(|| format!("{:?}", sent.call))?;
                    sent.answered = Some((Instant::now(), answer));
                    self.answered.send_modify(|count| *count += 1);
                }
                Err(status) if is_final(&status) => {
                    bail!("{name}: {status}, which {:?} must not get", sent.call)
                }
                Err(_) => self.rest(BETWEEN_ATTEMPTS).await,
            }
        }
        let answer = sent.answered.as_ref().map(|(_, answer)| answer.clone());
        self.recorded.sent.push(sent);
        Ok(answer)
    }

    /// Reads a node once; `None` when it is not answered.
    pub(super) async fn read(&mut self, name: &str) -> Option<v1::Node> {
        let way = self.way();
        let reader = Reader::over(way, v1::Consistency::Linearizable).within(self.options.attempt);
        let Ok(seen) = reader.seen(name).await else {
            self.rest(BETWEEN_ATTEMPTS).await;
            return None;
        };
        let node = seen.node.clone();
        self.recorded.seen.push(seen);
        self.answered.send_modify(|count| *count += 1);
        self.rest(self.options.pause).await;
        node
    }

    /// Waits for a while, or until the writer is stopped.
    pub(super) async fn rest(&mut self, span: Duration) {
        // Over, or stopped, or the load is gone: in each case the writer looks again.
        let _ = timeout(span, self.stopping.wait_for(|stop| *stop)).await;
    }

    /// The members take turns.
    fn way(&mut self) -> Channel {
        self.next = (self.next + 1) % self.ways.len();
        self.ways[self.next].clone()
    }
}

/// Refusals that say that the cluster forgot something, or took the call for another one.
fn check_sane(answer: &v1::Answer) -> Result<()> {
    let Some(v1::answer::Outcome::Refused(refused)) = &answer.outcome else {
        return Ok(());
    };
    let (session, node) = ("T-2", "T-301");
    if refused.code.starts_with(session) || refused.code == node {
        bail!("refused {}: {}", refused.code, refused.found);
    }
    Ok(())
}
