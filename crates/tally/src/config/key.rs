//! Every key, once: its name in flags, variables and files, and what kind of value it takes.

use clap::{Arg, ArgMatches, Command, Error, FromArgMatches};

/// What a TOML file may hold for a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Number,
    Switch,
}

impl Kind {
    /// For messages.
    pub(super) const fn expected(self) -> &'static str {
        match self {
            Self::Text => "a string, in quotes",
            Self::Number => "a whole number, without quotes",
            Self::Switch => "true or false, without quotes",
        }
    }
}

/// One setting.
#[derive(Debug)]
pub(super) struct Key {
    /// As a flag without its dashes, and in a file.
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    placeholder: &'static str,
    help: &'static str,
}

impl Key {
    /// The environment variable of the same name.
    pub(super) fn variable(&self) -> String {
        format!("TALLY_{}", self.name.replace('-', "_").to_uppercase())
    }
}

const fn key(name: &'static str, kind: Kind, placeholder: &'static str, help: &'static str) -> Key {
    Key {
        name,
        kind,
        placeholder,
        help,
    }
}

/// Every key, in the order in which the help tells them.
pub(super) const KEYS: &[Key] = &[
    key(
        "name",
        Kind::Text,
        "NAME",
        "This member's name, one of those in initial-cluster",
    ),
    key(
        "data-dir",
        Kind::Text,
        "DIR",
        "Where this member keeps its data; formatted at the first start",
    ),
    key(
        "listen-client",
        Kind::Text,
        "HOST:PORT",
        "Where to listen for clients [default: 127.0.0.1:7411]",
    ),
    key(
        "listen-peer",
        Kind::Text,
        "HOST:PORT",
        "Where to listen for other members [default: 127.0.0.1:7412]",
    ),
    key(
        "listen-http",
        Kind::Text,
        "HOST:PORT",
        "Where to serve /livez, /readyz and /metrics [default: 127.0.0.1:7413]",
    ),
    key(
        "advertise-client",
        Kind::Text,
        "HOST:PORT",
        "Where clients reach this member, when that is not where it listens",
    ),
    key(
        "initial-cluster",
        Kind::Text,
        "NAME=HOST:PORT,…",
        "Name and peer address of every founding member, the same list on each; the first founds the cluster",
    ),
    key(
        "retry-check",
        Kind::Text,
        "CHECK",
        "How a retried activation is recognised: marker, or relaxed, which is unsafe; taken when the cluster is founded [default: marker]",
    ),
    key(
        "i-know-this-is-unsafe",
        Kind::Switch,
        "BOOL",
        "Needed for an unsafe setting; true when it stands alone",
    ),
    key(
        "replication",
        Kind::Text,
        "PROPERTY",
        "Places that must stay writable, for example {zone: 2}; taken when the cluster is founded",
    ),
    key(
        "heartbeat-ms",
        Kind::Number,
        "MS",
        "Time between a leader's heartbeats",
    ),
    key(
        "election-ms-min",
        Kind::Number,
        "MS",
        "Shortest silence of a leader before an election",
    ),
    key(
        "election-ms-max",
        Kind::Number,
        "MS",
        "Longest silence of a leader before an election",
    ),
    key(
        "snapshot-entries",
        Kind::Number,
        "COUNT",
        "Log entries after which a snapshot is taken",
    ),
    key(
        "keep-entries",
        Kind::Number,
        "COUNT",
        "Log entries that are kept behind a snapshot, for members that lag",
    ),
    key(
        "inflight-max",
        Kind::Number,
        "COUNT",
        "Proposals in flight; more are refused",
    ),
    key(
        "message-bytes-max",
        Kind::Number,
        "BYTES",
        "Largest message from a client",
    ),
    key(
        "request-bytes-max",
        Kind::Number,
        "BYTES",
        "Largest write through the etcd API [default: 1572864]",
    ),
    key(
        "txn-ops-max",
        Kind::Number,
        "COUNT",
        "Operations in a transaction of the etcd API, nested ones included [default: 128]",
    ),
    key(
        "progress-notify-ms",
        Kind::Number,
        "MS",
        "Time without an event after which a watcher of the etcd API that asked for it is told the revision [default: 600000]",
    ),
    key(
        "keep-revisions",
        Kind::Number,
        "COUNT",
        "Revisions whose history is kept; older ones are compacted [default: all]",
    ),
    key(
        "streams-max",
        Kind::Number,
        "COUNT",
        "Watches, of which more are refused, and requests under way on one connection",
    ),
    key(
        "shutdown-ms-max",
        Kind::Number,
        "MS",
        "How long an end may take, from the signal on, before it is given up [default: 15000]",
    ),
    key(
        "log-level",
        Kind::Text,
        "LEVEL",
        "off, error, warn, info, debug, trace, or directives such as tally_service=debug,info [default: info]",
    ),
    key(
        "log-format",
        Kind::Text,
        "FORMAT",
        "text or json [default: text]",
    ),
];

/// The key of that name.
pub(super) fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

/// The keys that were given as flags.
#[derive(Clone, Debug, Default)]
pub(crate) struct Flags(Vec<(&'static str, String)>);

impl Flags {
    pub(super) fn given(self) -> Vec<(&'static str, String)> {
        self.0
    }

    /// One flag, if it was given to another command than `serve`.
    pub(super) fn one(name: &'static str, given: Option<String>) -> Self {
        Self(given.map(|text| (name, text)).into_iter().collect())
    }

    #[cfg(test)]
    pub(super) fn of(given: &[(&'static str, &str)]) -> Self {
        let given = given
            .iter()
            .map(|(name, value)| (*name, (*value).to_owned()));
        Self(given.collect())
    }
}

impl clap::Args for Flags {
    fn augment_args(command: Command) -> Command {
        KEYS.iter()
            .fold(command, |command, key| command.arg(argument(key)))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

fn argument(key: &'static Key) -> Arg {
    let argument = Arg::new(key.name).long(key.name).help(key.help);
    match key.kind {
        Kind::Switch => argument
            .value_name(key.placeholder)
            .num_args(0..=1)
            .default_missing_value("true"),
        Kind::Text | Kind::Number => argument
            .value_name(key.placeholder)
            .allow_hyphen_values(key.kind == Kind::Number),
    }
}

impl FromArgMatches for Flags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let mut flags = Self::default();
        flags.update_from_arg_matches(matches)?;
        Ok(flags)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        for key in KEYS {
            let given = matches.get_one::<String>(key.name).cloned();
            self.0.extend(given.map(|value| (key.name, value)));
        }
        Ok(())
    }
}
