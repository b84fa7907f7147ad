//! Links to other members in openraft's terms. Every trait is implemented in full: the defaults of
//! `RaftNetworkV2` grant every pre-vote, refuse leader transfer and replicate one request at a time.

use std::future::{Future, ready};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, Stream, StreamExt};
use openraft::OptionalSend;
use openraft::errors::{
    NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable,
};
use openraft::network::{
    Backoff, NetBackoff, NetSnapshot, NetStreamAppend, NetTransferLeader, NetVote, RPCOption,
    RPCTypes, RaftNetworkFactory,
};
use openraft::raft::TransferLeaderError;
use openraft::raft::{
    AppendEntriesRequest, SnapshotResponse, StreamAppendResult, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::type_config::alias;
use tally_model::MemberId;
use tally_proto::peer;
use tally_storage::{Snapshot, StateStore};
use tokio::sync::watch;

use super::convert::{self, Incomplete};
use super::{Node, TypeConfig, Vote};
use crate::link::{LinkError, PeerLink, Transport};
use crate::snapshot::{self, LetGoAside};

type RpcError = RPCError<TypeConfig>;

/// How long to leave a member alone that could not be reached.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// Makes the links that openraft asks for.
pub(crate) struct Network {
    pub(crate) member: MemberId,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) snapshot_chunk_bytes: usize,
    /// Whose snapshots are sent.
    pub(crate) state: StateStore,
    pub(crate) disk: OwnDisk,
}

/// Whether the member's own disk lets it lead. A leader whose state waits for it for longer than `patience` answers
/// nobody, and is not to be taken for one.
#[derive(Clone)]
pub(crate) struct OwnDisk {
    state: StateStore,
    patience: Duration,
    /// It was said that it does not.
    said: Arc<AtomicBool>,
}

impl OwnDisk {
    pub(crate) fn new(state: StateStore, patience: Duration) -> Self {
        Self {
            state,
            patience,
            said: Arc::default(),
        }
    }

    fn lets_lead(&self) -> bool {
        let lets = self.state.held_up_for() <= self.patience;
        let before = !self.said.swap(!lets, Ordering::Relaxed);
        match (before, lets) {
            (true, false) => tracing::warn!(
                "the disk holds up the state: if this member leads, another one takes over"
            ),
            (false, true) => tracing::info!("the disk goes on"),
            (_, _) => {}
        }
        lets
    }
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = NetworkLink;

    async fn new_client(&mut self, target: u64, node: &Node) -> NetworkLink {
        NetworkLink {
            member: self.member,
            target,
            link: self.transport.link(&node.member(MemberId(target))),
            snapshot_chunk_bytes: self.snapshot_chunk_bytes,
            state: self.state.clone(),
            disk: self.disk.clone(),
        }
    }
}

/// One link.
pub(crate) struct NetworkLink {
    member: MemberId,
    target: u64,
    link: Arc<dyn PeerLink>,
    snapshot_chunk_bytes: usize,
    state: StateStore,
    disk: OwnDisk,
}

fn rpc_error(error: LinkError) -> RpcError {
    match error {
        LinkError::Unreachable(_) | LinkError::Refused(_) => {
            RPCError::Unreachable(Unreachable::from_string(error))
        }
        LinkError::Broken(_) => RPCError::Network(NetworkError::from_string(error)),
    }
}

fn incomplete(error: Incomplete) -> RpcError {
    RPCError::Network(NetworkError::from_string(error))
}

impl NetworkLink {
    /// Waits for an answer no longer than openraft would.
    async fn call<T>(
        &self,
        action: RPCTypes,
        option: &RPCOption,
        call: BoxFuture<'_, Result<T, LinkError>>,
    ) -> Result<T, RpcError> {
        let timeout = option.hard_ttl();
        match tokio::time::timeout(timeout, call).await {
            Ok(answer) => answer.map_err(rpc_error),
            Err(_) => Err(RPCError::Timeout(Timeout {
                action,
                id: self.member.0,
                target: self.target,
                timeout,
            })),
        }
    }
}

