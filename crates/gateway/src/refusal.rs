//! How a call ended that did not go well, in the form of etcd's gateway.

use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use serde::Serialize;
use tonic::{Code, Status};

#[derive(Serialize)]
struct Refused<'a> {
    error: &'a str,
    code: i32,
    message: &'a str,
}

#[derive(Serialize)]
struct Ended<'a> {
    error: End<'a>,
}

#[derive(Serialize)]
struct End<'a> {
    grpc_code: i32,
    http_code: u16,
    message: &'a str,
    http_status: &'a str,
}

/// The answer of a call that was refused.
pub(crate) fn response(status: &Status) -> Response<Body> {
    let body = Refused {
        error: status.message(),
        code: status.code().into(),
        message: status.message(),
    };
    json(http(status.code()), written(&body))
}

/// The answer of a stream that was refused before it gave anything.
pub(crate) fn stream_response(status: &Status) -> Response<Body> {
    json(http(status.code()), last_line(status))
}

/// The last line of a stream that did not end well.
pub(crate) fn last_line(status: &Status) -> Vec<u8> {
    let http = http(status.code());
    let mut line = written(&Ended {
        error: End {
            grpc_code: status.code().into(),
            http_code: http.as_u16(),
            message: status.message(),
            http_status: http.canonical_reason().unwrap_or_default(),
        },
    });
    line.push(b'\n');
    line
}

/// An answer of JSON.
pub(crate) fn json(status: StatusCode, body: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// Texts and numbers can always be written.
fn written(body: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(body).unwrap_or_default()
}

/// As grpc-gateway maps them.
fn http(code: Code) -> StatusCode {
    match code {
        Code::Ok => StatusCode::OK,
        Code::Cancelled => StatusCode::REQUEST_TIMEOUT,
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => {
            StatusCode::BAD_REQUEST
        }
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::Aborted => StatusCode::CONFLICT,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::Unknown | Code::Internal | Code::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
    }
}
