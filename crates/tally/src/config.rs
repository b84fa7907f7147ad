//! The configuration of `tally serve`: one set of keys, from flags, `TALLY_*` variables and a TOML
//! file. Flags win over variables, variables over the file. Parses once; what comes out is checked.

mod file;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod key;
mod layers;
mod value;
mod variables;

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tally_model::RetryCheck;
use tally_model::explanation::codes;

use crate::exit::Failure;
use crate::logging::{FORMAT_EXPECTED, Format, LEVEL_EXPECTED, Level};

pub(crate) use key::Flags;
pub(crate) use layers::Layers;
use layers::invalid;
pub(crate) use value::host_port;
use value::{HOST_PORT_EXPECTED, NUMBER_EXPECTED, address, initial_cluster, member_name, number};

const CLIENT_DEFAULT: &str = "127.0.0.1:7411";
const PEER_DEFAULT: &str = "127.0.0.1:7412";
const HTTP_DEFAULT: &str = "127.0.0.1:7413";

/// Handing leadership over, finishing requests and closing files take a few seconds at most; a disk
/// that hangs must not keep the process for longer.
pub(crate) const SHUTDOWN_WITHIN: Duration = Duration::from_secs(15);

/// A checked configuration.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) name: String,
    pub(crate) data_dir: PathBuf,
    pub(crate) listen_client: String,
    pub(crate) listen_peer: String,
    pub(crate) listen_http: String,
    /// Where clients reach this member; `None`: where it listens.
    pub(crate) advertise_client: Option<String>,
    /// Name and peer address of each founding member, in the given order.
    pub(crate) initial_cluster: Vec<(String, String)>,
    pub(crate) settings: tally_service::Settings,
    pub(crate) tuning: tally_service::Tuning,
    /// Bounds the end of the process, from the signal on.
    pub(crate) shutdown_within: Duration,
    pub(crate) log_level: Level,
    pub(crate) log_format: Format,
}

impl Config {
    /// Checks what was given.
    pub(crate) fn read(layers: &Layers) -> Result<Self, Failure> {
        let name = layers.required("name", "a name without spaces, such as n1", member_name)?;
        let expected = "a comma-separated list such as n1=host1:7412,n2=host2:7412,n3=host3:7412";
        let initial_cluster = layers.required("initial-cluster", expected, initial_cluster)?;
        if !initial_cluster.iter().any(|(member, _)| *member == name) {
            let names = Vec::from_iter(initial_cluster.iter().map(|(member, _)| member.as_str()));
            let expected = format!("one of {}", names.join(", "));
            let place = layers.place("name");
            let list = layers.place("initial-cluster");
            let found = format!(
                "{place}: `name` is {name:?}, which `initial-cluster` ({list}) does not list"
            );
            return Err(invalid(found, &expected));
        }
        Ok(Self {
            name,
            data_dir: layers.required("data-dir", "a directory", directory)?,
            listen_client: listen(layers, "listen-client", CLIENT_DEFAULT)?,
            listen_peer: listen(layers, "listen-peer", PEER_DEFAULT)?,
            listen_http: listen(layers, "listen-http", HTTP_DEFAULT)?,
            advertise_client: layers.optional("advertise-client", HOST_PORT_EXPECTED, address)?,
            initial_cluster,
            settings: settings(layers)?,
            tuning: tuning(layers)?,
            shutdown_within: shutdown_within(layers)?,
            log_level: layers
                .optional("log-level", LEVEL_EXPECTED, str::parse)?
                .unwrap_or_default(),
            log_format: layers
                .optional("log-format", FORMAT_EXPECTED, str::parse)?
                .unwrap_or_default(),
        })
    }
}

fn listen(layers: &Layers, key: &str, default: &str) -> Result<String, Failure> {
    let given = layers.optional(key, HOST_PORT_EXPECTED, address)?;
    Ok(given.unwrap_or_else(|| default.to_owned()))
}

/// Where a member that is configured like this process serves HTTP.
pub(crate) fn listen_http(flag: Option<String>, path: Option<&Path>) -> Result<String, Failure> {
    let flags = Flags::one("listen-http", flag);
    listen(
        &Layers::of_process(flags, path)?,
        "listen-http",
        HTTP_DEFAULT,
    )
}

fn directory(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() {
        return Err("it is empty".to_owned());
    }
    Ok(PathBuf::from(text))
}