impl NetStreamAppend<TypeConfig> for NetworkLink {
    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        _option: RPCOption,
    ) -> BoxFuture<
        's,
        Result<BoxStream<'s, Result<StreamAppendResult<TypeConfig>, RpcError>>, RpcError>,
    >
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        async move {
            let mut input = input;
            // openraft waits in its stream of requests while it backs off from a member: asked for
            // none, it would try again at once, thousands of times a second.
            let Some(first) = input.next().await else {
                return Ok(futures::stream::empty().boxed());
            };
            if !self.disk.lets_lead() {
                let why = "the own disk holds up the state";
                return Err(rpc_error(LinkError::Unreachable(why.to_owned())));
            }
            let disk = self.disk.clone();
            let requests = futures::stream::once(ready(first)).chain(input);
            let requests = requests.take_while(move |_| ready(disk.lets_lead()));
            let requests = requests.map(convert::append_message).boxed();
            let answers = self.link.append(requests).await.map_err(rpc_error)?;
            let results = answers.map(|answer| {
                let answer = answer.map_err(rpc_error)?;
                convert::append_result(answer).map_err(incomplete)
            });
            Ok(results.boxed())
        }
        .boxed()
    }
}

impl NetVote<TypeConfig> for NetworkLink {
    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RpcError> {
        let call = self.link.vote(convert::vote_request_message(&request));
        let answer = self.call(RPCTypes::Vote, &option, call).await?;
        convert::vote_response(answer).map_err(incomplete)
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RpcError> {
        let call = self.link.pre_vote(convert::vote_request_message(&request));
        let answer = self.call(RPCTypes::Vote, &option, call).await?;
        convert::vote_response(answer).map_err(incomplete)
    }
}

/// Asks a member for a pre-vote, apart from openraft; `None` when there is no answer that can be understood.
pub(crate) async fn pre_vote(
    link: &dyn PeerLink,
    request: &VoteRequest<TypeConfig>,
) -> Option<VoteResponse<TypeConfig>> {
    let answer = link.pre_vote(convert::vote_request_message(request)).await;
    convert::vote_response(answer.ok()?).ok()
}

impl NetTransferLeader<TypeConfig> for NetworkLink {
    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RpcError> {
        let message = peer::TransferLeaderRequest {
            from: Some(convert::vote_message(request.from_leader())),
            to: *request.to_node_id(),
            last_log: request.last_log_id().map(convert::log_id_message),
        };
        let call = self.link.transfer_leader(message);
        let answer = self.call(RPCTypes::TransferLeader, &option, call).await?;
        if answer.accepted {
            return Ok(Ok(()));
        }
        tracing::info!(
            target = self.target,
            why = answer.reason,
            "leadership was not taken over"
        );
        Ok(Err(TransferLeaderError::LogNotFlushed {
            expected: request.last_log_id().cloned(),
            actual: None,
        }))
    }
}

impl NetSnapshot<TypeConfig> for NetworkLink {
    type SnapshotData = Snapshot;

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: alias::SnapshotOf<TypeConfig, Snapshot>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let vote = convert::vote_message(&vote);
        let chunk = self.snapshot_chunk_bytes;
        let (taken, seen) = watch::channel(0);
        let frames = snapshot::frames(vote, snapshot.snapshot.clone(), chunk, self.state.clone());
        let frames = frames.inspect(move |_| taken.send_modify(|frames| *frames += 1));
        let held = LetGoAside::new(snapshot.snapshot);
        let timeout = option.hard_ttl();
        let sent = tokio::select! {
            sent = self.link.install_snapshot(frames.boxed()) => sent,
            closed = cancel => return Err(closed.into()),
            // However large it is, as long as it goes on.
            () = snapshot::stalled(seen, timeout) => {
                return Err(StreamingError::Timeout(Timeout {
                    action: RPCTypes::InstallSnapshot,
                    id: self.member.0,
                    target: self.target,
                    timeout,
                }));
            }
        };
        // A member that cannot be reached is tried again and again, and said so once elsewhere.
        if let Err(LinkError::Refused(why)) = &sent {
            tracing::warn!(member = self.target, why, "a snapshot was refused");
            let (state, refused) = (self.state.clone(), held.snapshot());
            tokio::task::spawn_blocking(move || {
                refused.map(|refused| state.refused_elsewhere(&refused))
            });
        }
        let answer = sent.map_err(|error| match error {
            LinkError::Unreachable(_) | LinkError::Refused(_) => {
                StreamingError::Unreachable(Unreachable::from_string(error))
            }
            LinkError::Broken(_) => StreamingError::Network(NetworkError::from_string(error)),
        })?;
        let vote = convert::required_vote(answer.vote);
        let unusable = |error| StreamingError::Network(NetworkError::from_string(error));
        Ok(SnapshotResponse::new(vote.map_err(unusable)?))
    }
}

impl NetBackoff<TypeConfig> for NetworkLink {
    fn backoff(&self) -> Option<Backoff> {
        Some(Backoff::new(std::iter::repeat(RETRY_AFTER)))
    }
}
