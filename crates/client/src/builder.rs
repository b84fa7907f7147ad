//! Builds a client.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tally_model::Marker;

use crate::client::Client;
use crate::error::Error;

/// How long a request may take in all, unless told otherwise.
pub const DEADLINE_DEFAULT: Duration = Duration::from_secs(30);

/// How long one attempt may take, unless told otherwise.
pub const ATTEMPT_MAX_DEFAULT: Duration = Duration::from_secs(2);

/// What a client is built from.
#[derive(Clone, Debug)]
pub struct ClientBuilder {
    endpoints: Vec<String>,
    deadline: Duration,
    attempt_max: Duration,
    marker: Option<Marker>,
}

impl Default for ClientBuilder {
    fn default() -> Self {
        Self {
            endpoints: Vec::new(),
            deadline: DEADLINE_DEFAULT,
            attempt_max: ATTEMPT_MAX_DEFAULT,
            marker: None,
        }
    }
}

impl ClientBuilder {
    /// Adds a member, `http://HOST:PORT` or `HOST:PORT`. One that is up is enough to reach all.
    #[must_use]
    pub fn endpoint(mut self, endpoint: impl Into<String>) -> Self {
        self.endpoints.push(endpoint.into());
        self
    }

    /// Adds several members.
    #[must_use]
    pub fn endpoints<E: Into<String>>(mut self, endpoints: impl IntoIterator<Item = E>) -> Self {
        self.endpoints.extend(endpoints.into_iter().map(Into::into));
        self
    }

    /// How long a request may take in all, with every retry; [`DEADLINE_DEFAULT`] unless given.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// How long one attempt may take before the same request goes to another member;
    /// [`ATTEMPT_MAX_DEFAULT`] unless given.
    #[must_use]
    pub fn attempt_max(mut self, attempt_max: Duration) -> Self {
        self.attempt_max = attempt_max;
        self
    }

    /// The marker under which the session is opened; a fresh one unless given.
    #[must_use]
    pub fn marker(mut self, marker: Marker) -> Self {
        self.marker = Some(marker);
        self
    }

    /// The client. No I/O: it connects when something is asked.
    ///
    /// # Errors
    /// [`Error::Usage`] when there is no endpoint, one is malformed, or a time is zero.
    pub fn build(self) -> Result<Client, Error> {
        if self.deadline.is_zero() || self.attempt_max.is_zero() {
            return Err(Error::Usage {
                found: "found a deadline or attempt bound of zero, expected more".to_owned(),
            });
        }
        let marker = self.marker.unwrap_or_else(fresh_marker);
        Client::new(&self.endpoints, self.deadline, self.attempt_max, marker)
    }
}

/// A marker that nobody has: 128 random bits, and the time by this machine's clock.
pub fn fresh_marker() -> Marker {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.unwrap_or_default().as_millis();
    Marker {
        bits: rand::random(),
        created_unix_ms: u64::try_from(now).unwrap_or(u64::MAX),
    }
}
