//! What a process that goes on running writes to its standard error.

use std::fmt;
use std::io::IsTerminal;
use std::str::FromStr;

use clap::Args;
use tally_model::explanation::codes;
use tracing_subscriber::EnvFilter;

use crate::exit::Failure;

/// What is logged without being asked for.
pub(crate) const LEVEL_DEFAULT: &str = "info";
/// The words that are a level by themselves.
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
/// What a level may be, for messages.
pub(crate) const LEVEL_EXPECTED: &str =
    "off, error, warn, info, debug, trace, or directives such as tally_service=debug,info";
/// What a format may be, for messages.
pub(crate) const FORMAT_EXPECTED: &str = "text or json";

/// How log lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Format {
    #[default]
    Text,
    Json,
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(format!("expected {FORMAT_EXPECTED}")),
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "text",
            Self::Json => "json",
        })
    }
}

/// A checked level: which lines are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Level(String);

impl Default for Level {
    fn default() -> Self {
        Self(LEVEL_DEFAULT.to_owned())
    }
}

impl FromStr for Level {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.trim().is_empty() {
            return Err(format!("expected {LEVEL_EXPECTED}"));
        }
        // A name that is no level would be a directive for a module of that name, and the rest silent.
        for part in text.split(',').map(str::trim) {
            let named = LEVELS.contains(&part.to_ascii_lowercase().as_str());
            if !named && !part.contains('=') {
                return Err(format!("{part:?} is no level; expected {LEVEL_EXPECTED}"));
            }
        }
        let level = Self(text.trim().to_owned());
        match EnvFilter::try_new(level.directives()) {
            Ok(_) => Ok(level),
            Err(error) => Err(format!("{error}; expected {LEVEL_EXPECTED}")),
        }
    }
}

impl Level {
    /// A bare level is meant for Tally; libraries then say only what is wrong. openraft warns of every
    /// attempt to reach a member that is down; Tally says it once.
    fn directives(&self) -> String {
        match self.0.to_ascii_lowercase().as_str() {
            bare @ ("info" | "debug" | "trace") => format!("warn,openraft=error,tally={bare}"),
            _ => self.0.clone(),
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The flags of commands that log but have no configuration file.
#[derive(Clone, Debug, Args)]
pub(crate) struct Logging {
    /// off, error, warn, info, debug, trace, or directives such as tally_service=debug,info.
    #[arg(long, value_name = "LEVEL", default_value_t)]
    log_level: Level,
    /// text or json.
    #[arg(long, value_name = "FORMAT", default_value_t)]
    log_format: Format,
}

impl Logging {
    pub(crate) fn new(log_level: Level, log_format: Format) -> Self {
        Self {
            log_level,
            log_format,
        }
    }

    /// Starts writing; once in a process.
    pub(crate) fn start(&self) -> Result<(), Failure> {
        let invalid = |error: &dyn fmt::Display| {
            Failure::fault(
                codes::INVALID_CONFIG,
                format!("log level {}: {error}", self.log_level),
            )
            .expected(LEVEL_EXPECTED)
        };
        let filter =
            EnvFilter::try_new(self.log_level.directives()).map_err(|error| invalid(&error))?;
        // A thread is named after the member that it belongs to.
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr)
            .with_thread_names(true);
        let started = match self.log_format {
            Format::Json => subscriber.json().try_init(),
            Format::Text => subscriber.with_ansi(colours()).try_init(),
        };
        started.map_err(|error| invalid(&error))
    }
}

/// See <https://no-color.org>.
fn colours() -> bool {
    let asked_not_to = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    std::io::stderr().is_terminal() && !asked_not_to
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_level_is_meant_for_tally() {
        let level: Level = "debug".parse().expect("a level");
        assert_eq!(level.directives(), "warn,openraft=error,tally=debug");
        let level: Level = "tally_service=trace,warn".parse().expect("directives");
        assert_eq!(level.directives(), "tally_service=trace,warn");
    }

    #[test]
    fn what_is_no_level_or_format_is_told_what_is() {
        let wrong = "".parse::<Level>().expect_err("empty");
        assert!(wrong.contains("debug"), "{wrong}");
        for none in ["loud", "infos", "loud,quiet", "info,loud", "3", "info,"] {
            let wrong = none.parse::<Level>().expect_err(none);
            assert!(wrong.contains("off, error, warn"), "{wrong}");
        }
        let level: Level = "INFO".parse().expect("a level");
        assert_eq!(level.directives(), "warn,openraft=error,tally=info");
        let wrong = "tally=loud".parse::<Level>().expect_err("no level");
        assert!(wrong.contains("debug"), "{wrong}");
        assert_eq!(
            "yaml".parse::<Format>(),
            Err("expected text or json".to_owned())
        );
    }
}
