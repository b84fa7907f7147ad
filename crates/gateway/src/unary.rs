//! One request, one answer.

use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, Response};
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tally_model::explanation::codes;
use tally_proto::fault::Fault;
use tokio::time::timeout;
use tonic::{Code, Status};

use crate::calls::Call;
use crate::frames::{Frames, cut_off, framed};
use crate::{Gateway, metadata, refusal, room};

/// The whole of a request comes within this time, and the first of a stream.
pub(crate) const REQUEST_WITHIN: Duration = Duration::from_secs(30);

pub(crate) async fn answer(
    call: &Call,
    gateway: &Gateway,
    request: Request<Body>,
) -> Response<Body> {
    match answered(call, gateway, request).await {
        Ok(response) => response,
        Err(status) => refusal::response(&status),
    }
}

async fn answered(
    call: &Call,
    gateway: &Gateway,
    request: Request<Body>,
) -> Result<Response<Body>, Status> {
    let (asked, body) = request.into_parts();
    let body = whole(body, gateway.request_bytes_max).await?;
    let message = (call.read)(&body)?;
    drop(body);
    let writes = (call.writes)(&message);
    let message = framed(&message)?;
    let asked = metadata::call(call.grpc, &asked.headers, Body::from(message));
    let (told, body) = gateway.call(asked).await?;
    let mut frames = Frames::new(body);
    let Some(made) = gateway.room.answer(call, writes, &mut frames).await? else {
        return Err(frames.status().err().unwrap_or_else(cut_off));
    };
    frames.end().await?;
    let mut response = room::response(made);
    response.headers_mut().extend(metadata::headers(&told));
    Ok(response)
}

/// The whole body of a request.
async fn whole(body: Body, bytes_max: usize) -> Result<Bytes, Status> {
    let read = timeout(REQUEST_WITHIN, Limited::new(body, bytes_max).collect()).await;
    match read.map_err(|_| late())? {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(too_large(bytes_max)),
        Err(error) => Err(Status::cancelled(error.to_string())),
    }
}

pub(crate) fn late() -> Status {
    Fault::new(
        codes::INVALID_ARGUMENT,
        format!(
            "found no whole request within {} s",
            REQUEST_WITHIN.as_secs()
        ),
    )
    .with_next("send an object as the body")
    .into_status(Code::DeadlineExceeded)
}

/// Of a request in JSON.
pub(crate) fn too_large(bytes_max: usize) -> Status {
    Fault::new(
        codes::TOO_LARGE,
        format!("found a request of more than {bytes_max} bytes of JSON"),
    )
    .with_next("send less at once; request-bytes-max says how much a member takes")
    .into_status(Code::ResourceExhausted)
}
