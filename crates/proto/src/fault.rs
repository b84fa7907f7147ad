//! Errors on the wire: a gRPC status with `google.rpc.ErrorInfo`, whose reason is the stable code, and
//! `RetryInfo` where waiting helps. Refusals are not errors and do not pass here.

use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::time::Duration;

use tally_model::explanation::codes;
use tonic::{Code, ConnectError, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// The domain of every code in `ErrorInfo`.
pub const DOMAIN: &str = "tally";

/// Key of `ErrorInfo.metadata` for the command that would help.
const NEXT: &str = "next";
/// Key of `ErrorInfo.metadata` for the leader's client address.
const LEADER: &str = "leader";

/// A failure as a requester sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fault {
    /// Stable code, for example `T-001`.
    pub code: String,
    /// What was found, in one line.
    pub found: String,
    /// The command that would help; empty when there is none.
    pub next: String,
    /// Where clients reach the leader, when the member knows it.
    pub leader: Option<String>,
    /// How long to wait before the request is sent again, where waiting helps.
    pub retry_after: Option<Duration>,
}

impl Fault {
    /// A fault with a code and a finding; the rest is added by its `with_…` functions.
    pub fn new(code: &str, found: impl Into<String>) -> Self {
        Self {
            code: code.to_owned(),
            found: found.into(),
            ..Self::default()
        }
    }

    /// Adds the command that would help.
    #[must_use]
    pub fn with_next(self, next: impl Into<String>) -> Self {
        Self {
            next: next.into(),
            ..self
        }
    }

    /// Adds where clients reach the leader.
    #[must_use]
    pub fn with_leader(self, leader: Option<String>) -> Self {
        Self { leader, ..self }
    }

    /// Adds how long to wait.
    #[must_use]
    pub fn with_retry_after(self, retry_after: Duration) -> Self {
        Self {
            retry_after: Some(retry_after),
            ..self
        }
    }

    /// The fault as a status of the given gRPC code.
    pub fn into_status(self, code: Code) -> Status {
        let message = self.to_string();
        self.into_status_saying(code, message)
    }

    /// The same with a message that clients know from elsewhere, without the code, which is beside it.
    pub fn into_status_saying(self, code: Code, message: impl Into<String>) -> Status {
        let mut metadata = HashMap::new();
        if !self.next.is_empty() {
            metadata.insert(NEXT.to_owned(), self.next);
        }
        if let Some(leader) = self.leader {
            metadata.insert(LEADER.to_owned(), leader);
        }
        let mut details = ErrorDetails::with_error_info(self.code, DOMAIN, metadata);
        if self.retry_after.is_some() {
            details.set_retry_info(self.retry_after);
        }
        Status::with_error_details(code, message, details)
    }

    /// The fault that a status carries; `None` when it is not one of Tally's.
    pub fn read(status: &Status) -> Option<Self> {
        let details = status.get_error_details();
        let info = details.error_info().filter(|info| info.domain == DOMAIN)?;
        let prefix = format!("{}: ", info.reason);
        let found = status
            .message()
            .strip_prefix(&prefix)
            .unwrap_or(status.message());
        Some(Self {
            code: info.reason.clone(),
            found: found.to_owned(),
            next: info.metadata.get(NEXT).cloned().unwrap_or_default(),
            leader: info.metadata.get(LEADER).cloned(),
            retry_after: details.retry_info().and_then(|retry| retry.retry_delay),
        })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.found)
    }
}

/// A fault as a status, in one call.
pub fn status(code: Code, reason: &str, found: impl Into<String>) -> Status {
    Fault::new(reason, found).into_status(code)
}

/// The fault that a status carries; `None` when it is not one of Tally's.
pub fn read(status: &Status) -> Option<Fault> {
    Fault::read(status)
}

/// For tonic's word that a message is too large, what gRPC for Go says of it, which clients of etcd know: the same two
/// numbers, and T-007. `None` for every other status.
pub fn too_large(found: &Status) -> Option<Status> {
    let said = found.message();
    if found.code() != Code::OutOfRange || !said.contains("message length too large") {
        return None;
    }
    let words = said.split_whitespace();
    let numbers: Vec<&str> = words.filter(|word| word.parse::<u64>().is_ok()).collect();
    let said = match numbers[..] {
        [bytes, max] => format!("grpc: received message larger than max ({bytes} vs. {max})"),
        _ => said.to_owned(),
    };
    let fault = Fault::new(codes::TOO_LARGE, &said).with_next(
        "send less in one message; a member takes from clients what message-bytes-max says, and of the etcd API request-bytes-max",
    );
    Some(fault.into_status_saying(Code::ResourceExhausted, said))
}

/// What lies behind an error, nearest first.
fn causes<'a>(error: &'a dyn Error) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(error.source(), |&cause| cause.source())
}

/// True when the connection was never made, so that nothing can have been sent.
pub fn never_connected(status: &Status) -> bool {
    causes(status).any(|cause| cause.is::<ConnectError>())
}

/// What was said and what the causes of the error add to it, in one line: "transport error" alone
/// says nothing.
pub fn with_causes(said: impl Into<String>, error: &dyn Error) -> String {
    causes(error).fold(said.into(), |text, cause| {
        let more = cause.to_string();
        if text.contains(&more) {
            text
        } else {
            format!("{text}: {more}")
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_survives_the_wire() {
        let fault = Fault::new("T-001", "no member leads")
            .with_next("tally cluster status")
            .with_leader(Some("127.0.0.1:7411".to_owned()))
            .with_retry_after(Duration::from_millis(250));
        let status = fault.clone().into_status(Code::Unavailable);
        assert_eq!(status.code(), Code::Unavailable);
        assert_eq!(Fault::read(&status), Some(fault));
    }

    #[test]
    fn a_status_of_another_kind_is_no_fault() {
        assert_eq!(Fault::read(&Status::unavailable("connection reset")), None);
    }
}
