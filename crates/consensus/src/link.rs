//! The network as a replica sees it: links that carry messages to other members.

use std::sync::Arc;

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use tally_proto::peer;

use crate::membership::Member;

/// Makes links to other members.
pub trait Transport: Send + Sync + 'static {
    /// A link to a member, the same one when asked again. Cheap: it connects when it is first used,
    /// and again when it broke.
    fn link(&self, to: &Member) -> Arc<dyn PeerLink>;
}

/// Why a call over a link gave no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// Nothing was sent: nothing can have happened.
    #[error("unreachable: {0}")]
    Unreachable(String),
    /// It may have arrived; no answer came.
    #[error("broken: {0}")]
    Broken(String),
    /// The other member refused; nothing happened.
    #[error("refused: {0}")]
    Refused(String),
}

/// Whether anybody listens where a member should be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// Somebody does, whether it answers or not.
    Listening,
    /// Its host says that nobody does: the process is gone.
    Refused,
    /// No word from its host.
    Unknown,
}

/// Answers to a stream of requests.
pub type Answers<T> = BoxStream<'static, Result<T, LinkError>>;

/// Calls to one other member. Every call fails rather than wait for ever when the other side is
/// silent.
pub trait PeerLink: Send + Sync + 'static {
    /// Looks whether the other member's process is there, on a connection of its own. Asks nothing.
    fn presence(&self) -> BoxFuture<'_, Presence>;

    /// Replication; answers come in the order of the requests.
    fn append(
        &self,
        requests: BoxStream<'static, peer::AppendRequest>,
    ) -> BoxFuture<'_, Result<Answers<peer::AppendResponse>, LinkError>>;

    fn vote(
        &self,
        request: peer::VoteRequest,
    ) -> BoxFuture<'_, Result<peer::VoteResponse, LinkError>>;

    fn pre_vote(
        &self,
        request: peer::VoteRequest,
    ) -> BoxFuture<'_, Result<peer::VoteResponse, LinkError>>;

    fn transfer_leader(
        &self,
        request: peer::TransferLeaderRequest,
    ) -> BoxFuture<'_, Result<peer::TransferLeaderResponse, LinkError>>;

    fn install_snapshot(
        &self,
        frames: BoxStream<'static, peer::SnapshotFrame>,
    ) -> BoxFuture<'_, Result<peer::InstallSnapshotResponse, LinkError>>;

    /// Commands for the leader; answers come in any order. Established before the first request is
    /// taken from the stream.
    fn forward(
        &self,
        requests: BoxStream<'static, peer::ForwardRequest>,
    ) -> BoxFuture<'_, Result<Answers<peer::ForwardResponse>, LinkError>>;

    fn read_index(&self) -> BoxFuture<'_, Result<peer::ReadIndexResponse, LinkError>>;

    fn state_hashes(&self) -> BoxFuture<'_, Result<peer::StateHashesResponse, LinkError>>;
}
