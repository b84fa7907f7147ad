//! The client: whom it asks, under which session, and until when.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tally_model::{Effect, Marker};
use tally_proto::v1;
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::timeout;

use crate::answer::{Answer, Outcome};
use crate::builder::ClientBuilder;
use crate::call::{Answered, Call, Command, Tagged};
use crate::connection::Pool;
use crate::error::Error;
use crate::retry::{Attempts, GaveUp, OnDoubt};
use crate::session::{Session, Ticket};

/// Codes of refusals that say "this session is not yours, or no longer": nothing was applied, and
/// nothing ever will be under its tags.
const SESSION_ENDED: [&str; 2] = ["T-201", "T-205"];
/// The session holds as many outcomes as it may; nothing was applied.
pub(crate) const TOO_MANY_UNACKNOWLEDGED: &str = "T-204";
/// The cluster's first entry is not applied yet.
pub(crate) const NOT_FOUNDED: &str = "T-102";

/// Talks to a Tally cluster. Clones share connections and session.
///
/// Every call needs a tokio runtime, ends by the deadline, and never panics. A command goes out under
/// a tag and is sent again under the same tag, to any member, until it is answered.
#[derive(Clone)]
pub struct Client {
    pub(crate) pool: Arc<Pool>,
    pub(crate) deadline: Duration,
    pub(crate) attempt_max: Duration,
    marker: Marker,
    /// Opened at the first command.
    session: Arc<Mutex<Option<Arc<Session>>>>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("endpoints", &self.pool.urls())
            .field("marker", &self.marker)
            .finish_non_exhaustive()
    }
}

impl Client {
    /// Where a client begins: its endpoints and bounds.
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }

    pub(crate) fn new(
        endpoints: &[String],
        deadline: Duration,
        attempt_max: Duration,
        marker: Marker,
    ) -> Result<Self, Error> {
        Ok(Self {
            pool: Arc::new(Pool::new(endpoints, attempt_max)?),
            deadline,
            attempt_max,
            marker,
            session: Arc::default(),
        })
    }

    /// The marker under which this client's session is opened.
    pub fn marker(&self) -> Marker {
        self.marker
    }

    /// A client over the same connections with a session of its own under another marker.
    #[must_use]
    pub fn under(&self, marker: Marker) -> Self {
        Self {
            marker,
            session: Arc::default(),
            ..self.clone()
        }
    }

    /// The same client, session included, with another bound for each of its requests.
    #[must_use]
    pub fn with_deadline(&self, deadline: Duration) -> Self {
        Self {
            deadline,
            ..self.clone()
        }
    }

    /// Every endpoint that is known, given or learned from members, as `http://HOST:PORT`.
    pub fn endpoints(&self) -> Vec<String> {
        self.pool.urls()
    }

    pub(crate) fn attempts(&self) -> Attempts<'_> {
        Attempts::new(&self.pool, self.deadline, self.attempt_max)
    }

    /// Sends a command under the session's next tag until it is answered.
    pub(crate) async fn command<C: Command>(&self, command: C) -> Result<Answer, Error> {
        self.tagged(Answered(command)).await
    }

    /// Sends a call under the session's next tag until it is answered.
    pub(crate) async fn tagged<C: Tagged>(&self, mut call: C) -> Result<C::Answer, Error> {
        let mut attempts = self.attempts();
        loop {
            let ticket = self.ticket(&mut attempts).await?;
            call.put_tag(ticket.tag());
            let session = ticket.session().clone();
            if let Some(answer) = send_under(&mut attempts, &call, ticket).await? {
                return Ok(answer);
            }
            self.forget(&session, &attempts).await;
        }
    }

    /// Asks until answered; for what changes nothing.
    pub(crate) async fn read<C: Call>(&self, ask: &C) -> Result<C::Answer, Error> {
        let mut attempts = self.attempts();
        read_with(&mut attempts, ask).await
    }

    /// The next tag of the session, which is opened when there is none.
    async fn ticket(&self, attempts: &mut Attempts<'_>) -> Result<Ticket, Error> {
        let current = self.lock_session(attempts).await;
        let mut current = current.ok_or_else(|| attempts.not_applied())?;
        if let Some(session) = current.as_ref().filter(|session| !session.is_worn()) {
            return Ok(session.ticket());
        }
        let session = Arc::new(self.open(attempts).await?);
        tracing::debug!(?session, "opened a session");
        let ticket = session.ticket();
        *current = Some(session);
        Ok(ticket)
    }

    /// Opens a session. An answer that is lost leaves at worst an idle one.
    async fn open(&self, attempts: &mut Attempts<'_>) -> Result<Session, Error> {
        let ask = v1::OpenSessionRequest {
            marker: Some(self.marker.into()),
        };
        loop {
            let response = read_with(attempts, &ask).await?;
            let found = match crate::answer::read(response.answer) {
                Ok(answer) => match answer.outcome {
                    Outcome::Applied {
                        effect: Effect::SessionOpened { session },
                        ..
                    } => return Ok(Session::new(session.0, self.marker)),
                    Outcome::Refused(refused) => refused.to_string(),
                    other => format!("no session was opened: {other:?}"),
                },
                Err(status) => status.message().to_owned(),
            };
            attempts.answered_without_outcome(found).await;
        }
    }

    /// Goes on without this session, which has ended. Past the deadline it is left to the next request.
    async fn forget(&self, ended: &Arc<Session>, attempts: &Attempts<'_>) {
        let Some(mut current) = self.lock_session(attempts).await else {
            return;
        };
        if current
            .as_ref()
            .is_some_and(|session| Arc::ptr_eq(session, ended))
        {
            *current = None;
        }
    }

    /// The session, open or not; `None` when it was not to be had until the deadline: another request
    /// may be opening it, with more time left than this one has.
    pub(crate) async fn lock_session(
        &self,
        attempts: &Attempts<'_>,
    ) -> Option<MutexGuard<'_, Option<Arc<Session>>>> {
        let left = attempts.left().unwrap_or_default();
        timeout(left, self.session.lock()).await.ok()
    }
}

