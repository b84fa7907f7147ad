//! `etcdserverpb.Watch`: many watchers on one stream. What happens comes from the hub; what has happened,
//! for a watcher that begins in the past or was let go, from the stored history.

mod answer;
mod hub;
mod server;
mod stream;

use std::sync::{Arc, OnceLock};

use futures::StreamExt;
use futures::stream::BoxStream;
use tally_proto::etcd::WatchRequest;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::rpctypes;
use crate::member::Member;
use answer::{Outgoing, WatchResponse};
use hub::Hub;
pub(super) use server::WatchServer;

/// Answers between the watchers of a stream and the network.
const ANSWERS_WAITING_MAX: usize = 16;

/// Metadata with which a client asks for the end of a stream whose member knows no leader.
const HAS_LEADER: &str = "hasleader";

pub(super) struct WatchAnswers {
    member: Arc<Member>,
    hub: OnceLock<Hub>,
}

impl WatchAnswers {
    pub(super) fn new(member: Arc<Member>) -> Self {
        Self {
            member,
            hub: OnceLock::new(),
        }
    }
}

type Answers = BoxStream<'static, Result<WatchResponse, Status>>;

impl WatchAnswers {
    fn watch(
        &self,
        request: Request<Streaming<WatchRequest>>,
    ) -> Result<Response<Answers>, Status> {
        let replica = self.member.replica().map_err(|_| rpctypes::stopped())?;
        let leader_needed = request.metadata().contains_key(HAS_LEADER);
        if leader_needed && replica.status().leader.is_none() {
            return Err(rpctypes::no_leader());
        }
        let hub = self.hub.get_or_init(|| {
            let hub = Hub::default();
            tokio::spawn(hub.clone().run(replica.clone()));
            hub
        });
        let (send, answers) = mpsc::channel(ANSWERS_WAITING_MAX);
        let stream = stream::Stream::new(self.member.clone(), replica.clone(), hub.clone(), send);
        let requests = request.into_inner();
        let member = self.member.clone();
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
