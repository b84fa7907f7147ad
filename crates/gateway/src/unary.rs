//! One request, one answer.

use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, Response, StatusCode};
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tally_model::explanation::codes;
use tally_proto::fault::Fault;
use tokio::time::timeout;
use tonic::{Code, Status};

use crate::calls::Call;
use crate::frames::{Frames, framed};
use crate::{Gateway, metadata, refusal};

/// The whole of a request comes within this time.
const REQUEST_WITHIN: Duration = Duration::from_secs(30);
/// Longest answer that is made into JSON, bytes of the message.
pub(crate) const ANSWER_BYTES_MAX: usize = 16 << 20;
/// A longer answer than this waits until others are made.
const LARGE_BYTES: usize = 1 << 20;
/// How long it waits for that.
const ROOM_WITHIN: Duration = Duration::from_secs(1);

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
    let message = framed(&(call.read)(&body)?)?;
    drop(body);
    let response = gateway
        .call(metadata::call(
            call.grpc,
            &asked.headers,
            Body::from(message),
        ))
        .await;
    let (told, body) = response.into_parts();
    if let Some(status) = Status::from_header_map(&told.headers)
        && status.code() != Code::Ok
    {
        return Err(status);
    }
    let mut frames = Frames::new(body);
    let Some(length) = frames.length().await? else {
        return Err(frames.status().err().unwrap_or_else(no_answer));
    };
    if length > ANSWER_BYTES_MAX {
        return Err(too_much(length));
    }
    let _room = match length > LARGE_BYTES {
        true => Some(room(gateway).await?),
        false => None,
    };
    let message = frames.message(length).await?;
    frames.end().await?;
    let mut response = refusal::json(StatusCode::OK, (call.write)(message)?);
    response
        .headers_mut()
        .extend(metadata::headers(&told.headers));
    Ok(response)
}

/// The whole body of a request.
async fn whole(body: Body, bytes_max: usize) -> Result<Bytes, Status> {
    let read = timeout(REQUEST_WITHIN, Limited::new(body, bytes_max).collect()).await;
    let read = read.map_err(|_| Status::deadline_exceeded("the request did not come in time"))?;
    match read {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(too_large(bytes_max)),
        Err(error) => Err(Status::cancelled(error.to_string())),
    }
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

/// Of an answer.
pub(crate) fn too_much(bytes: usize) -> Status {
    Fault::new(
        codes::TOO_LARGE,
        format!(
            "found an answer of {bytes} bytes, and at most {ANSWER_BYTES_MAX} are made into JSON"
        ),
    )
    .with_next("ask with a limit, watch with fragment, or call over gRPC")
    .into_status(Code::ResourceExhausted)
}

/// For a large answer, which is held while it is made into JSON.
async fn room(gateway: &Gateway) -> Result<tokio::sync::OwnedSemaphorePermit, Status> {
    let room = timeout(ROOM_WITHIN, gateway.large.clone().acquire_owned()).await;
    match room {
        Ok(Ok(room)) => Ok(room),
        Ok(Err(_)) | Err(_) => Err(Status::resource_exhausted("etcdserver: too many requests")),
    }
}

fn no_answer() -> Status {
    Status::internal("found no answer")
}
