//! A cluster in this process for tests: the real model behind the real protocol, no consensus, and
//! members that misbehave as they are told.
#![allow(dead_code, reason = "no test uses all of it")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod etcd;
mod services;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};

use tally_model::command::Found;
use tally_model::memory::MemoryState;
use tally_model::{
    Answer, ClusterId, Command, HistoryEntry, Node, NodeName, Request, Settings, Stamp, View,
};
use tally_proto::etcd::kv_server::KvServer;
use tally_proto::etcd::watch_server::WatchServer;
use tally_proto::v1;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;

/// The id of a cluster that [`Fake::start`] founds.
pub(crate) const CLUSTER: ClusterId = ClusterId(7);

/// How a member treats one command.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Twist {
    /// As it should.
    Serve,
    /// Applies it and breaks the connection.
    DropAnswer,
    /// Applies it and stays silent.
    Silence,
    /// Breaks the connection and applies nothing.
    DropRequest,
    /// Has no leader, or is not it and says who is.
    NoLeader(Option<String>),
    /// Says that the outcome is unknown, and applies nothing.
    SayUnknown,
    /// Turns it down for good.
    Reject,
    /// Ends the session first, as the cluster does with one that is idle for too long.
    EndSession,
}

/// One command that reached a member.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// The member, from 0.
    pub(crate) member: usize,
    /// The call, for example `activate`.
    pub(crate) call: &'static str,
    /// The tag as it came.
    pub(crate) tag: v1::Tag,
}

/// The cluster. Dropping it ends its members.
pub(crate) struct Fake {
    pub(crate) shared: Arc<Shared>,
    members: Vec<Running>,
}

struct Running {
    endpoint: String,
    task: AbortHandle,
}

/// What all members share.
pub(crate) struct Shared {
    state: Mutex<State>,
    /// Changes with every entry.
    applied: watch::Sender<u64>,
    cluster: ClusterId,
    /// Changes when watches are to break off.
    breaks: watch::Sender<u64>,
}

struct State {
    memory: MemoryState,
    index: u64,
    plan: VecDeque<Twist>,
    otherwise: Twist,
    /// As `otherwise`, for the opening of sessions.
    on_open: Twist,
    seen: Vec<Seen>,
    opened: usize,
    endpoints: Vec<String>,
    watches: usize,
}

impl Fake {
    /// Members on free ports, with a founded cluster.
    pub(crate) async fn start(members: usize) -> Self {
        Self::founded(members, CLUSTER, Settings::default()).await
    }

    /// As [`Fake::start`], another cluster or one with other settings.
    pub(crate) async fn founded(members: usize, cluster: ClusterId, settings: Settings) -> Self {
        let mut memory = MemoryState::default();
        let found = Found { cluster, settings };
        let request = Request {
            tagged: None,
            command: Command::Found(found),
        };
        memory.apply(
            Stamp {
                index: 1,
                unix_ms: 1,
            },
            &request,
        );
        let state = State {
            memory,
            index: 1,
            plan: VecDeque::new(),
            otherwise: Twist::Serve,
            on_open: Twist::Serve,
            seen: Vec::new(),
            opened: 0,
            endpoints: Vec::new(),
            watches: 0,
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            applied: watch::Sender::new(1),
            cluster,
            breaks: watch::Sender::new(0),
        });
        let mut fake = Self {
            shared,
            members: Vec::new(),
        };
        for _ in 0..members {
            fake.add().await;
        }
        fake
    }

    async fn add(&mut self) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        self.shared.state().endpoints.push(endpoint.clone());
        let member = services::Member {
            number: self.members.len(),
            shared: self.shared.clone(),
        };
        let serving = Server::builder()
            .add_service(v1::sessions_server::SessionsServer::new(member.clone()))
            .add_service(v1::nodes_server::NodesServer::new(member.clone()))
            .add_service(v1::cluster_server::ClusterServer::new(member.clone()))
            .add_service(KvServer::new(member.clone()))
            .add_service(WatchServer::new(member))
            .serve_with_incoming(TcpListenerStream::new(listener));
        let task = tokio::spawn(async move {
            serving.await.unwrap();
        });
        self.members.push(Running {
            endpoint,
            task: task.abort_handle(),
        });
    }

    pub(crate) fn endpoints(&self) -> Vec<String> {
        self.members
            .iter()
            .map(|member| member.endpoint.clone())
            .collect()
    }

    /// The next commands are treated so, in order.
    pub(crate) fn plan(&self, twists: impl IntoIterator<Item = Twist>) {
        self.shared.state().plan.extend(twists);
    }

    /// Commands beyond the plan are treated so.
    pub(crate) fn otherwise(&self, twist: Twist) {
        self.shared.state().otherwise = twist;
    }

    /// Openings of sessions are treated so.
    pub(crate) fn on_open(&self, twist: Twist) {
        self.shared.state().on_open = twist;
    }

    /// Every command that came, in order.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.shared.state().seen.clone()
    }

    /// Session, sequence and acknowledged of every command of one kind.
    pub(crate) fn tags(&self, call: &str) -> Vec<(u64, u64, u64)> {
        let seen = self.seen();
        let of_call = seen.iter().filter(|seen| seen.call == call);
        of_call
            .map(|seen| (seen.tag.session, seen.tag.sequence, seen.tag.acknowledged))
            .collect()
    }

    pub(crate) fn sessions_opened(&self) -> usize {
        self.shared.state().opened
    }

    /// Watches that were begun.
    pub(crate) fn watches(&self) -> usize {
        self.shared.state().watches
    }

    pub(crate) fn history(&self) -> Vec<HistoryEntry> {
        self.shared.state().memory.history().to_vec()
    }

    pub(crate) fn node(&self, name: &str) -> Option<Node> {
        self.shared
            .state()
            .memory
            .node_by_name(&NodeName::new(name).unwrap())
    }

    /// Applies an untagged or foreign request, as if another requester had sent it.
    pub(crate) fn apply(&self, request: &Request) -> Answer {
        self.shared.apply(&mut self.shared.state(), request)
    }

    /// Every watch breaks off.
    pub(crate) fn break_watches(&self) {
        self.shared.breaks.send_modify(|count| *count += 1);
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        for member in &self.members {
            member.task.abort();
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn apply(&self, state: &mut State, request: &Request) -> Answer {
        state.index += 1;
        let stamp = Stamp {
            index: state.index,
            unix_ms: state.index,
        };
        let answer = state.memory.apply(stamp, request);
        self.applied.send_replace(state.index);
        answer
    }
}
