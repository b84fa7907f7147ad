//! Metadata of a call as headers of HTTP.

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Request, header};

/// What begins so is metadata: `Grpc-Metadata-tally-session`.
const PREFIX: &str = "grpc-metadata-";
const TIMEOUT: &str = "grpc-timeout";

/// A call with what the request says about it.
pub(crate) fn call(path: &'static str, asked: &HeaderMap, body: Body) -> Request<Body> {
    let mut call = Request::new(body);
    *call.method_mut() = axum::http::Method::POST;
    *call.uri_mut() = axum::http::Uri::from_static(path);
    let headers = call.headers_mut();
    let given = asked.iter().filter_map(|(name, value)| {
        let name = name.as_str().strip_prefix(PREFIX)?;
        Some((HeaderName::try_from(name).ok().filter(is_free)?, value))
    });
    for (name, value) in given {
        headers.append(name, value.clone());
    }
    if let Some(timeout) = asked.get(TIMEOUT) {
        headers.insert(TIMEOUT, timeout.clone());
    }
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/grpc"),
    );
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
    call
}

/// Headers that say the metadata of an answer.
pub(crate) fn headers(told: &HeaderMap) -> HeaderMap {
    let own = told.iter().filter(|(name, _)| is_free(name));
    own.filter_map(|(name, value)| {
        let name = HeaderName::try_from(format!("{PREFIX}{name}")).ok()?;
        Some((name, value.clone()))
    })
    .collect()
}

/// Not one that gRPC or HTTP gives a meaning of its own.
fn is_free(name: &HeaderName) -> bool {
    !name.as_str().starts_with("grpc-")
        && ![
            header::CONTENT_TYPE,
            header::CONTENT_LENGTH,
            header::DATE,
            header::HOST,
            header::TE,
            header::TRANSFER_ENCODING,
            header::CONNECTION,
        ]
        .contains(name)
}
