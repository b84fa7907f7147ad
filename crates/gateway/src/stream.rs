//! Requests and answers as they come: each answer is a line.

use axum::body::Body;
use axum::http::{Request, Response, StatusCode};
use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use tonic::{Code, Status};

use crate::asked::Asked;
use crate::calls::Call;
use crate::frames::Frames;
use crate::unary::{ANSWER_BYTES_MAX, too_much};
use crate::{Gateway, metadata, refusal};

pub(crate) async fn answer(
    call: &'static Call,
    gateway: &Gateway,
    request: Request<Body>,
) -> Response<Body> {
    let (asked, body) = request.into_parts();
    let mut requests = Asked::new(call, body, gateway.request_bytes_max);
    // Whoever asks in another form is told by the status of the answer.
    let first = match requests.next().await {
        Ok(Some(first)) => first,
        Ok(None) => return refusal::stream_response(&nothing_asked()),
        Err(status) => return refusal::stream_response(&status),
    };
    let requests = stream::once(async { Ok(first) }).chain(later(requests));
    let asked = metadata::call(call.grpc, &asked.headers, Body::from_stream(requests));
    let (told, body) = gateway.call(asked).await.into_parts();
    if let Some(status) = Status::from_header_map(&told.headers)
        && status.code() != Code::Ok
    {
        return refusal::stream_response(&status);
    }
    let lines = Body::from_stream(lines(call, Frames::new(body)));
    let mut response = refusal::json(StatusCode::OK, lines);
    response
        .headers_mut()
        .extend(metadata::headers(&told.headers));
    response
}

fn nothing_asked() -> Status {
    Status::invalid_argument("found no request: send an object as the body, and more after it")
}

/// The requests after the first; one that cannot be read is the last.
fn later(requests: Asked) -> impl Stream<Item = Result<Bytes, Status>> + Send + 'static {
    stream::unfold(Some(requests), |requests| async {
        let mut requests = requests?;
        match requests.next().await {
            Ok(None) => None,
            Ok(Some(message)) => Some((Ok(message), Some(requests))),
            Err(status) => Some((Err(status), None)),
        }
    })
}

/// Answers, each a line, and at last how the stream ended, unless that was well.
fn lines(
    call: &'static Call,
    frames: Frames,
) -> impl Stream<Item = Result<Vec<u8>, Status>> + Send + 'static {
    stream::unfold(Some(frames), move |frames| async move {
        let mut frames = frames?;
        match line(call, &mut frames).await {
            Ok(None) => None,
            Ok(Some(line)) => Some((Ok(line), Some(frames))),
            Err(status) => Some((Ok(refusal::last_line(&status)), None)),
        }
    })
}

/// The next answer; `None` when the stream has ended well.
async fn line(call: &Call, frames: &mut Frames) -> Result<Option<Vec<u8>>, Status> {
    let Some(length) = frames.length().await? else {
        return frames.status().map(|()| None);
    };
    if length > ANSWER_BYTES_MAX {
        return Err(too_much(length));
    }
    let message = frames.message(length).await?;
    let mut line = b"{\"result\":".to_vec();
    line.extend((call.write)(message)?);
    line.extend(b"}\n");
    Ok(Some(line))
}
