//! Names for members, nodes, sessions and moments. A number with a meaning gets a type of its own.

use std::fmt;
use std::str::FromStr;

/// Longest node name in bytes.
pub const NODE_NAME_BYTES_MAX: usize = 128;

/// Longest location in bytes.
pub const LOCATION_BYTES_MAX: usize = 128;

/// Why a text is not the identifier it was meant to be. The message names what was found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {problem}")]
pub struct InvalidIdentifier {
    /// Which identifier was meant, for example `marker`.
    pub what: &'static str,
    /// What was found and what is allowed.
    pub problem: String,
}

fn invalid(what: &'static str, problem: impl Into<String>) -> InvalidIdentifier {
    InvalidIdentifier {
        what,
        problem: problem.into(),
    }
}

/// One server of the Tally cluster: random, made when its data directory is formatted, never reused.
/// Zero is never an id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberId(pub u64);

impl fmt::Display for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// One Tally cluster: 128 random bits, made by the member that founds it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterId(pub u128);

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClusterId({self})")
    }
}

impl FromStr for ClusterId {
    type Err = InvalidIdentifier;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse_hex_128("cluster id", text).map(Self)
    }
}

/// One log server: a small integer, assigned once by the cluster, never reused. The first is 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u32);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A log server's unique name: 1 to [`NODE_NAME_BYTES_MAX`] bytes, no control characters, no
/// white space at either end, and not digits alone: those are ids.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeName(String);

impl NodeName {
    /// Checks the rules above.
    pub fn new(name: impl Into<String>) -> Result<Self, InvalidIdentifier> {
        let name = name.into();
        check_text("node name", &name, NODE_NAME_BYTES_MAX)?;
        if name.is_empty() {
            return Err(invalid(
                "node name",
                "found an empty name, expected at least one character",
            ));
        }
        if name.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(invalid(
                "node name",
                format!("found {name:?}, expected something that cannot be taken for a node's id"),
            ));
        }
        Ok(Self(name))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where a log server stands: `region` or `region.zone`, empty when unknown.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Location(String);

impl Location {
    /// Accepts the empty text, `region` and `region.zone`.
    pub fn new(location: impl Into<String>) -> Result<Self, InvalidIdentifier> {
        let location = location.into();
        check_text("location", &location, LOCATION_BYTES_MAX)?;
        let parts = location.split('.').count();
        if !location.is_empty() && (parts > 2 || location.split('.').any(str::is_empty)) {
            return Err(invalid(
                "location",
                format!("found {location:?}, expected `region` or `region.zone`"),
            ));
        }
        Ok(Self(location))
    }

    /// The location as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part before the dot; empty when the location is unknown.
    pub fn region(&self) -> &str {
        self.0.split('.').next().unwrap_or_default()
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn check_text(what: &'static str, text: &str, bytes_max: usize) -> Result<(), InvalidIdentifier> {
    if text.len() > bytes_max {
        return Err(invalid(
            what,
            format!(
                "found {} bytes, at most {bytes_max} are allowed",
                text.len()
            ),
        ));
    }
    if let Some(control) = text.chars().find(|c| c.is_control()) {
        return Err(invalid(
            what,
            format!(
                "found the control character {:?}, which is not allowed",
                control
            ),
        ));
    }
    if text.trim() != text {
        return Err(invalid(
            what,
            format!("found white space at an end of {text:?}, which is not allowed"),
        ));
    }
    Ok(())
}

/// Number of times a node has registered. The first start is 1; older incarnations are fenced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(pub u64);

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A lease, as its requester or the store named it. Never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub i64);

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// The store's one counter: 1 when empty, up by one for each command that changed a node, a claim
/// or a key. Neither sessions nor the founding count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

impl Revision {
    /// The revision of the empty store.
    pub const EMPTY: Self = Self(1);

    /// The revision that follows this one.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// As etcd's messages have it.
    pub fn signed(self) -> i64 {
        i64::try_from(self.0).unwrap_or(i64::MAX)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "r{}", self.0)
    }
}

/// What a log server writes to its own disk, fsynced, before it asks for anything: 128 random bits
/// and the time of their making. Two markers are the same only when both parts are.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Marker {
    /// Random bits; they alone make a marker unique.
    pub bits: u128,
    /// Milliseconds since 1970, by the maker's clock. For people; no rule depends on it.
    pub created_unix_ms: u64,
}

impl Marker {
    /// First and last digits, enough for a person to tell two markers apart.
    pub fn short(&self) -> String {
        let text = format!("{:032x}", self.bits);
        format!("{}…{}", &text[..4], &text[30..])
    }
}

impl fmt::Display for Marker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}@{}", self.bits, self.created_unix_ms)
    }
}

impl fmt::Debug for Marker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Marker({self})")
    }
}

/// Reads what `Display` writes: 32 hexadecimal digits, `@`, milliseconds since 1970.
impl FromStr for Marker {
    type Err = InvalidIdentifier;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let Some((bits, created)) = text.split_once('@') else {
            return Err(invalid(
                "marker",
                format!("found {text:?}, expected 32 hexadecimal digits, `@` and milliseconds"),
            ));
        };
        let created_unix_ms = created.parse().map_err(|_| {
            invalid(
                "marker",
                format!("found {created:?} after `@`, expected milliseconds since 1970"),
            )
        })?;
        Ok(Self {
            bits: parse_hex_128("marker", bits)?,
            created_unix_ms,
        })
    }
}

fn parse_hex_128(what: &'static str, text: &str) -> Result<u128, InvalidIdentifier> {
    if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(invalid(
            what,
            format!("found {text:?}, expected 32 hexadecimal digits"),
        ));
    }
    u128::from_str_radix(text, 16).map_err(|error| invalid(what, error.to_string()))
}

/// One requester's numbered requests. The id is the log index of the entry that opened it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Position of a request in its session; the first is 1, zero is not allowed on the wire.
pub type Sequence = u64;

/// Names one request for ever: which session, and which of its requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag {
    pub session: SessionId,
    pub sequence: Sequence,
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.session, self.sequence)
    }
}

impl FromStr for Tag {
    type Err = InvalidIdentifier;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parsed = text.split_once('/').and_then(|(session, sequence)| {
            Some(Self {
                session: SessionId(session.parse().ok()?),
                sequence: sequence.parse().ok()?,
            })
        });
        match parsed {
            Some(tag) if tag.sequence > 0 => Ok(tag),
            _ => Err(invalid(
                "tag",
                format!("found {text:?}, expected SESSION/SEQUENCE, for example 12/1"),
            )),
        }
    }
}

/// What the leader adds to an entry. With the log index it is the only time and identity that
/// apply may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Raft log index of the entry.
    pub index: u64,
    /// The leader's wall clock in milliseconds since 1970. Apply uses the larger of this and the
    /// last one it saw, so time in the state never runs backwards.
    pub unix_ms: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_be_taken_for_an_id() {
        for wrong in ["", "1", "007", "a\nb", &"n".repeat(NODE_NAME_BYTES_MAX + 1)] {
            assert!(NodeName::new(wrong).is_err(), "{wrong:?}");
        }
        for right in ["ls1", "1a", "1.2", "ä", &"n".repeat(NODE_NAME_BYTES_MAX)] {
            assert!(NodeName::new(right).is_ok(), "{right:?}");
        }
    }
}
