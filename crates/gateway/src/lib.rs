//! The etcd v3 API as JSON over plain HTTP, on the paths below `/v3/` and in the form of etcd 3.5's gateway: what
//! Patroni, APISIX and `curl` speak.
//!
//! A request becomes a call of the gRPC service behind the same port, and its answer becomes JSON again, so nothing
//! can be had here that gRPC does not give, or in another way. Knows paths, JSON and gRPC's framing. Knows nothing
//! of what the services do.

mod asked;
mod calls;
mod frames;
mod metadata;
mod refusal;
mod stream;
mod unary;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response, header};
use axum::routing::post;
use tally_model::explanation::codes;
use tally_proto::fault::Fault;
use tokio::sync::Semaphore;
use tonic::{Code, Status};
use tower::ServiceExt;

use crate::calls::{CALLS, Call, Kind};

/// What a JSON request may have more than the message that it stands for: names, and four characters for three bytes.
const JSON_TIMES: usize = 2;
/// Answers of more than a MiB that are made into JSON at a time.
const LARGE_AT_ONCE: usize = 4;

/// Carries requests to the services of a port.
#[derive(Clone)]
struct Gateway {
    services: Router,
    /// Longest request, bytes of JSON.
    request_bytes_max: usize,
    /// For large answers, which are held while they are made into JSON.
    large: Arc<Semaphore>,
}

impl Gateway {
    /// Calls a service, which cannot fail but by a status.
    async fn call(&self, request: Request<Body>) -> Response<Body> {
        match self.services.clone().oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }
}

/// The paths of the gateway, for messages of at most so many bytes, as calls of `services`, each of which lies at
/// `/package.Service/Method`.
pub fn routes(services: Router, message_bytes_max: usize) -> Router {
    let gateway = Gateway {
        services,
        request_bytes_max: message_bytes_max.saturating_mul(JSON_TIMES),
        large: Arc::new(Semaphore::new(LARGE_AT_ONCE)),
    };
    CALLS.iter().fold(Router::new(), |router, call| {
        let gateway = gateway.clone();
        let answer = move |request: Request<Body>| answer(call, gateway.clone(), request);
        router.route(call.path, post(answer))
    })
}

async fn answer(call: &'static Call, gateway: Gateway, request: Request<Body>) -> Response<Body> {
    if let Some(origin) = request.headers().get(header::ORIGIN) {
        return refusal::response(&foreign_page(origin.as_bytes()));
    }
    match call.kind {
        Kind::Unary => unary::answer(call, &gateway, request).await,
        Kind::Stream => stream::answer(call, &gateway, request).await,
    }
}

/// A browser sends what any page asks it to, to any address that it can reach, and there is no password here.
fn foreign_page(origin: &[u8]) -> Status {
    let origin = origin.escape_ascii();
    Fault::new(
        codes::NOT_SERVED_HERE,
        format!("found a request of a web page, of {origin}; pages are not answered"),
    )
    .with_next("ask from a program, without the header origin")
    .into_status(Code::PermissionDenied)
}
