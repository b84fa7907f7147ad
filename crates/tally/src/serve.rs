//! `tally serve`: one member of a cluster.

use std::net::TcpListener;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use tally_model::RetryCheck;
use tally_model::explanation::codes;
use tally_service::{Faults, Listeners, Server, ServerConfig, StartError};

use crate::config::{Config, Flags, Layers};
use crate::exit::{Exit, Failure};
use crate::listen::bind;
use crate::logging::Logging;
use crate::signals::Signals;
use crate::supervisor::Supervisor;

/// Runs one member of a cluster until Ctrl-C or SIGTERM.
///
/// The first signal ends it well: leadership is handed over, what is under way is finished, files are
/// closed. A second one ends it at once. Under systemd it tells when it is ready and what it does.
///
/// Every flag is also a variable, --data-dir as TALLY_DATA_DIR, and a key of the TOML file that
/// --config names, data-dir = "…". Flags win over variables, variables over the file.
#[derive(Debug, Args)]
pub(crate) struct ServeArguments {
    /// A TOML file with the keys of these flags.
    #[arg(long, value_name = "FILE", env = "TALLY_CONFIG")]
    config: Option<PathBuf>,
    #[command(flatten)]
    flags: Flags,
}

impl ServeArguments {
    /// Everything that was given, checked.
    pub(crate) fn configuration(self) -> Result<Config, Failure> {
        Config::read(&Layers::of_process(self.flags, self.config.as_deref())?)
    }
}

pub(crate) async fn run(arguments: ServeArguments) -> Result<(), Failure> {
    let config = arguments.configuration()?;
    Logging::new(config.log_level.clone(), config.log_format).start()?;
    if config.settings.retry_check == RetryCheck::Relaxed {
        tracing::warn!(
            "the retry check is relaxed, which is unsafe: two processes with one node id can both \
             succeed; only for test clusters"
        );
    }
    let mut signals = Signals::listen()?;
    tally_listener::raise_limit();
    let listeners = Listeners {
        client: bind(&config.listen_client, "listen-client")?,
        peer: bind(&config.listen_peer, "listen-peer")?,
        http: bind(&config.listen_http, "listen-http")?,
    };
    let advertise_client = advertised(&config, &listeners.client);
    let shutdown_within = config.shutdown_within;
    tracing::info!(
        name = config.name,
        data_dir = %config.data_dir.display(),
        client = config.listen_client,
        peer = config.listen_peer,
        http = config.listen_http,
        advertise_client,
        "listening"
    );
    let config = ServerConfig {
        name: config.name,
        data_dir: config.data_dir,
        initial_cluster: config.initial_cluster,
        advertise_client,
        settings: config.settings,
        tuning: config.tuning,
    };
    let mut supervisor = Supervisor::default();
    let server = tokio::select! {
        started = Server::start(config, listeners, Faults::default()) => started.map_err(start_failure)?,
        () = signals.asked_to_end() => return Ok(()),
        never = supervisor.while_opening() => match never {},
    };
    let why = tokio::select! {
        () = signals.asked_to_end() => None,
        why = server.failed() => Some(why),
        never = supervisor.follow(&server) => match never {},
    };
    if let Some(why) = why {
        // Closing its files would write to the disk that failed.
        std::mem::forget(server);
        supervisor.halted(&why);
        return Err(halted(&why));
    }
    tracing::info!(within = ?shutdown_within, "asked to end; a second signal ends at once");
    supervisor.ending(shutdown_within);
    // Closing waits for the disk on the thread that closes, and a disk may hang: the thread is one that
    // nothing else needs, the clock least of all.
    let runtime = tokio::runtime::Handle::current();
    let closing = tokio::task::spawn_blocking(move || runtime.block_on(server.shutdown()));
    let closed = tokio::time::timeout(shutdown_within, closing);
    let closed = closed.await.map_err(|_| ended_late(shutdown_within))?;
    closed.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
    tracing::info!("ended");
    Ok(())
}

/// A member that was asked to end and has not closed its files in time.
fn ended_late(within: Duration) -> Failure {
    let found = format!(
        "asked to end, and not closed within {within:?}; nothing that was answered is lost"
    );
    Failure::fault(codes::ENDED_LATE, found)
        .expected("an end within shutdown-ms-max")
        .next(format!("tally explain {}", codes::ENDED_LATE))
}

