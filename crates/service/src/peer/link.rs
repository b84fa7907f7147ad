//! Links to other members over gRPC: one connection each, made when it is first needed.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, Stream, StreamExt};
use tally_consensus::{Answers, LinkError, Member, PeerLink, Presence, Transport};
use tally_model::{ClusterId, MemberId};
use tally_proto::peer::peer_client::PeerClient;
use tally_proto::{fault, peer};
use tokio::net::TcpStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status, Streaming};

use super::{Envelope, MESSAGE_BYTES_MAX};

const CONNECT_WITHIN: Duration = Duration::from_secs(1);
/// A connection whose other side is silent for these two together is broken.
pub(super) const KEEP_ALIVE_EVERY: Duration = Duration::from_millis(500);
pub(super) const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_millis(1_500);
/// A host whose process is gone says so at once.
const PRESENT_WITHIN: Duration = Duration::from_millis(200);
/// One small question to another member.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// Makes the links of one member; asked again for the same other member, it gives the same one.
pub(crate) struct PeerTransport {
    cluster: ClusterId,
    member: MemberId,
    links: Mutex<BTreeMap<(MemberId, String), Arc<GrpcLink>>>,
}

impl PeerTransport {
    pub(crate) fn new(cluster: ClusterId, member: MemberId) -> Self {
        Self {
            cluster,
            member,
            links: Mutex::default(),
        }
    }

    fn open(&self, to: &Member) -> GrpcLink {
        let envelope = Envelope {
            cluster: self.cluster,
            from: self.member,
            to: to.id,
        };
        match Endpoint::from_shared(format!("http://{}", to.peer_address)) {
            Ok(endpoint) => GrpcLink::new(
                &endpoint,
                envelope,
                to.name.clone(),
                to.peer_address.clone(),
            ),
            Err(error) => {
                let why = format!("{} is no address of {}: {error}", to.peer_address, to.name);
                tracing::error!(why, "a member can never be reached");
                GrpcLink::unreachable(envelope, to.name.clone())
            }
        }
    }
}

impl Transport for PeerTransport {
    fn link(&self, to: &Member) -> Arc<dyn PeerLink> {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (to.id, to.peer_address.clone());
        links
            .entry(key)
            .or_insert_with(|| Arc::new(self.open(to)))
            .clone()
    }
}

struct GrpcLink {
    client: PeerClient<Channel>,
    envelope: Envelope,
    /// Of the other member, for people.
    name: String,
    /// `HOST:PORT`; empty for one that can never be reached.
    address: String,
    /// What the last call found, so that only changes are logged.
    reached: AtomicBool,
}

impl GrpcLink {
    fn new(endpoint: &Endpoint, envelope: Envelope, name: String, address: String) -> Self {
        let endpoint = endpoint
            .clone()
            .connect_timeout(CONNECT_WITHIN)
            .tcp_nodelay(true)
            .http2_adaptive_window(true)
            .http2_keep_alive_interval(KEEP_ALIVE_EVERY)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .keep_alive_while_idle(true);
        let client = PeerClient::new(endpoint.connect_lazy())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        Self {
            client,
            envelope,
            name,
            address,
            reached: AtomicBool::new(true),
        }
    }

    /// A link to nowhere: port 9 of this machine discards by convention, and mostly refuses.
    fn unreachable(envelope: Envelope, name: String) -> Self {
        let nowhere = Endpoint::from_static("http://127.0.0.1:9");
        Self::new(&nowhere, envelope, name, String::new())
    }

    /// Logs when the other member is lost and when it is found again.
    fn note<T>(&self, result: Result<T, LinkError>) -> Result<T, LinkError> {
        let reached = !matches!(
            result,
            Err(LinkError::Unreachable(_) | LinkError::Broken(_))
        );
        if self.reached.swap(reached, Ordering::Relaxed) != reached {
            match &result {
                Err(error) if !reached => {
                    tracing::warn!(
                        member = self.name,
                        "another member cannot be reached: {error}"
                    );
                }
                Ok(_) | Err(_) => {
                    tracing::info!(member = self.name, "another member is reached again");
                }
            }
        }
        result
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        self.envelope.seal(request.metadata_mut());
        request
    }

    fn client(&self) -> PeerClient<Channel> {
        self.client.clone()
    }
}

