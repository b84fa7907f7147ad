//! One member of `dev`: a thread with a runtime of its own, so that killing it leaves nothing of it
//! behind but its directory.

use std::net::TcpListener;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use tally_model::explanation::codes;
use tally_proto::v1;
use tally_service::{Faults, Listeners, Server, ServerConfig, Settings, Tuning};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout};

use super::command;
use super::control::MemberReport;
use super::file::MemberAddresses;
use crate::config::SHUTDOWN_WITHIN;
use crate::exit::Failure;
use crate::listen::bind;
use crate::output::{member_id, role_name};
use crate::serve::{halted, start_failure};

/// Threads that run one member's tasks.
const THREADS_PER_MEMBER: usize = 2;
/// Work on other threads that a killed member had begun, such as a write to its disk, is waited for
/// this long, because its directory is not free before.
const KILLED_WITHIN: Duration = Duration::from_secs(5);
/// A member that was killed may hold its directory and ports a moment longer.
const START_WITHIN: Duration = Duration::from_secs(10);
const START_AGAIN_AFTER: Duration = Duration::from_millis(50);
/// Orders that wait for one member.
const ORDERS_MAX: usize = 8;

/// What a member needs besides its addresses.
#[derive(Clone)]
pub(super) struct Setup {
    pub(super) data_dir: PathBuf,
    pub(super) initial_cluster: Vec<(String, String)>,
    /// The same switches for all members, also for those that start later.
    pub(super) faults: Faults,
}

/// A member, running or not.
pub(super) struct Member {
    addresses: MemberAddresses,
    setup: Setup,
    /// Held from the first look for free ports until the first start.
    listeners: Option<Listeners>,
    running: Option<Running>,
    failure: Option<String>,
}

struct Running {
    orders: mpsc::Sender<Order>,
    ended: oneshot::Receiver<Ended>,
}

enum Order {
    Status(oneshot::Sender<(v1::StatusResponse, bool)>),
    Kill,
    Stop,
}

/// Why a member's thread ended: nobody but itself to blame, or an order.
type Ended = Option<Failure>;

impl Member {
    /// A member that does not run yet.
    pub(super) fn new(addresses: MemberAddresses, setup: Setup, listeners: Listeners) -> Self {
        Self {
            addresses,
            setup,
            listeners: Some(listeners),
            running: None,
            failure: None,
        }
    }

    pub(super) fn addresses(&self) -> &MemberAddresses {
        &self.addresses
    }

    /// Starts it; returns when it serves.
    pub(super) async fn start(&mut self) -> Result<(), Failure> {
        if self.is_running() {
            let found = format!("{} runs already", self.addresses.name);
            return Err(Failure::fault(codes::TRANSFER_FAILED, found)
                .expected("a member that was killed")
                .next(command(&self.setup.data_dir, "status")));
        }
        let deadline = Instant::now() + START_WITHIN;
        loop {
            match self.start_once().await {
                Ok(running) => {
                    self.running = Some(running);
                    self.failure = None;
                    return Ok(());
                }
                Err(failure) if may_pass(&failure) && Instant::now() < deadline => {
                    sleep(START_AGAIN_AFTER).await;
                }
                Err(failure) => return Err(failure),
            }
        }
    }

    async fn start_once(&mut self) -> Result<Running, Failure> {
        let listeners = match self.listeners.take() {
            Some(listeners) => listeners,
            None => listen(&self.addresses)?,
        };
        let config = ServerConfig {
            name: self.addresses.name.clone(),
            data_dir: self.setup.data_dir.join(&self.addresses.name),
            initial_cluster: self.setup.initial_cluster.clone(),
            advertise_client: self.addresses.client.clone(),
            settings: Settings::default(),
            tuning: Tuning::default(),
        };
        let faults = self.setup.faults.clone();
        let (orders, received) = mpsc::channel(ORDERS_MAX);
        let (started, has_started) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        let name = self.addresses.name.clone();
        let thread = thread::Builder::new().name(name.clone()).spawn(move || {
            let lived = live(&name, config, listeners, faults, started, received);
            // Nobody waits any more when `dev` itself ends.
            let _ = end.send(lived);
        });
        thread.map_err(|error| halted(&format!("cannot start a thread: {error}")))?;
        match has_started.await {
            Ok(()) => Ok(Running { orders, ended }),
            Err(_) => match ended.await {
                Ok(Some(failure)) => Err(failure),
                Ok(None) | Err(_) => Err(halted("the member ended while it started")),
            },
        }
    }

    /// True while its thread runs; takes note when it has ended by itself.
    pub(super) fn is_running(&mut self) -> bool {
        let Some(running) = &mut self.running else {
            return false;
        };
        let failure = match running.ended.try_recv() {
            Err(oneshot::error::TryRecvError::Empty) => return true,
            Ok(failure) => failure,
            Err(oneshot::error::TryRecvError::Closed) => Some(halted("its thread ended")),
        };
        self.failure = failure.map(|failure| failure.found);
        self.running = None;
        false
    }

