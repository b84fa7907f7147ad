//! The route of `etcdserverpb.Watch`. It is what tonic generates, but for the type of its answers: their
//! events are encoded once, and not for each watcher.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use tally_proto::etcd::WatchRequest;
use tally_proto::etcd::watch_server::SERVICE_NAME;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::server::{Grpc, NamedService, StreamingService};
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

use super::WatchAnswers;
use super::answer::WatchResponse;

const METHOD: &str = "/etcdserverpb.Watch/Watch";

/// See the module.
#[derive(Clone)]
pub(in crate::etcd) struct WatchServer {
    answers: Arc<WatchAnswers>,
    request_bytes_max: usize,
}

impl WatchServer {
    pub(in crate::etcd) fn new(answers: WatchAnswers, request_bytes_max: usize) -> Self {
        Self {
            answers: Arc::new(answers),
            request_bytes_max,
        }
    }
}

impl NamedService for WatchServer {
    const NAME: &'static str = SERVICE_NAME;
}

impl Service<http::Request<Body>> for WatchServer {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let (method, bytes_max) = (Method(self.answers.clone()), self.request_bytes_max);
        Box::pin(async move {
            if request.uri().path() != METHOD {
                return Ok(Status::unimplemented("").into_http());
            }
            let mut grpc = Grpc::new(ProstCodec::<WatchResponse, WatchRequest>::default())
                .max_decoding_message_size(bytes_max);
            Ok(grpc.streaming(method, request).await)
        })
    }
}

struct Method(Arc<WatchAnswers>);

impl StreamingService<WatchRequest> for Method {
    type Response = WatchResponse;
    type ResponseStream = BoxStream<'static, Result<WatchResponse, Status>>;
    type Future = BoxFuture<'static, Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<Streaming<WatchRequest>>) -> Self::Future {
        let answers = self.0.clone();
        Box::pin(async move { answers.watch(request) })
    }
}
