//! What a port is called, what it speaks, and where else a caller may have meant to go.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What a port speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaks {
    /// gRPC over HTTP/2, without TLS.
    Grpc,
    /// HTTP/1.1, and HTTP/2 without TLS.
    Http,
    /// Both: gRPC, and plain HTTP on some paths.
    GrpcAndHttp {
        /// What is served over plain HTTP, for example `JSON below /v3/`.
        http: &'static str,
    },
}

/// A port of the same process, for a caller who meant that one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Elsewhere {
    /// How the names of its gRPC services begin, for example `tally.peer.v1.`; empty for a port that
    /// speaks HTTP.
    pub services: &'static str,
    /// What it is called and where it is, for example `the peer port, host1:7412`.
    pub port: String,
}

/// One port, for people.
#[derive(Clone, Debug)]
pub struct Port {
    /// Whose it is and what for, for example `the client port of n1`.
    pub name: String,
    pub speaks: Speaks,
    /// What is there instead of what it does not serve.
    pub elsewhere: Vec<Elsewhere>,
    /// What lists the services and methods that are served here, for example `gRPC reflection`.
    pub lists: Option<&'static str>,
    /// What is counted here.
    pub counts: Counts,
}

/// What a port counts.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Connections that are open.
    open: Arc<AtomicU64>,
    /// Connections that were closed for a reason that the log tells, or would if there were fewer.
    turned_away: Arc<AtomicU64>,
}

impl Counts {
    /// Connections that are open now.
    pub fn open(&self) -> u64 {
        self.open.load(Ordering::Relaxed)
    }

    /// Connections that were turned away, or closed for what came over them.
    pub fn turned_away(&self) -> u64 {
        self.turned_away.load(Ordering::Relaxed)
    }

    pub(crate) fn turn_away(&self) {
        self.turned_away.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a connection as open until the value is dropped.
    pub(crate) fn opened(&self) -> Open {
        self.open.fetch_add(1, Ordering::Relaxed);
        Open(self.open.clone())
    }
}

/// One open connection.
#[derive(Debug)]
pub(crate) struct Open(Arc<AtomicU64>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Port {
    /// The port that serves a gRPC service, `package.Service`.
    pub(crate) fn serving(&self, service: &str) -> Option<&str> {
        let mut others = self.elsewhere.iter();
        let found =
            others.find(|other| !other.services.is_empty() && service.starts_with(other.services));
        found.map(|other| other.port.as_str())
    }

    /// The port for plain HTTP.
    pub(crate) fn plain(&self) -> Option<&str> {
        let mut others = self.elsewhere.iter();
        let found = others.find(|other| other.services.is_empty());
        found.map(|other| other.port.as_str())
    }
}
