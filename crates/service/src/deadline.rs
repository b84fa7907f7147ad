//! How long a requester is willing to wait, as it said itself in `grpc-timeout`.

use std::time::{Duration, Instant};

use tonic::metadata::MetadataMap;

/// For requesters that do not say.
const DEFAULT: Duration = Duration::from_secs(10);

/// Nobody waits longer.
const MAX: Duration = Duration::from_secs(600);

/// Time kept back for the answer's way, so that it comes before the requester gives up.
const ANSWER: Duration = Duration::from_millis(50);

/// When the answer must be on its way.
pub(crate) fn of(metadata: &MetadataMap) -> Instant {
    given_or(metadata, DEFAULT)
}

/// The same, for what takes as long as it takes: whoever does not say how long it waits, waits as long as anybody.
pub(crate) fn of_long(metadata: &MetadataMap) -> Instant {
    given_or(metadata, MAX)
}

fn given_or(metadata: &MetadataMap, otherwise: Duration) -> Instant {
    let given = metadata.get("grpc-timeout");
    let given = given.and_then(|value| value.to_str().ok()).and_then(parse);
    let whole = given.unwrap_or(otherwise).min(MAX);
    let kept = ANSWER.min(whole / 4);
    Instant::now() + (whole - kept)
}

/// For what is asked on a stream, whose own deadline is none of a single question.
pub(crate) fn usual() -> Instant {
    Instant::now() + DEFAULT
}

/// At most 8 digits and a unit (gRPC over HTTP/2, "Timeout").
fn parse(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(count * 3_600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_as_grpc_writes_them() {
        assert_eq!(parse("5S"), Some(Duration::from_secs(5)));
        assert_eq!(parse("1500m"), Some(Duration::from_millis(1_500)));
        assert_eq!(
            parse("99999999H"),
            Some(Duration::from_secs(99_999_999 * 3_600))
        );
        for wrong in ["", "S", "5", "5x", "-5S", "+5S", "123456789S", "5ß"] {
            assert_eq!(parse(wrong), None, "{wrong:?}");
        }
    }
}
