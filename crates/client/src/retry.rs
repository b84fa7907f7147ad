//! Sending again: whom to ask next, how long to wait, and what a failure says of what happened.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tally_model::explanation::codes;
use tally_proto::fault::{self, Fault};
use tokio::time::{Instant, sleep, timeout};
use tonic::{Code, Status};

use crate::call::Call;
use crate::connection::{Connection, Pool};
use crate::error::Error;

/// First pause before the same member, or the same round of members, is asked again.
const PAUSE_MIN: Duration = Duration::from_millis(20);
/// Longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// An attempt other than the first is not begun with less time than this: a member that finds no leader
/// would not get to say so, and a request that was never applied would end in doubt.
const ATTEMPT_MIN: Duration = Duration::from_millis(100);

/// What a failed attempt says of the request.
#[derive(Debug)]
pub(crate) enum Failure {
    /// There was no connection to send it over.
    NotSent(String),
    /// A member answered that it did not append it anywhere; another one or a later time may do.
    NotAppended(Fault),
    /// A member turned it down, and every other would.
    Rejected(Fault),
    /// What listens there does not have this call; another endpoint may.
    WrongPort(Fault),
    /// It may have been applied.
    InDoubt(String),
}

impl Failure {
    /// Reads a status. Whatever is not known to be harmless leaves the outcome in doubt.
    pub(crate) fn read(status: &Status) -> Self {
        if let Some(fault) = fault::read(status) {
            return match fault.code.as_str() {
                codes::NO_LEADER
                | codes::OVERLOADED
                | codes::NOT_READY
                | codes::WRONG_PEER
                | codes::EMPTY_DIRECTORY => Self::NotAppended(fault),
                codes::INVALID_ARGUMENT
                | codes::WRONG_CLUSTER
                | codes::TOO_LARGE
                | codes::TRANSFER_FAILED
                | codes::NOT_FOUND => Self::Rejected(fault),
                codes::NOT_SERVED_HERE => Self::WrongPort(fault),
                _ => Self::InDoubt(fault.to_string()),
            };
        }
        let found = describe(status);
        if fault::never_connected(status) {
            Self::NotSent(found)
        } else if status.code() == Code::Unimplemented {
            Self::NotSent(format!("not a Tally member: {found}"))
        } else {
            Self::InDoubt(found)
        }
    }
}

/// The status and what caused it, in one line.
fn describe(status: &Status) -> String {
    let text = fault::with_causes(status.message(), status);
    if text.is_empty() {
        return status.code().description().to_owned();
    }
    text
}

/// What becomes of a request whose attempt may have been applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnDoubt {
    /// It changes nothing that matters: a read, or the opening of a session.
    Ignore,
    /// It carries a tag: the same again, and the doubt is remembered.
    Remember,
    /// It carries no tag: never again.
    Stop,
}

/// Why a request was given up.
#[derive(Debug)]
pub(crate) enum GaveUp {
    /// The deadline passed.
    Deadline,
    /// A member turned it down for good.
    Rejected(Fault),
    /// It may have been applied and must not be sent again.
    InDoubt(String),
}

/// One request's attempts.
pub(crate) struct Attempts<'a> {
    pool: &'a Pool,
    /// `None`: for ever.
    until: Option<Instant>,
    attempt_max: Duration,
    /// Asked in this round.
    tried: BTreeSet<String>,
    /// Endpoints that do not have the call.
    wrong: BTreeSet<String>,
    /// Who leads, as the last member said.
    hint: Option<Arc<Connection>>,
    pause: Duration,
    has_begun: bool,
    in_doubt: bool,
    /// A member answered, if only to say that it cannot serve.
    was_answered: bool,
    last: String,
}

impl<'a> Attempts<'a> {
    pub(crate) fn new(pool: &'a Pool, deadline: Duration, attempt_max: Duration) -> Self {
        Self {
            pool,
            until: Some(Instant::now() + deadline),
            attempt_max,
            tried: BTreeSet::new(),
            wrong: BTreeSet::new(),
            hint: None,
            pause: PAUSE_MIN,
            has_begun: false,
            in_doubt: false,
            was_answered: false,
            last: "nothing was tried".to_owned(),
        }
    }

    /// Attempts of something that has no end, as a watch.
    pub(crate) fn without_deadline(self) -> Self {
        Self {
            until: None,
            ..self
        }
    }

    /// True when an attempt since [`Attempts::start_over`] may have been applied.
    pub(crate) fn in_doubt(&self) -> bool {
        self.in_doubt
    }

    /// Begins another request under the same deadline.
    pub(crate) fn start_over(&mut self) {
        self.in_doubt = false;
    }

    /// The last finding.
    pub(crate) fn last(&self) -> &str {
        &self.last
    }

