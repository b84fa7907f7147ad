//! What this member's ports are called and where they are, for callers that reached the wrong one.

use std::net::SocketAddr;
use std::time::Duration;

use tally_listener::{Bounds, Elsewhere, Port, Speaks};

use crate::metrics::Metrics;
use crate::server::ServerConfig;

/// A connection for each log server and each operator of a large cluster.
const CLIENT_CONNECTIONS_MAX: usize = 4_096;
/// A cluster has few members, and each has one connection or two.
const PEER_CONNECTIONS_MAX: usize = 256;
/// Requests of another member at a time: a stream for each kind, and some questions.
const PEER_STREAMS_MAX: u32 = 256;
const HTTP_CONNECTIONS_MAX: usize = 256;
const HTTP_STREAMS_MAX: u32 = 64;

/// A connection whose client or operator is silent for these two together is closed.
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(10);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// The ports of a member.
#[derive(Clone, Debug)]
pub(crate) struct Ports {
    name: String,
    client: String,
    peer: String,
    http: String,
}

impl Ports {
    /// Takes the addresses that others use, where there are some.
    pub(crate) fn new(config: &ServerConfig, http: Option<SocketAddr>) -> Self {
        let mut members = config.initial_cluster.iter();
        let own = members.find(|(name, _)| *name == config.name);
        let whose = &config.name;
        let peer = own.map_or("", |(_, address)| address.as_str());
        let http = match http {
            Some(at) if at.ip().is_unspecified() => format!("port {}", at.port()),
            Some(at) => at.to_string(),
            None => "listen-http".to_owned(),
        };
        Self {
            name: whose.clone(),
            client: format!("the client port of {whose}, {}", config.advertise_client),
            peer: format!("the peer port of {whose}, {peer}"),
            http: format!("the http port of {whose}, {http}"),
        }
    }

    pub(crate) fn client(&self, metrics: &Metrics) -> Port {
        Port {
            name: format!("the client port of {}", self.name),
            speaks: Speaks::GrpcAndHttp {
                http: "etcd's JSON below /v3/, /version, /health, /livez and /readyz",
            },
            elsewhere: vec![self.for_members(), self.for_operators()],
            lists: Some("gRPC reflection"),
            counts: metrics.client_port.clone(),
        }
    }

    pub(crate) fn peer(&self, metrics: &Metrics) -> Port {
        Port {
            name: format!("the peer port of {}", self.name),
            speaks: Speaks::Grpc,
            elsewhere: [&self.for_clients()[..], &[self.for_operators()]].concat(),
            lists: None,
            counts: metrics.peer_port.clone(),
        }
    }

    pub(crate) fn http(&self, metrics: &Metrics) -> Port {
        Port {
            name: format!("the http port of {}", self.name),
            speaks: Speaks::Http,
            elsewhere: [&self.for_clients()[..], &[self.for_members()]].concat(),
            lists: None,
            counts: metrics.http_port.clone(),
        }
    }

    fn for_clients(&self) -> [Elsewhere; 3] {
        // Health and reflection are asked for by tools, and tools are clients.
        ["tally.v1.", "etcdserverpb.", "grpc."].map(|services| Elsewhere {
            services,
            port: self.client.clone(),
        })
    }

    fn for_members(&self) -> Elsewhere {
        Elsewhere {
            services: "tally.peer.v1.",
            port: self.peer.clone(),
        }
    }

    fn for_operators(&self) -> Elsewhere {
        Elsewhere {
            services: "",
            port: self.http.clone(),
        }
    }
}

/// What the port for clients takes on. At most half of the files that may be open are connections of
/// clients, so that the stores can go on.
pub(crate) fn client_bounds(streams_max: u32) -> Bounds {
    Bounds {
        connections_max: CLIENT_CONNECTIONS_MAX,
        one_file_in: 2,
        streams_max,
        keep_alive_every: KEEP_ALIVE_EVERY,
        keep_alive_timeout: KEEP_ALIVE_TIMEOUT,
        adaptive_window: false,
    }
}

pub(crate) fn peer_bounds(keep_alive_every: Duration, keep_alive_timeout: Duration) -> Bounds {
    Bounds {
        connections_max: PEER_CONNECTIONS_MAX,
        one_file_in: 8,
        streams_max: PEER_STREAMS_MAX,
        keep_alive_every,
        keep_alive_timeout,
        adaptive_window: true,
    }
}

pub(crate) fn http_bounds() -> Bounds {
    Bounds {
        connections_max: HTTP_CONNECTIONS_MAX,
        one_file_in: 8,
        streams_max: HTTP_STREAMS_MAX,
        keep_alive_every: KEEP_ALIVE_EVERY,
        keep_alive_timeout: KEEP_ALIVE_TIMEOUT,
        adaptive_window: false,
    }
}