/// Asks until answered; for what changes nothing.
pub(crate) async fn read_with<C: Call>(
    attempts: &mut Attempts<'_>,
    ask: &C,
) -> Result<C::Answer, Error> {
    match attempts.until_answered(ask, OnDoubt::Ignore).await {
        Ok(answer) => Ok(answer),
        Err(GaveUp::Rejected(fault)) => Err(Error::rejected(fault)),
        Err(GaveUp::Deadline | GaveUp::InDoubt(_)) => Err(attempts.not_applied()),
    }
}

/// Sends a call under one tag until it has an outcome. `None` when its session had ended before
/// it was ever sent, so that it may go out under another.
pub(crate) async fn send_under<C: Tagged>(
    attempts: &mut Attempts<'_>,
    call: &C,
    mut ticket: Ticket,
) -> Result<Option<C::Answer>, Error> {
    attempts.start_over();
    ticket.sending();
    loop {
        let answer = match attempts.until_answered(call, OnDoubt::Remember).await {
            Ok(answer) => answer,
            Err(GaveUp::Rejected(fault)) => {
                ticket.done();
                return Err(Error::rejected(fault));
            }
            Err(GaveUp::Deadline | GaveUp::InDoubt(_)) if attempts.in_doubt() => {
                return Err(unknown(attempts, &ticket));
            }
            Err(GaveUp::Deadline | GaveUp::InDoubt(_)) => {
                ticket.done();
                return Err(attempts.not_applied());
            }
        };
        let Some(refused) = C::refused(&answer) else {
            ticket.done();
            return Ok(Some(answer));
        };
        let (code, found) = (refused.code.as_str(), refused.to_string());
        let has_ended = SESSION_ENDED.contains(&code);
        let is_full = code == TOO_MANY_UNACKNOWLEDGED;
        if !has_ended && !is_full && code != NOT_FOUNDED {
            ticket.done();
            return Ok(Some(answer));
        }
        let in_doubt = attempts.in_doubt();
        attempts.answered_without_outcome(found).await;
        if has_ended && in_doubt {
            // An earlier attempt may have been applied while the session lived.
            return Err(unknown(attempts, &ticket));
        }
        if has_ended || (is_full && !in_doubt) {
            ticket.done();
            return Ok(None);
        }
    }
}

fn unknown(attempts: &Attempts<'_>, ticket: &Ticket) -> Error {
    Error::Unknown {
        tag: ticket.token(),
        last: attempts.last().to_owned(),
    }
}
