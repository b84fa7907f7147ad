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

use super::end::End;
use super::rpctypes;
use crate::member::Member;
use answer::{Outgoing, WatchResponse};
pub(super) use server::WatchServer;

/// Answers between the watchers of a stream and the network.
const ANSWERS_WAITING_MAX: usize = 16;

pub(super) struct WatchAnswers(pub(super) Arc<Member>);

type Answers = BoxStream<'static, Result<WatchResponse, Status>>;

impl WatchAnswers {
    fn watch(
        &self,
        request: Request<Streaming<WatchRequest>>,
    ) -> Result<Response<Answers>, Status> {
        let replica = self.0.may_serve().map_err(|_| rpctypes::stopped())?;
        let end = End::of_stream(self.0.clone(), replica.clone(), request.metadata())?;
        let hub = self.0.hub(&replica);
        let (send, answers) = mpsc::channel(ANSWERS_WAITING_MAX);
        let stream = stream::Stream::new(self.0.clone(), replica, hub, send);
        let requests = request.into_inner();
        tokio::spawn(async move {
            let last = stream.answers();
            let end = tokio::select! {
                end = stream.run(requests) => end,
                end = end.reason() => end,
            };
            // The client may be gone.
            let _ = last.send(Outgoing::small(Err(end))).await;
        });
        // What an answer holds is given back when the network takes it.
        let answers = ReceiverStream::new(answers).map(|outgoing| outgoing.answer);
        Ok(Response::new(answers.boxed()))
    }
}
