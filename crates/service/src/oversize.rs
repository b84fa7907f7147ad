//! Messages over the limit are turned away by tonic before any of Tally's code sees them, with a
//! status of its own. This gives that status Tally's code.

use tally_model::explanation::codes;
use tally_proto::fault::Fault;
use tonic::codegen::http::{HeaderMap, Response};
use tonic::{Code, Status};

/// Rewrites the answer to a message that was too large; leaves every other one alone.
pub(crate) fn explain<B: Default>(response: Response<B>) -> Response<B> {
    let Some(found) = too_large(response.headers()) else {
        return response;
    };
    let fault = Fault::new(codes::TOO_LARGE, found)
        .with_next("send less in one message, or raise message-bytes-max");
    fault.into_status(Code::ResourceExhausted).into_http()
}

fn too_large(headers: &HeaderMap) -> Option<String> {
    let status = Status::from_header_map(headers)?;
    let found = status.message();
    let large = status.code() == Code::OutOfRange && found.contains("message length too large");
    large.then(|| found.trim_start_matches("Error, ").to_owned())
}
