//! The route of `etcdserverpb.KV`: tonic's, but for the bodies of large answers, and for what is nested too deep to be read.

use std::convert::Infallible;
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use tally_proto::convert::MalformedKeys;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::server::NamedService;
use tonic::{Code, Status};

use super::sent::Sent;
use crate::etcd::rpctypes;

/// Puts what is sent in pieces in the place of the answer that stands for it, and etcd's words for transactions within one
/// another, of whatever depth, in the place of the decoder's.
#[derive(Clone)]
pub(in crate::etcd) struct KvRoute<S>(pub(in crate::etcd) S);

impl<S: NamedService> NamedService for KvRoute<S> {
    const NAME: &'static str = S::NAME;
}

impl<S, Asked> Service<http::Request<Asked>> for KvRoute<S>
where
    S: Service<http::Request<Asked>, Response = http::Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Asked>) -> Self::Future {
        let answering = self.0.call(request);
        Box::pin(async move {
            let mut answer = answering.await?;
            if is_too_deep(answer.headers()) {
                return Ok(rpctypes::malformed(&MalformedKeys::TooDeep).into_http());
            }
            if let Some(sent) = answer.extensions_mut().remove::<Sent>() {
                *answer.body_mut() = sent.into_body();
            }
            Ok(answer)
        })
    }
}

/// Of these messages only transactions are within one another.
fn is_too_deep(headers: &http::HeaderMap) -> bool {
    Status::from_header_map(headers).is_some_and(|status| {
        status.code() == Code::Internal && status.message().contains("recursion limit reached")
    })
}
