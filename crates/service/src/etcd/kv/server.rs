//! The route of `etcdserverpb.KV`: tonic's, but for the bodies of large answers.

use std::convert::Infallible;
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::server::NamedService;

use super::sent::Sent;

/// Puts what is sent in pieces in the place of the answer that stands for it.
#[derive(Clone)]
pub(in crate::etcd) struct SendsPieces<S>(pub(in crate::etcd) S);

impl<S: NamedService> NamedService for SendsPieces<S> {
    const NAME: &'static str = S::NAME;
}

impl<S, Asked> Service<http::Request<Asked>> for SendsPieces<S>
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
            if let Some(sent) = answer.extensions_mut().remove::<Sent>() {
                *answer.body_mut() = sent.into_body();
            }
            Ok(answer)
        })
    }
}
