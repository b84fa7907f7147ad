//! `tally log-server`: a small real log server, to try a cluster with.

use std::net::TcpListener;
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;
use tally_client::StorageState;
use tally_client::log_server::{Identity, Started};
use tally_log_server::{LogServer, LogServerOptions, Running, StartError};
use tally_model::explanation::codes;

use crate::answer::refusal;
use crate::config::host_port;
use crate::connection::Connection;
use crate::exit::{Exit, Failure};
use crate::listen::bind;
use crate::logging::Logging;
use crate::output::Output;
use crate::patience::patient;
use crate::serve::halted;
use crate::signals::Signals;

/// Runs a small log server: it provisions itself, then appends and reads records.
#[derive(Debug, Args)]
pub(crate) struct LogServerArguments {
    /// Its unique name in the cluster.
    #[arg(long)]
    name: String,
    /// Where it keeps its marker and its records.
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// Where it serves; port 0 takes a free one.
    #[arg(
        long,
        value_name = "HOST:PORT",
        default_value = "127.0.0.1:7421",
        value_parser = host_port
    )]
    listen: String,
    /// Where its clients reach it, when that is not where it listens: it is registered in the cluster
    /// and shown by `tally node show`. For example --listen 0.0.0.0:7421 --advertise ls1.example:7421.
    #[arg(long, value_name = "HOST:PORT", value_parser = host_port)]
    advertise: Option<String>,
    /// `region` or `region.zone`.
    #[arg(long, default_value = "", hide_default_value = true)]
    location: String,
    /// End after the start-up, with its exit code.
    #[arg(long)]
    exit_after_start: bool,
    #[command(flatten)]
    logging: Logging,
}

/// How the start-up ended, when it ended well.
#[derive(Debug, Serialize)]
struct StartedDocument {
    /// `applied` or `replayed`.
    outcome: &'static str,
    name: String,
    node: u32,
    incarnation: u64,
    marker: String,
    /// The revision of the activation.
    revision: u64,
    state: &'static str,
    listen: String,
}

pub(crate) async fn run(
    arguments: LogServerArguments,
    connection: &Connection,
    output: Output,
) -> Result<(), Failure> {
    arguments.logging.start()?;
    let mut signals = Signals::listen()?;
    tally_listener::raise_limit();
    let asked = format!(
        "to start {} on {}",
        arguments.name,
        arguments.data_dir.display()
    );
    let exit_after_start = arguments.exit_after_start;
    let listener = bind(&arguments.listen, "--listen")?;
    let options = options(arguments, listener, connection)?;
    let start = tokio::select! {
        start = patient(connection, LogServer::start(options)) => start,
        () = signals.asked_to_end() => return Ok(()),
    };
    let start = start.map_err(start_failure)?;
    let running = match (start.running, refused(&start.started)) {
        (Some(running), None) => running,
        (_, Some(failure)) => return Err(failure.asked(asked)),
        (None, None) => {
            let found = "the log server provisioned itself and does not run";
            return Err(Failure::fault(codes::HALTED, found).asked(asked));
        }
    };
    let told = tell(&start.started, &running, output);
    if exit_after_start || told.is_err() {
        running.shutdown().await;
        return told;
    }
    let ended = tokio::select! {
        () = signals.asked_to_end() => None,
        ended = running.ended() => Some(ended),
    };
    running.shutdown().await;
    match ended {
        None => Ok(()),
        Some(ended) if ended.code == codes::HALTED => Err(halted(&ended.found)),
        Some(ended) => {
            let next = format!("tally explain {}", ended.code);
            Err(Failure::refusal(&ended.code, ended.found).next(next))
        }
    }
}

fn options(
    arguments: LogServerArguments,
    listener: TcpListener,
    connection: &Connection,
) -> Result<LogServerOptions, Failure> {
    let client = connection.client()?;
    let mut options = LogServerOptions::new(arguments.name, arguments.data_dir, listener, client);
    options.location = arguments.location;
    if let Some(advertise) = arguments.advertise {
        options.advertise = advertise;
    }
    Ok(options)
}

fn start_failure(error: StartError) -> Failure {
    match error {
        StartError::Client(error) => Failure::from(error),
        other => {
            let next = other.next().unwrap_or_default();
            Failure::fault(other.code(), other.to_string()).next(next)
        }
    }
}

/// Why the cluster did not let it start; `None` when it did.
fn refused(started: &Started) -> Option<Failure> {
    match started {
        Started::Applied { .. } | Started::Replayed { .. } => None,
        Started::Conflict { refused } | Started::DataLost { refused } => {
            // The name is another one's, whichever code says so.
            Some(refusal(refused).ends_with(Exit::MarkerConflict))
        }
        Started::Disabled { found, .. } => {
            let coded = found
                .split_once(": ")
                .filter(|(code, _)| code.starts_with("T-"));
            let (code, found) = coded.unwrap_or((NOT_PROVISIONING, found));
            Some(Failure::refusal(code, found).next("tally node list"))
        }
    }
}

/// The refusal of a log server that is in a state in which it may not serve.
const NOT_PROVISIONING: &str = "T-330";

fn tell(started: &Started, running: &Running, output: Output) -> Result<(), Failure> {
    let Identity {
        name,
        node,
        incarnation,
        marker,
        ..
    } = running.identity();
    let (outcome, revision, state) = match started {
        Started::Applied { revision, .. } => ("applied", *revision, StorageState::ReadWrite),
        Started::Replayed { since, now, .. } => ("replayed", *since, *now),
        Started::Conflict { .. } | Started::DataLost { .. } | Started::Disabled { .. } => {
            return Ok(());
        }
    };
    let document = StartedDocument {
        outcome,
        name: name.clone(),
        node: *node,
        incarnation: *incarnation,
        marker: marker.to_string(),
        revision,
        state: state.as_str(),
        listen: running.address().to_string(),
    };
    output.print(&document, || {
        format!(
            "{outcome} r{revision}: {name} is node {node}, incarnation {incarnation}, marker {}, now {state}; serving on {}",
            marker.short(),
            document.listen
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use tally_client::Refused;

    fn exit(started: &Started) -> Option<(u8, String)> {
        refused(started).map(|failure| (failure.exit.code(), failure.code))
    }

    fn refusal(code: &str) -> Refused {
        Refused {
            code: code.to_owned(),
            found: "found".to_owned(),
            details: BTreeMap::new(),
        }
    }

    #[test]
    fn a_name_that_is_another_ones_is_a_conflict() {
        for code in ["T-310", "T-320"] {
            let conflict = Started::Conflict {
                refused: refusal(code),
            };
            assert_eq!(exit(&conflict), Some((4, code.to_owned())));
        }
        let lost = Started::DataLost {
            refused: refusal("T-311"),
        };
        assert_eq!(exit(&lost), Some((4, "T-311".to_owned())));
    }

    #[test]
    fn a_disabled_log_server_is_refused() {
        let disabled = |state, found: &str| {
            let found = found.to_owned();
            exit(&Started::Disabled { state, found })
        };
        let removed = disabled(StorageState::Removed, "T-331: the name is reserved");
        assert_eq!(removed, Some((3, "T-331".to_owned())));
        let gone = disabled(StorageState::Gone, "ls1 is gone");
        assert_eq!(gone, Some((3, "T-330".to_owned())));
    }
}