/// Requests on their way out. A type of its own, because the compiler cannot prove a future with a
/// boxed stream's erased lifetime in it to be `Send`.
struct Outgoing<T>(BoxStream<'static, T>);

impl<T> Stream for Outgoing<T> {
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        self.0.poll_next_unpin(context)
    }
}

/// What a failed call says about whether anything happened.
fn link_error(status: Status) -> LinkError {
    let said = status.message().to_owned();
    if fault::read(&status).is_some() {
        return LinkError::Refused(said);
    }
    if fault::never_connected(&status) {
        return LinkError::Unreachable(said);
    }
    LinkError::Broken(said)
}

fn answers<T: Send + 'static>(stream: Streaming<T>) -> Answers<T> {
    stream.map(|answer| answer.map_err(link_error)).boxed()
}

/// Bounds a question to a member that may be silent.
async fn in_time<T>(
    call: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<T, LinkError> {
    match tokio::time::timeout(ANSWER_WITHIN, call).await {
        Ok(answer) => answer.map(tonic::Response::into_inner).map_err(link_error),
        Err(_) => Err(LinkError::Broken("no answer in time".to_owned())),
    }
}

impl PeerLink for GrpcLink {
    fn presence(&self) -> BoxFuture<'_, Presence> {
        async move {
            let connected = TcpStream::connect(&self.address);
            match tokio::time::timeout(PRESENT_WITHIN, connected).await {
                Ok(Ok(_)) => Presence::Listening,
                Ok(Err(error)) => match error.kind() {
                    ErrorKind::ConnectionRefused => Presence::Refused,
                    // Taken in the moment in which the listener went away.
                    ErrorKind::ConnectionReset => Presence::Listening,
                    _ => Presence::Unknown,
                },
                Err(_) => Presence::Unknown,
            }
        }
        .boxed()
    }

    fn append(
        &self,
        requests: BoxStream<'static, peer::AppendRequest>,
    ) -> BoxFuture<'_, Result<Answers<peer::AppendResponse>, LinkError>> {
        async move {
            let stream = self.client().append(self.request(Outgoing(requests))).await;
            let stream = self.note(stream.map_err(link_error))?;
            Ok(answers(stream.into_inner()))
        }
        .boxed()
    }

    fn vote(
        &self,
        request: peer::VoteRequest,
    ) -> BoxFuture<'_, Result<peer::VoteResponse, LinkError>> {
        async move { in_time(self.client().vote(self.request(request))).await }.boxed()
    }

    fn pre_vote(
        &self,
        request: peer::VoteRequest,
    ) -> BoxFuture<'_, Result<peer::VoteResponse, LinkError>> {
        async move { in_time(self.client().pre_vote(self.request(request))).await }.boxed()
    }

    fn transfer_leader(
        &self,
        request: peer::TransferLeaderRequest,
    ) -> BoxFuture<'_, Result<peer::TransferLeaderResponse, LinkError>> {
        async move { in_time(self.client().transfer_leader(self.request(request))).await }.boxed()
    }

    fn install_snapshot(
        &self,
        frames: BoxStream<'static, peer::SnapshotFrame>,
    ) -> BoxFuture<'_, Result<peer::InstallSnapshotResponse, LinkError>> {
        async move {
            let installed = self
                .client()
                .install_snapshot(self.request(Outgoing(frames)))
                .await;
            installed
                .map(tonic::Response::into_inner)
                .map_err(link_error)
        }
        .boxed()
    }

    fn forward(
        &self,
        requests: BoxStream<'static, peer::ForwardRequest>,
    ) -> BoxFuture<'_, Result<Answers<peer::ForwardResponse>, LinkError>> {
        async move {
            let mut client = self.client();
            let opened = client.forward(self.request(Outgoing(requests)));
            match tokio::time::timeout(ANSWER_WITHIN, opened).await {
                Ok(stream) => Ok(answers(stream.map_err(link_error)?.into_inner())),
                Err(_) => Err(LinkError::Broken("no answer in time".to_owned())),
            }
        }
        .boxed()
    }

    fn read_index(&self) -> BoxFuture<'_, Result<peer::ReadIndexResponse, LinkError>> {
        let ask = peer::ReadIndexRequest {};
        async move { in_time(self.client().read_index(self.request(ask))).await }.boxed()
    }

    fn state_hashes(&self) -> BoxFuture<'_, Result<peer::StateHashesResponse, LinkError>> {
        let ask = peer::StateHashesRequest {};
        async move { self.note(in_time(self.client().state_hashes(self.request(ask))).await) }
            .boxed()
    }
}
