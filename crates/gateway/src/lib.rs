//! The etcd v3 API as JSON over plain HTTP, on the paths below `/v3/` and in the form of etcd 3.5's gateway: what
//! Patroni, APISIX and `curl` speak.
//!
//! A request becomes a call of the gRPC service behind the same port, and its answer becomes JSON again, so nothing
//! can be had here that gRPC does not give, or in another way. Knows paths, JSON and gRPC's framing. Knows nothing
//! of what the services do.

mod asked;
mod calls;
mod frames;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod metadata;
mod refusal;
mod room;
mod stream;
mod unary;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, Response, StatusCode, Uri, header};
use axum::routing::{any, post};
use tally_model::explanation::codes;
use tally_proto::fault::Fault;
use tonic::{Code, Status};
use tower::ServiceExt;

use crate::calls::{CALLS, Call, Kind};
use crate::room::Room;

/// What a JSON request may have more than the message that it stands for: names, and four characters for three bytes.
const JSON_TIMES: usize = 2;

/// Where older clients look for the same paths.
const BEFORE_V3: &str = "/v3beta/";

/// Carries requests to the services of a port.
#[derive(Clone)]
struct Gateway {
    services: Router,
    /// Longest request, bytes of JSON.
    request_bytes_max: usize,
    room: Room,
}

impl Gateway {
    /// Calls a service; gives the headers of its answer, and the body.
    ///
    /// # Errors
    /// The status, when the headers have one that is not OK.
    async fn call(&self, request: Request<Body>) -> Result<(HeaderMap, Body), Status> {
        let Ok(response) = self.services.clone().oneshot(request).await;
        let (told, body) = response.into_parts();
        match Status::from_header_map(&told.headers) {
            Some(status) if status.code() != Code::Ok => Err(status),
            Some(_) | None => Ok((told.headers, body)),
        }
    }
}

/// The paths of the gateway, for messages of at most so many bytes, as calls of `services`, each of which lies at
/// `/package.Service/Method`.
pub fn routes(services: Router, message_bytes_max: usize) -> Router {
    let gateway = Gateway {
        services,
        request_bytes_max: message_bytes_max.saturating_mul(JSON_TIMES),
        room: Room::new(),
    };
    let paths = ["/v3/", BEFORE_V3].into_iter();
    let others = paths.fold(Router::new(), |router, path| {
        router.route(&format!("{path}{{*call}}"), any(no_such_call))
    });
    CALLS.iter().fold(others, |router, call| {
        let gateway = gateway.clone();
        let answer = move |request: Request<Body>| answer(call, gateway.clone(), request);
        let before = call.path.replacen("/v3/", BEFORE_V3, 1);
        router
            .route(call.path, post(answer.clone()))
            .route(&before, post(answer))
    })
}

async fn no_such_call(path: Uri) -> Response<Body> {
    let found = format!("found {:?}, which is no path of etcd 3.5's", path.path());
    let fault = Fault::new(codes::NOT_SERVED_HERE, found);
    let fault = fault.with_next("compare it with etcd's rpc.proto, or call over gRPC");
    let mut response = refusal::response(&fault.into_status(Code::Unimplemented));
    *response.status_mut() = StatusCode::NOT_FOUND;
    response
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

/// A browser sends what any page asks it to, to any address that it can reach, and there is no password here. It says
/// so in this header.
fn foreign_page(origin: &[u8]) -> Status {
    let origin = origin.escape_ascii();
    Fault::new(
        codes::NOT_SERVED_HERE,
        format!("found a request of a web page, of {origin}; pages are not answered"),
    )
    .with_next("ask from a program, without the header origin")
    .into_status(Code::PermissionDenied)
}
