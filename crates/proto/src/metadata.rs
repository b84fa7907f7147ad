//! Names of gRPC metadata: how a request of the etcd API is tagged, and how its answer says what became
//! of the tag. `docs/etcd.md` has their values.

/// The session, decimal.
pub const SESSION: &str = "tally-session";
/// Which of the session's requests it is, decimal.
pub const SEQUENCE: &str = "tally-sequence";
/// Every request below is answered, decimal.
pub const ACKNOWLEDGED: &str = "tally-acknowledged";
/// The session's marker, as text.
pub const MARKER: &str = "tally-marker";
/// Of an answer: [`APPLIED`] or [`REPLAYED`].
pub const OUTCOME: &str = "tally-outcome";
/// The first answer to its tag.
pub const APPLIED: &str = "applied";
/// The answer was given before.
pub const REPLAYED: &str = "replayed";