    /// The error of a request that was certainly not applied.
    pub(crate) fn not_applied(&self) -> Error {
        let (endpoints, last) = (self.pool.urls(), self.last.clone());
        if self.was_answered {
            Error::NoLeader { endpoints, last }
        } else {
            Error::Unreachable { endpoints, last }
        }
    }

    /// Sends a call until a member answers it.
    pub(crate) async fn until_answered<C: Call>(
        &mut self,
        call: &C,
        on_doubt: OnDoubt,
    ) -> Result<C::Answer, GaveUp> {
        loop {
            let left = self.left().ok_or(GaveUp::Deadline)?;
            if self.has_begun && left < ATTEMPT_MIN {
                return Err(GaveUp::Deadline);
            }
            self.has_begun = true;
            let connection = self.choose();
            let failure = match attempt(&connection, call, left.min(self.attempt_max)).await {
                Ok(answer) => {
                    self.pool.prefer(connection.url());
                    return Ok(answer);
                }
                Err(failure) => failure,
            };
            tracing::debug!(endpoint = connection.url(), ?failure, "no answer");
            self.note(&connection, failure, on_doubt).await?;
        }
    }

    /// Records an answer that is no outcome yet, and waits before the next attempt.
    pub(crate) async fn answered_without_outcome(&mut self, found: String) {
        self.was_answered = true;
        self.last = found;
        self.rest(None).await;
    }

    /// Time until the deadline; `None` once it has passed.
    pub(crate) fn left(&self) -> Option<Duration> {
        let Some(until) = self.until else {
            return Some(Duration::MAX);
        };
        let left = until.saturating_duration_since(Instant::now());
        (!left.is_zero()).then_some(left)
    }

    /// The leader when it is known and was not asked in this round, else the next in order.
    pub(crate) fn choose(&mut self) -> Arc<Connection> {
        let hint = self.hint.take();
        hint.unwrap_or_else(|| self.pool.next(&self.tried))
    }

    /// Learns from a failure, and waits before the next attempt where that helps.
    pub(crate) async fn note(
        &mut self,
        connection: &Connection,
        failure: Failure,
        on_doubt: OnDoubt,
    ) -> Result<(), GaveUp> {
        let from = connection.url();
        self.tried.insert(from.to_owned());
        match failure {
            Failure::NotSent(found) => {
                self.last = format!("{from}: {found}");
                if self.round_is_over() {
                    self.rest(None).await;
                }
            }
            Failure::NotAppended(fault) => {
                self.last = format!("{from}: {fault}");
                self.was_answered = true;
                self.take_hint(fault.leader.as_deref());
                if self.hint.is_none() {
                    self.rest(fault.retry_after).await;
                }
            }
            Failure::WrongPort(fault) => {
                self.wrong.insert(from.to_owned());
                self.last = format!("{from}: {fault}");
                let urls = self.pool.urls();
                if !self.in_doubt && urls.iter().all(|url| self.wrong.contains(url)) {
                    return Err(GaveUp::Rejected(fault));
                }
                if self.round_is_over() {
                    self.rest(None).await;
                }
            }
            // An earlier attempt may have been applied, so this is not the last word.
            Failure::Rejected(fault) if self.in_doubt => {
                self.last = format!("{from}: {fault}");
                self.rest(None).await;
            }
            Failure::Rejected(fault) => return Err(GaveUp::Rejected(fault)),
            Failure::InDoubt(found) => {
                self.last = format!("{from}: {found}");
                match on_doubt {
                    OnDoubt::Stop => return Err(GaveUp::InDoubt(self.last.clone())),
                    OnDoubt::Remember => self.in_doubt = true,
                    OnDoubt::Ignore => {}
                }
                self.rest(None).await;
            }
        }
        Ok(())
    }

    fn take_hint(&mut self, leader: Option<&str>) {
        let hint = leader.and_then(|leader| self.pool.learn(leader));
        self.hint = hint.filter(|hint| !self.tried.contains(hint.url()));
    }

    fn round_is_over(&self) -> bool {
        let urls = self.pool.urls();
        urls.iter().all(|url| self.tried.contains(url))
    }

    /// Waits, longer each time and never in step with others, but not past the deadline.
    async fn rest(&mut self, at_least: Option<Duration>) {
        if self.round_is_over() {
            self.tried.clear();
        }
        let pause = jittered(self.pause).max(at_least.unwrap_or_default());
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        let pause = pause.min(PAUSE_MAX);
        sleep(pause.min(self.left().unwrap_or_default())).await;
    }
}

/// Between half and all of it.
pub(crate) fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(rand::random_range(0.5..=1.0))
}

/// Sends a call once.
pub(crate) async fn attempt<C: Call>(
    connection: &Connection,
    call: &C,
    within: Duration,
) -> Result<C::Answer, Failure> {
    match timeout(within, call.send(connection.channel(), within)).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(status)) => Err(Failure::read(&status)),
        Err(_) => Err(Failure::InDoubt(format!("no answer within {within:?}"))),
    }
}