/// What the cluster is founded with.
fn settings(layers: &Layers) -> Result<tally_service::Settings, Failure> {
    let mut settings = tally_service::Settings::default();
    let check = |text: &str| text.parse::<RetryCheck>().map_err(|error| error.problem);
    if let Some(check) = layers.optional("retry-check", "marker or relaxed", check)? {
        settings.retry_check = check;
    }
    let switch = |text: &str| text.parse().map_err(|_| "it is no switch".to_owned());
    let acknowledged = layers.optional("i-know-this-is-unsafe", "true or false", switch)?;
    if settings.retry_check == RetryCheck::Relaxed && acknowledged != Some(true) {
        let place = layers.place("retry-check");
        let found = format!(
            "{place}: `retry-check` is \"relaxed\": two processes with one node id can both succeed"
        );
        return Err(Failure::fault(codes::UNSAFE_NOT_ACKNOWLEDGED, found)
            .expected("marker, or relaxed together with --i-know-this-is-unsafe on a test cluster")
            .next(format!("tally explain {}", codes::UNSAFE_NOT_ACKNOWLEDGED)));
    }
    let expected = "{node: N}, {zone: N} or {region: N} with N of 1 or more";
    let replication = |text: &str| match text.parse() {
        Ok(replication) => Ok(replication),
        Err(tally_model::InvalidIdentifier { .. }) => Err("it is not of that form".to_owned()),
    };
    if let Some(replication) = layers.optional("replication", expected, replication)? {
        settings.replication = Some(replication);
    }
    Ok(settings)
}

/// How this member runs; may differ between members.
fn tuning(layers: &Layers) -> Result<tally_service::Tuning, Failure> {
    let mut tuning = tally_service::Tuning::default();
    set(layers, "heartbeat-ms", &mut tuning.heartbeat_ms)?;
    set(layers, "election-ms-min", &mut tuning.election_ms_min)?;
    set(layers, "election-ms-max", &mut tuning.election_ms_max)?;
    set(layers, "snapshot-entries", &mut tuning.snapshot_entries)?;
    set(layers, "keep-entries", &mut tuning.keep_entries)?;
    set(layers, "inflight-max", &mut tuning.inflight_max)?;
    let (key, most) = ("message-bytes-max", Some(COMMAND_BYTES_MOST));
    let bounds = (MESSAGE_BYTES_LEAST, most);
    set_within(layers, key, bounds, &mut tuning.message_bytes_max)?;
    let key = "request-bytes-max";
    set_within(layers, key, (1, most), &mut tuning.request_bytes_max)?;
    set(layers, "txn-ops-max", &mut tuning.txn_ops_max)?;
    let (key, bounds) = ("progress-notify-ms", (PROGRESS_NOTIFY_MS_LEAST, None));
    set_within(layers, key, bounds, &mut tuning.progress_notify_ms)?;
    let (key, bounds) = ("keep-revisions", (KEEP_REVISIONS_LEAST, None));
    set_within(layers, key, bounds, &mut tuning.keep_revisions)?;
    set(layers, "streams-max", &mut tuning.streams_max)?;
    let beat = ("heartbeat-ms", tuning.heartbeat_ms);
    let least = ("election-ms-min", tuning.election_ms_min);
    let most = ("election-ms-max", tuning.election_ms_max);
    let wrong = if least.1 < beat.1.saturating_mul(HEARTBEATS_PER_ELECTION_MIN) {
        [beat, least]
    } else if most.1 <= least.1 {
        [least, most]
    } else {
        return Ok(tuning);
    };
    let found = wrong.map(|(key, value)| format!("{}: `{key}` is {value}", layers.place(key)));
    let expected = format!(
        "{HEARTBEATS_PER_ELECTION_MIN} x heartbeat-ms <= election-ms-min < election-ms-max"
    );
    Err(invalid(found.join("; "), &expected))
}

fn shutdown_within(layers: &Layers) -> Result<Duration, Failure> {
    let given = layers.optional("shutdown-ms-max", NUMBER_EXPECTED, number)?;
    Ok(given.map_or(SHUTDOWN_WITHIN, Duration::from_millis))
}

/// A smaller message could not hold a command with a name, an address and a reason.
const MESSAGE_BYTES_LEAST: usize = 1024;

/// A member takes messages of at most 32 MiB from another one: a command and what goes along, or its answer.
const COMMAND_BYTES_MOST: usize = 16 << 20;

/// Shorter, and members would do little but look whether watchers are quiet.
const PROGRESS_NOTIFY_MS_LEAST: u64 = 100;

/// With fewer, a client that is told a revision could hardly read or watch from there in time.
const KEEP_REVISIONS_LEAST: u64 = 100;

/// With fewer, one late heartbeat would start an election.
const HEARTBEATS_PER_ELECTION_MIN: u64 = 2;

fn set<N: TryFrom<u64>>(layers: &Layers, key: &str, setting: &mut N) -> Result<(), Failure> {
    if let Some(given) = layers.optional(key, NUMBER_EXPECTED, number)? {
        *setting = given;
    }
    Ok(())
}

/// The same for one that has a least value, and may have a largest one.
fn set_within<N>(
    layers: &Layers,
    key: &str,
    (least, most): (N, Option<N>),
    setting: &mut N,
) -> Result<(), Failure>
where
    N: TryFrom<u64> + PartialOrd + Display,
{
    let within = |text: &str| match number(text) {
        Ok(given) if given < least => Err("it is too small".to_owned()),
        Ok(given) if most.as_ref().is_some_and(|most| given > *most) => {
            Err("it is too large".to_owned())
        }
        other => other,
    };
    let expected = match &most {
        None => format!("a whole number of {least} or more"),
        Some(most) => format!("a whole number from {least} to {most}"),
    };
    if let Some(given) = layers.optional(key, &expected, within)? {
        *setting = given;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
