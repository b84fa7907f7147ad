//! The text form of a tag: what a person keeps to find out later what became of a request.

use std::fmt;
use std::str::FromStr;

use tally_model::{Marker, SessionId, Tag};
use tally_proto::v1;

/// Names one request for ever and proves who asked: session, sequence, and the session's marker.
///
/// Written as `SESSION/SEQUENCE:MARKER`, for example
/// `12/3:7f3a0000000000000000000000000000@1700000000000`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TagToken {
    /// Log index of the entry that opened the session; never 0.
    pub session: u64,
    /// Position of the request in its session; the first is 1.
    pub sequence: u64,
    /// The marker under which the session was opened.
    pub marker: Marker,
}

/// Why a text is not a token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("token: {problem}")]
pub struct InvalidToken {
    /// What was found and what was expected.
    pub problem: String,
}

impl TagToken {
    /// The tag as it goes over the wire; acknowledges nothing that the session had not before.
    pub(crate) fn to_tag(self) -> v1::Tag {
        v1::Tag {
            session: self.session,
            sequence: self.sequence,
            acknowledged: 1,
            marker: Some(self.marker.into()),
        }
    }
}

impl fmt::Display for TagToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}:{}", self.session, self.sequence, self.marker)
    }
}

/// Reads what `Display` writes.
impl FromStr for TagToken {
    type Err = InvalidToken;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = |problem: String| InvalidToken { problem };
        let Some((tag, marker)) = text.split_once(':') else {
            return Err(invalid(format!(
                "found {text:?}, expected SESSION/SEQUENCE:MARKER"
            )));
        };
        let tag: Tag = tag.parse().map_err(|error| invalid(format!("{error}")))?;
        let marker = marker
            .parse()
            .map_err(|error| invalid(format!("{error}")))?;
        if tag.session == SessionId(0) {
            return Err(invalid(format!(
                "found session 0 in {text:?}, the first is 1"
            )));
        }
        Ok(Self {
            session: tag.session.0,
            sequence: tag.sequence,
            marker,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn a_token_is_read_back_as_it_was_written() {
        for (session, sequence, bits, created_unix_ms) in [
            (1, 1, 0, 0),
            (12, 3, 0x7f3a, 1_700_000_000_000),
            (u64::MAX, u64::MAX, u128::MAX, u64::MAX),
        ] {
            let token = TagToken {
                session,
                sequence,
                marker: Marker {
                    bits,
                    created_unix_ms,
                },
            };
            assert_eq!(token.to_string().parse(), Ok(token));
        }
    }

    #[test]
    fn a_malformed_token_is_refused_with_what_was_found() {
        let marker = "7f3a0000000000000000000000000000@1700000000000";
        for text in [
            "",
            "12/3",
            &format!("12:{marker}"),
            &format!("0/3:{marker}"),
            &format!("12/0:{marker}"),
            &format!("12/-3:{marker}"),
            &format!("x/3:{marker}"),
            &format!("12/3:{marker}0x"),
            &format!("12/99999999999999999999:{marker}"),
            "12/3:7f3a@17",
            "12/3:7f3a0000000000000000000000000000",
            "12/3:zz3a0000000000000000000000000000@1",
        ] {
            let error = text.parse::<TagToken>().unwrap_err();
            assert!(error.to_string().contains("found"), "{text}: {error}");
        }
    }
}
