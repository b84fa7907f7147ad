//! Requests and answers as they come: each answer is a line.

use axum::body::Body;
use axum::http::{Request, Response, StatusCode};
use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use tally_model::explanation::codes;
use tally_proto::fault::Fault;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;
use tonic::{Code, Status};

use crate::asked::Asked;
use crate::calls::Call;
use crate::frames::Frames;
use crate::room::{Made, Room};
use crate::unary::{REQUEST_WITHIN, late};
use crate::{Gateway, metadata, refusal};

pub(crate) async fn answer(
    call: &'static Call,
    gateway: &Gateway,
    request: Request<Body>,
) -> Response<Body> {
    match answered(call, gateway, request).await {
        Ok(response) => response,
        Err(status) => refusal::stream_response(&status),
    }
}

async fn answered(
    call: &'static Call,
    gateway: &Gateway,
    request: Request<Body>,
) -> Result<Response<Body>, Status> {
    let (asked, body) = request.into_parts();
    let mut requests = Asked::new(call, body, gateway.request_bytes_max);
    let first = timeout(REQUEST_WITHIN, requests.next()).await;
    let first = first.map_err(|_| late())??.ok_or_else(nothing_asked)?;
    let requests = stream::once(async { Ok(first) }).chain(later(requests));
    let asked = metadata::call(call.grpc, &asked.headers, Body::from_stream(requests));
    let (told, body) = gateway.call(asked).await?;
    let mut answers = Answers {
        call,
        frames: Frames::new(body),
        room: gateway.room.clone(),
    };
    // What goes wrong before anything is told decides the status.
    let lines = match answers.next().await? {
        Some(first) => answers.lines(first).left_stream(),
        None => stream::empty().right_stream(),
    };
    let mut response = refusal::json(StatusCode::OK, Body::from_stream(lines));
    response.headers_mut().extend(metadata::headers(&told));
    Ok(response)
}

fn nothing_asked() -> Status {
    Fault::new(codes::INVALID_ARGUMENT, "found no request in the body")
        .with_next("send an object as the body, and more after it")
        .into_status(Code::InvalidArgument)
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

/// The answers of a stream.
struct Answers {
    call: &'static Call,
    frames: Frames,
    room: Room,
}

/// One answer as it is sent, with the room that it takes when it is large: both go together.
struct Line {
    json: Vec<u8>,
    _room: Option<OwnedSemaphorePermit>,
}

impl AsRef<[u8]> for Line {
    fn as_ref(&self) -> &[u8] {
        &self.json
    }
}

impl Answers {
    /// The next line; `None` when the stream has ended well.
    async fn next(&mut self) -> Result<Option<Bytes>, Status> {
        let Some(Made { json, room }) = self.room.line(self.call, &mut self.frames).await? else {
            return self.frames.status().map(|()| None);
        };
        Ok(Some(Bytes::from_owner(Line {
            json: [b"{\"result\":", &json[..], b"}\n"].concat(),
            _room: room,
        })))
    }

    /// All lines, and at last how the stream ended, unless that was well. Each is one piece, and so one chunk of HTTP, as from
    /// etcd: some clients take a chunk for a line.
    fn lines(self, first: Bytes) -> impl Stream<Item = Result<Bytes, Status>> + Send + 'static {
        let rest = stream::unfold(Some(self), |answers| async {
            // Nothing after the last word.
            let mut answers = answers?;
            match answers.next().await {
                Ok(Some(line)) => Some((Ok(line), Some(answers))),
                Ok(None) => None,
                Err(status) => Some((Ok(refusal::last_line(&status).into()), None)),
            }
        });
        stream::once(async { Ok(first) }).chain(rest)
    }
}
