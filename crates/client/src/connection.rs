//! Connections to members, one channel per endpoint, and which to ask first.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tonic::transport::{Channel, Endpoint, Uri};

use crate::error::Error;

/// Endpoints that a client keeps, given and learned together; further ones are not learned.
pub(crate) const ENDPOINTS_MAX: usize = 64;

/// How long the opening of a connection may take. Below the bound of an attempt, so that a connection
/// that never came about is known as such.
const CONNECT_WITHIN: Duration = Duration::from_secs(1);

/// A peer that is silent for this long is asked whether it is there, and given up after as long again.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// One member's address and the channel to it, opened at first use.
pub(crate) struct Connection {
    url: String,
    endpoint: Endpoint,
    channel: OnceLock<Channel>,
}

impl Connection {
    /// Checks an endpoint, `http://HOST:PORT` or `HOST:PORT`. No I/O.
    pub(crate) fn new(endpoint: &str, attempt_max: Duration) -> Result<Self, Error> {
        let wrong = |problem: &str| Error::Usage {
            found: format!("endpoint {endpoint:?}: {problem}, expected http://HOST:PORT"),
        };
        let url = normal(endpoint);
        if url.starts_with("https://") {
            return Err(wrong("encrypted connections are not supported"));
        }
        let uri: Uri = url.parse().map_err(|_| wrong("not an address"))?;
        if uri.scheme_str() != Some("http") {
            return Err(wrong("unknown scheme"));
        }
        if uri.host().is_none_or(str::is_empty) || uri.port().is_none() {
            return Err(wrong("host or port is missing"));
        }
        if uri.path() != "/" || uri.query().is_some() {
            return Err(wrong("a path has no meaning here"));
        }
        let endpoint = Endpoint::from(uri)
            .connect_timeout(CONNECT_WITHIN.min(attempt_max / 2))
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .keep_alive_while_idle(true);
        Ok(Self {
            url,
            endpoint,
            channel: OnceLock::new(),
        })
    }

    /// `http://HOST:PORT`.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// The channel; connects when something is sent. Needs a runtime.
    pub(crate) fn channel(&self) -> Channel {
        let channel = self.channel.get_or_init(|| self.endpoint.connect_lazy());
        channel.clone()
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)
    }
}

/// The one form under which an endpoint is known: with a scheme, without a slash at its end.
pub(crate) fn normal(endpoint: &str) -> String {
    let endpoint = endpoint.trim().trim_end_matches('/');
    if endpoint.contains("://") {
        endpoint.to_owned()
    } else {
        format!("http://{endpoint}")
    }
}

/// Every endpoint that a client knows.
#[derive(Debug)]
pub(crate) struct Pool {
    attempt_max: Duration,
    /// The first one given.
    first: Arc<Connection>,
    known: Mutex<Known>,
}

#[derive(Debug)]
struct Known {
    /// In the order given, then as learned. Never empty.
    connections: Vec<Arc<Connection>>,
    /// Index of the one that answered last.
    preferred: usize,
}

impl Pool {
    pub(crate) fn new(endpoints: &[String], attempt_max: Duration) -> Result<Self, Error> {
        let mut connections: Vec<Arc<Connection>> = Vec::new();
        for endpoint in endpoints {
            let connection = Connection::new(endpoint, attempt_max)?;
            if connections.iter().all(|known| known.url != connection.url) {
                connections.push(Arc::new(connection));
            }
        }
        let count = connections.len();
        let first = connections.first().filter(|_| count <= ENDPOINTS_MAX);
        let first = first.cloned().ok_or_else(|| Error::Usage {
            found: format!("found {count} endpoints, expected 1 to {ENDPOINTS_MAX}"),
        })?;
        Ok(Self {
            attempt_max,
            first,
            known: Mutex::new(Known {
                connections,
                preferred: 0,
            }),
        })
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every endpoint's URL.
    pub(crate) fn urls(&self) -> Vec<String> {
        let known = self.known();
        known.connections.iter().map(|c| c.url.clone()).collect()
    }

    /// The endpoints in the order in which to ask them: the one that answered last, then the others.
    fn in_order(&self) -> Vec<Arc<Connection>> {
        let known = self.known();
        let (before, from) = known.connections.split_at(known.preferred);
        from.iter().chain(before).cloned().collect()
    }

    /// The first endpoint in order that is not among `tried`; when all are, the first of all.
    pub(crate) fn next(&self, tried: &BTreeSet<String>) -> Arc<Connection> {
        let order = self.in_order();
        let fresh = order.iter().find(|c| !tried.contains(&c.url));
        let next = fresh.or_else(|| order.first());
        next.unwrap_or(&self.first).clone()
    }

    /// Remembers who answered.
    pub(crate) fn prefer(&self, url: &str) {
        let mut known = self.known();
        if let Some(index) = known.connections.iter().position(|c| c.url == url) {
            known.preferred = index;
        }
    }

    /// The connection to an endpoint that a member named, which is kept when there is room; `None` when
    /// it is no endpoint.
    pub(crate) fn learn(&self, endpoint: &str) -> Option<Arc<Connection>> {
        let connection = self.find_or_open(endpoint).ok()?;
        let mut known = self.known();
        let is_known = known.connections.iter().any(|c| c.url == connection.url);
        if !is_known && known.connections.len() < ENDPOINTS_MAX {
            known.connections.push(connection.clone());
        }
        Some(connection)
    }

    /// The connection to an endpoint, known or not; it is not kept.
    pub(crate) fn find_or_open(&self, endpoint: &str) -> Result<Arc<Connection>, Error> {
        let url = normal(endpoint);
        if let Some(found) = self.known().connections.iter().find(|c| c.url == url) {
            return Ok(found.clone());
        }
        Connection::new(endpoint, self.attempt_max).map(Arc::new)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    const ATTEMPT: Duration = Duration::from_secs(2);

    fn pool(endpoints: &[&str]) -> Result<Pool, Error> {
        let endpoints: Vec<_> = endpoints.iter().map(|&text| text.to_owned()).collect();
        Pool::new(&endpoints, ATTEMPT)
    }

    #[test]
    fn an_endpoint_is_known_once_however_it_is_written() {
        let pool = pool(&["127.0.0.1:1", "http://127.0.0.1:1/", " http://127.0.0.1:1"]).unwrap();
        assert_eq!(pool.urls(), ["http://127.0.0.1:1"]);
    }

    #[test]
    fn a_wrong_endpoint_is_named() {
        for text in [
            "",
            "https://h:1",
            "ftp://h:1",
            "h",
            "http://:1",
            "http://h:1/path",
            "h:port",
        ] {
            let error = pool(&[text]).unwrap_err();
            assert!(matches!(error, Error::Usage { .. }), "{text}: {error:?}");
        }
        assert!(pool(&[]).is_err());
    }

    #[test]
    fn the_one_that_answered_last_is_asked_first() {
        let pool = pool(&["a:1", "b:1"]).unwrap();
        pool.learn("c:1").unwrap();
        pool.prefer("http://b:1");
        let order: Vec<_> = pool.in_order().iter().map(|c| c.url().to_owned()).collect();
        assert_eq!(order, ["http://b:1", "http://c:1", "http://a:1"]);
    }
}
