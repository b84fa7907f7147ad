//! How a command reaches the cluster, and how the client's errors end it.

use std::time::Duration;

use clap::Args;
use tally_client::{Client, Error};
use tally_model::explanation::codes;

use crate::exit::{Exit, Failure};

/// A session that is not closed is only idle, so closing it is not worth waiting for longer.
const CLOSE_WITHIN: Duration = Duration::from_secs(1);

/// The variable of --endpoints.
const VARIABLE: &str = "TALLY_ENDPOINTS";

/// Where the cluster is and how long a command may take.
#[derive(Clone, Debug, Args)]
pub(crate) struct Connection {
    /// Members to ask, separated by commas; any will do.
    #[arg(
        long,
        global = true,
        env = VARIABLE,
        value_name = "URL,…",
        value_delimiter = ',',
        default_value = "http://127.0.0.1:7411",
        help_heading = "Global"
    )]
    endpoints: Vec<String>,
    /// How long a request may take, all its attempts together.
    #[arg(
        long,
        global = true,
        value_name = "TIME",
        default_value = "30s",
        value_parser = positive_duration,
        help_heading = "Global"
    )]
    pub(crate) timeout: Duration,
}

fn positive_duration(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(Duration::ZERO) => Err("found 0, expected a time above 0, for example 30s".to_owned()),
        Ok(duration) => Ok(duration),
        Err(error) => Err(format!("{error}; expected for example 500ms, 30s or 2m")),
    }
}

/// Endpoints that name nobody, and where they were given: flags win over the variable.
fn nobody(variable: Option<&str>) -> Failure {
    let blank = |text: &str| text.chars().all(|c| c == ',' || c.is_whitespace());
    let place = match variable {
        Some(text) if blank(text) => format!("variable {VARIABLE}"),
        _ => "flag --endpoints".to_owned(),
    };
    Failure::fault(
        codes::INVALID_CONFIG,
        format!("{place} names no member: it is empty"),
    )
    .expected(
        "addresses separated by commas, for example http://127.0.0.1:7411, or no such variable",
    )
    .next("tally --help")
}

impl Connection {
    #[cfg(test)]
    pub(crate) fn to(endpoints: &[&str], timeout: Duration) -> Self {
        let endpoints = endpoints.iter().map(|one| (*one).to_owned()).collect();
        Self { endpoints, timeout }
    }

    /// A client of these endpoints. Connects when it is first used.
    pub(crate) fn client(&self) -> Result<Client, Failure> {
        let given = self.endpoints.iter().map(|endpoint| endpoint.trim());
        let given = Vec::from_iter(given.filter(|endpoint| !endpoint.is_empty()));
        if given.is_empty() {
            let variable = std::env::var(VARIABLE).ok();
            return Err(nobody(variable.as_deref()));
        }
        let client = Client::builder()
            .endpoints(given)
            .deadline(self.timeout)
            .build()?;
        Ok(client)
    }
}

/// Ends the client's session if it opened one. Only worth a moment: what was asked is done.
pub(crate) async fn close(client: &Client) {
    if let Err(error) = client.with_deadline(CLOSE_WITHIN).close().await {
        tracing::debug!(%error, "the session was not closed and will idle out");
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let exit = exit_of(&error);
        let next = match error.tag() {
            Some(tag) => format!("tally resume {tag}"),
            None => error.next().unwrap_or_default(),
        };
        Self::fault(error.code(), found(&error))
            .next(next)
            .resumed_by(error.tag().map(|tag| tag.to_string()))
            .ends_with(exit)
    }
}

/// What was found, without the code that the failure shows before it.
fn found(error: &Error) -> String {
    let said = error.to_string();
    let prefix = format!("{}: ", error.code());
    said.strip_prefix(&prefix).unwrap_or(&said).to_owned()
}

fn exit_of(error: &Error) -> Exit {
    match error {
        Error::Usage { .. } => Exit::Usage,
        Error::Rejected { code, .. } => match code.as_str() {
            // The endpoints were given by whoever runs the command.
            codes::INVALID_ARGUMENT | codes::NOT_SERVED_HERE => Exit::Usage,
            codes::NOT_FOUND => Exit::Broken,
            _ => Exit::Refused,
        },
        Error::NoLeader { .. } | Error::Unreachable { .. } => Exit::NoLeader,
        Error::Unknown { .. } | Error::Unclear { .. } => Exit::OutcomeUnknown,
        Error::MarkerFile(_) => Exit::Broken,
        other => Exit::of_fault(other.code()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use tally_client::TagToken;

    #[test]
    fn an_unknown_outcome_ends_with_6_and_says_how_to_resume() {
        let tag: TagToken = "12/3:7f3a0102030405060708090a0b0c0dc2@1700000000000"
            .parse()
            .unwrap();
        let last = "deadline exceeded".to_owned();
        let failure = Failure::from(Error::Unknown { tag, last });
        assert_eq!(failure.exit.code(), 6);
        assert_eq!(failure.code, codes::OUTCOME_UNKNOWN);
        assert_eq!(
            failure.next_command(),
            Some(format!("tally resume {tag}").as_str())
        );
    }

    #[test]
    fn nobody_there_ends_with_5_and_a_bad_endpoint_with_2() {
        let endpoints = vec!["http://127.0.0.1:1".to_owned()];
        let last = "connection refused".to_owned();
        let unreachable = Failure::from(Error::Unreachable { endpoints, last });
        assert_eq!(unreachable.exit.code(), 5);
        let connection = Connection {
            endpoints: vec![" ".to_owned()],
            timeout: Duration::from_secs(1),
        };
        assert_eq!(connection.client().unwrap_err().exit.code(), 2);
    }

    #[test]
    fn a_call_that_is_turned_down_ends_by_its_code() {
        let ends = |code: &str| {
            let rejected = Error::Rejected {
                code: code.to_owned(),
                found: "n9".to_owned(),
                next: None,
            };
            Failure::from(rejected).exit.code()
        };
        assert_eq!(ends(codes::INVALID_ARGUMENT), 2);
        assert_eq!(ends(codes::NOT_SERVED_HERE), 2);
        assert_eq!(ends(codes::TRANSFER_FAILED), 3);
        assert_eq!(ends(codes::NOT_FOUND), 1);
    }

    #[test]
    fn a_timeout_of_nothing_is_no_timeout() {
        assert_eq!(
            positive_duration("1s500ms"),
            Ok(Duration::from_millis(1500))
        );
        assert!(positive_duration("0s").is_err());
        assert!(positive_duration("soon").is_err());
    }
}
