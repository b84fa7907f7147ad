//! `etcdserverpb.Watch`: many watchers on one stream. What happens comes from the hub; what has happened,
//! for a watcher that begins in the past or was let go, from the stored history.

mod answer;
mod server;
mod stream;

use std::sync::Arc;

use futures::StreamExt;
use futures::stream::BoxStream;
use tally_proto::etcd::WatchRequest;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::rpctypes;
use crate::member::Member;
use answer::{Outgoing, WatchResponse};
pub(super) use server::WatchServer;

/// Answers between the watchers of a stream and the network.
const ANSWERS_WAITING_MAX: usize = 16;

/// Metadata with which a client asks for the end of a stream whose member knows no leader.
const HAS_LEADER: &str = "hasleader";

pub(super) struct WatchAnswers(pub(super) Arc<Member>);

type Answers = BoxStream<'static, Result<WatchResponse, Status>>;

impl WatchAnswers {
    fn watch(
        &self,
        request: Request<Streaming<WatchRequest>>,
    ) -> Result<Response<Answers>, Status> {
        let replica = self.0.replica().map_err(|_| rpctypes::stopped())?;
        let leader_needed = request.metadata().contains_key(HAS_LEADER);
        if leader_needed && replica.status().leader.is_none() {
            return Err(rpctypes::no_leader());
        }
        let hub = self.0.hub(&replica);
        let (send, answers) = mpsc::channel(ANSWERS_WAITING_MAX);
        let stream = stream::Stream::new(self.0.clone(), replica.clone(), hub, send);
        let requests = request.into_inner();
        let member = self.0.clone();
        tokio::spawn(async move {
            let last = stream.answers();
            let end = tokio::select! {
                () = stream.run(requests) => return,
                () = member.ending.closing.cancelled() => rpctypes::stopped(),
                () = no_leader(&replica), if leader_needed => rpctypes::no_leader(),
            };
            // The client may be gone as well.
            let _ = last.send(Outgoing::small(Err(end))).await;
        });
        // What an answer holds is given back when the network takes it.
        let answers = ReceiverStream::new(answers).map(|outgoing| outgoing.answer);
        Ok(Response::new(answers.boxed()))
    }
}

/// Resolves when this member knows no leader any more, or has stopped.
async fn no_leader(replica: &tally_consensus::Replica) {
    let mut status = replica.watch_status();
    // An error says that the replica is gone.
    let _ = status.wait_for(|status| status.leader.is_none()).await;
}