    /// What it knows, and whether it serves; `None` when it does not run.
    pub(super) async fn status(&mut self) -> Option<(v1::StatusResponse, bool)> {
        if !self.is_running() {
            return None;
        }
        let orders = self.running.as_ref()?.orders.clone();
        let (reply, status) = oneshot::channel();
        orders.send(Order::Status(reply)).await.ok()?;
        status.await.ok()
    }

    /// Ends it at once; returns when its directory and its ports are free.
    pub(super) async fn kill(&mut self) -> Result<(), Failure> {
        self.end(Order::Kill).await
    }

    /// Ends it well.
    pub(super) async fn stop(&mut self) -> Result<(), Failure> {
        self.end(Order::Stop).await
    }

    async fn end(&mut self, order: Order) -> Result<(), Failure> {
        if !self.is_running() {
            let name = &self.addresses.name;
            let found = match &self.failure {
                Some(why) => format!("{name} does not run; it failed: {why}"),
                None => format!("{name} does not run"),
            };
            let start = command(&self.setup.data_dir, &format!("start {name}"));
            return Err(Failure::fault(codes::TRANSFER_FAILED, found)
                .expected("a member that runs")
                .next(start));
        }
        if let Some(running) = self.running.take() {
            // An error says that it ends already.
            let _ = running.orders.send(order).await;
            let _ = running.ended.await;
        }
        Ok(())
    }

    /// What `dev status` shows.
    pub(super) async fn report(&mut self) -> MemberReport {
        let status = self.status().await.map(|(status, _)| status);
        let MemberAddresses {
            name,
            client,
            peer,
            http,
        } = self.addresses.clone();
        let role = status
            .as_ref()
            .map_or("stopped", |status| role_name(status.role()));
        MemberReport {
            name,
            role: role.to_owned(),
            running: status.is_some(),
            id: status
                .as_ref()
                .map(|status| status.member)
                .filter(|id| *id != 0)
                .map(member_id),
            term: status.as_ref().map_or(0, |status| status.term),
            applied_index: status.as_ref().map_or(0, |status| status.applied_index),
            client,
            peer,
            http,
            failure: self.failure.clone(),
        }
    }
}

/// The failures that a member which was killed a moment ago leaves behind for a moment.
fn may_pass(failure: &Failure) -> bool {
    [codes::DIRECTORY_LOCKED, codes::ADDRESS_IN_USE].contains(&failure.code.as_str())
}

/// Listeners on a member's addresses.
pub(super) fn listen(addresses: &MemberAddresses) -> Result<Listeners, Failure> {
    let listener = |address: &str, what: &str| -> Result<TcpListener, Failure> {
        bind(address, &format!("{what} of {}", addresses.name))
    };
    Ok(Listeners {
        client: listener(&addresses.client, "client port")?,
        peer: listener(&addresses.peer, "peer port")?,
        http: listener(&addresses.http, "http port")?,
    })
}

/// A member's whole life, on its own thread.
fn live(
    name: &str,
    config: ServerConfig,
    listeners: Listeners,
    faults: Faults,
    started: oneshot::Sender<()>,
    orders: mpsc::Receiver<Order>,
) -> Ended {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS_PER_MEMBER)
        .thread_name(name)
        .enable_all()
        .build();
    let runtime: Runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return Some(halted(&format!("cannot start a runtime: {error}"))),
    };
    let lived = runtime.block_on(async {
        let server = Server::start(config, listeners, faults)
            .await
            .map_err(start_failure)?;
        // Nobody waits any more when `dev` itself ends.
        let _ = started.send(());
        obey(server, orders).await
    });
    // Tasks are dropped where they stand, their sockets with them.
    runtime.shutdown_timeout(KILLED_WITHIN);
    match lived {
        Ok(killed) => {
            drop(killed);
            None
        }
        Err(failure) => {
            tracing::error!(member = name, "{failure}");
            Some(failure)
        }
    }
}

/// Carries orders out until one ends the member. A killed server is handed back as it is, so that it
/// is dropped only after the runtime.
async fn obey(
    server: Server,
    mut orders: mpsc::Receiver<Order>,
) -> Result<Option<Server>, Failure> {
    loop {
        let order = tokio::select! {
            order = orders.recv() => order,
            why = server.failed() => return Err(halted(&why)),
        };
        match order {
            Some(Order::Status(reply)) => {
                // Whoever asked may have gone.
                let _ = reply.send((server.status(), server.is_ready()));
            }
            Some(Order::Kill) => return Ok(Some(server)),
            Some(Order::Stop) | None => {
                if timeout(SHUTDOWN_WITHIN, server.shutdown()).await.is_err() {
                    tracing::warn!("did not close in time; what was synced is safe");
                }
                return Ok(None);
            }
        }
    }
}
