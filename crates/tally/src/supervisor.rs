//! What the service manager is told: ready, status, watchdog, ending (`sd_notify(3)`).
//!
//! A member of a cluster is ready when it serves, so that a restart that returns means that the next
//! member may be restarted. A first start is ready when it listens: it can only wait for the other
//! members, and the command that starts the first one must return so that the others can be started.
//! Without a service manager that asks, `NOTIFY_SOCKET`, nothing is told.

use std::convert::Infallible;
use std::time::Duration;

use sd_notify::NotifyState;
use tally_proto::v1;
use tally_service::Server;
use tokio::time::{Instant, sleep};

/// How often the member is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// A start that goes on is given this much more time, again and again.
const START_EXTENDED_BY: Duration = Duration::from_secs(60);
const EXTEND_EVERY: Duration = Duration::from_secs(10);
/// What the process needs after the member has ended.
const PROCESS_ENDS_WITHIN: Duration = Duration::from_secs(10);

/// Tells the service manager, and remembers what it was told.
#[derive(Debug, Default)]
pub(crate) struct Supervisor {
    is_ready: bool,
    status: String,
    extended: Option<Instant>,
}

impl Supervisor {
    /// Until the server has opened its files; a long log takes its time.
    pub(crate) async fn while_opening(&mut self) -> Infallible {
        loop {
            self.status("opening the data directory");
            self.extend_start();
            sleep(LOOK_EVERY).await;
        }
    }

    /// From then on. Pings come from the runtime that serves: none when it hangs.
    pub(crate) async fn follow(&mut self, server: &Server) -> Infallible {
        if !server.has_cluster() {
            self.ready();
        }
        let watched = sd_notify::watchdog_enabled();
        let every = watched.map_or(LOOK_EVERY, |limit| LOOK_EVERY.min(limit / 3));
        loop {
            match server.not_ready() {
                None => {
                    self.status(&serving(&server.status()));
                    self.ready();
                }
                Some(why) => {
                    self.status(&format!("waits: {why}"));
                    self.extend_start();
                }
            }
            if watched.is_some() {
                tell(&[NotifyState::Watchdog]);
            }
            sleep(every).await;
        }
    }

    /// The member was asked to end.
    pub(crate) fn ending(&mut self, within: Duration) {
        let within = within + PROCESS_ENDS_WITHIN;
        tell(&[NotifyState::Stopping, extended_by(within)]);
        self.status("ending: hands leadership over, finishes what is under way");
    }

    /// The member cannot go on.
    pub(crate) fn halted(&mut self, why: &str) {
        tell(&[NotifyState::Stopping]);
        self.status(&format!("halted: {why}"));
    }

    fn ready(&mut self) {
        if !std::mem::replace(&mut self.is_ready, true) {
            tell(&[NotifyState::Ready]);
        }
    }

    fn status(&mut self, status: &str) {
        if self.status != status {
            // Lines are the protocol's own.
            let line = status.replace('\n', " ");
            tell(&[NotifyState::Status(&line)]);
            status.clone_into(&mut self.status);
        }
    }

    fn extend_start(&mut self) {
        let due = self.extended.is_none_or(|at| at.elapsed() >= EXTEND_EVERY);
        if due && !self.is_ready {
            tell(&[extended_by(START_EXTENDED_BY)]);
            self.extended = Some(Instant::now());
        }
    }
}

fn extended_by(time: Duration) -> NotifyState<'static> {
    NotifyState::ExtendTimeoutUsec(time.as_micros().try_into().unwrap_or(u32::MAX))
}

fn serving(status: &v1::StatusResponse) -> String {
    if status.role() == v1::Role::Leader {
        return format!("serves, leads in term {}", status.term);
    }
    let mut members = status.members.iter();
    let leader = members.find(|member| member.id == status.leader);
    let leader = leader.map_or("another member", |leader| leader.name.as_str());
    format!("serves, {leader} leads in term {}", status.term)
}

fn tell(news: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(news) {
        tracing::debug!(%error, "the service manager was not told");
    }
}
