//! Calls that are made so often that no router looks for who answers them.
//!
//! A router copies and boxes several times for each request what it hands on. That is little for most
//! calls, and a noticeable part of a small one that comes ten thousand times in a second.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use axum::http::{Request, Response};
use hyper::body::Incoming;
use tonic::body::Body;
use tower::Service;

/// An answer on its way, as tonic's services give it.
pub(crate) type Answering =
    Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

/// Who answers a call: every service of tonic's.
pub trait Answers: Send + Sync {
    fn answer(&self, request: Request<Incoming>) -> Answering;
}

impl<S> Answers for S
where
    S: Service<
            Request<Incoming>,
            Response = Response<Body>,
            Error = Infallible,
            Future = Answering,
        > + Clone
        + Send
        + Sync,
{
    fn answer(&self, request: Request<Incoming>) -> Answering {
        // A service of tonic's is always ready, and a copy of it is a copy of pointers.
        self.clone().call(request)
    }
}

/// Calls by their paths, with who answers them. Every other request goes to the router of the port.
#[derive(Clone, Default)]
pub struct Direct(BTreeMap<&'static str, Arc<dyn Answers>>);

impl Direct {
    /// Has a service of tonic's answer the calls of these paths, `/package.Service/Method`.
    #[must_use]
    pub fn with(
        mut self,
        service: &(impl Answers + Clone + 'static),
        paths: &[&'static str],
    ) -> Self {
        let answers: Arc<dyn Answers> = Arc::new(service.clone());
        self.0
            .extend(paths.iter().map(|path| (*path, answers.clone())));
        self
    }

    pub(crate) fn find(&self, path: &str) -> Option<&dyn Answers> {
        self.0.get(path).map(|answers| &**answers)
    }
}

impl fmt::Debug for Direct {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}