/// Where clients reach this member: as given, or where it listens; on all addresses, the host under
/// which the other members know it.
fn advertised(config: &Config, listener: &TcpListener) -> String {
    if let Some(given) = &config.advertise_client {
        return given.clone();
    }
    let Ok(bound) = listener.local_addr() else {
        return config.listen_client.clone();
    };
    let mut members = config.initial_cluster.iter();
    let own = members.find(|(name, _)| *name == config.name);
    let known = own.and_then(|(_, peer)| peer.rsplit_once(':'));
    let given = config.listen_client.rsplit_once(':');
    let host = if bound.ip().is_unspecified() {
        known
    } else {
        given
    };
    match host {
        Some((host, _)) => format!("{host}:{}", bound.port()),
        None => bound.to_string(),
    }
}

/// A member that cannot start.
pub(crate) fn start_failure(error: StartError) -> Failure {
    let said = error.to_string();
    let prefix = format!("{}: ", error.code());
    let found = said.strip_prefix(&prefix).unwrap_or(&said);
    let failure = Failure::fault(error.code(), found).next(error.next().unwrap_or_default());
    match error {
        // The directory itself is not as it should be, whichever code says so.
        StartError::Directory(_) => failure.ends_with(Exit::Broken),
        _ => failure,
    }
}

/// A member that cannot go on.
pub(crate) fn halted(why: &str) -> Failure {
    let prefix = format!("{}: ", codes::HALTED);
    let found = why.strip_prefix(&prefix).unwrap_or(why);
    Failure::fault(codes::HALTED, found)
        .next(after_halt(found))
        .ends_with(Exit::Broken)
}

/// What helps after a member has halted.
fn after_halt(found: &str) -> String {
    // The system's own words are all that says what kind of failure it was.
    let full = ["No space left", "Disk quota exceeded"];
    if full.iter().any(|words| found.contains(words)) {
        return "make room on the disk of the data directory, then start the process again: nothing \
                that was acknowledged is lost"
            .to_owned();
    }
    let disk = ["IO error", "os error", "Corruption", "damaged", "checksum"];
    if disk.iter().any(|words| found.contains(words)) {
        return "look for errors of the disk (dmesg), then start the process again: it checks all that it \
                keeps, and says what to do if something is damaged"
            .to_owned();
    }
    format!("tally explain {}", codes::HALTED)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        serve: ServeArguments,
    }

    fn config(more: &[&str]) -> Config {
        let line = ["serve", "--name", "n1", "--data-dir", "/d"];
        let line = line
            .into_iter()
            .chain(["--initial-cluster", "n1=host1:7412,n2=host2:7412"]);
        let line = Line::parse_from(line.chain(more.iter().copied()));
        line.serve.configuration().unwrap()
    }

    #[test]
    fn the_unsafe_switch_stands_alone_or_has_a_value() {
        let given = |switch: &[&str]| {
            let line = ["serve", "--name", "n1", "--data-dir", "/d"];
            let line = line.into_iter().chain(["--initial-cluster", "n1=h:1"]);
            let line = line.chain(["--retry-check", "relaxed"]);
            let line = Line::parse_from(line.chain(switch.iter().copied()));
            line.serve.configuration().map_err(|failure| failure.code)
        };
        let switch = "--i-know-this-is-unsafe";
        for yes in [
            &[switch][..],
            &[switch, "true"],
            &["--i-know-this-is-unsafe=true"],
            &[switch, "--log-level", "warn"],
        ] {
            assert!(given(yes).is_ok(), "{yes:?}");
        }
        let no = given(&[switch, "false"]).unwrap_err();
        assert_eq!(no, codes::UNSAFE_NOT_ACKNOWLEDGED);
        let neither = given(&["--i-know-this-is-unsafe=maybe"]).unwrap_err();
        assert_eq!(neither, codes::INVALID_CONFIG);
    }

    #[test]
    fn clients_are_told_an_address_that_they_can_reach() {
        let everywhere = config(&["--listen-client", "0.0.0.0:0"]);
        let listener = bind("0.0.0.0:0", "test").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(advertised(&everywhere, &listener), format!("host1:{port}"));

        let loopback = config(&["--listen-client", "localhost:0"]);
        let listener = bind("127.0.0.1:0", "test").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(
            advertised(&loopback, &listener),
            format!("localhost:{port}")
        );

        let given = config(&["--advertise-client", "lb:1", "--listen-client", "0.0.0.0:0"]);
        assert_eq!(advertised(&given, &listener), "lb:1");
    }
}
