//! What large answers may hold: they are whole in memory while they are made into JSON and sent.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Response, header};
use bytes::Bytes;
use tally_model::explanation::codes;
use tally_proto::fault::Fault;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

use crate::calls::Call;
use crate::frames::Frames;
use crate::refusal;

/// Longest answer that is made into JSON, bytes of the message.
const ANSWER_BYTES_MAX: usize = 16 << 20;
/// A longer answer than this waits until others are sent.
const LARGE_BYTES: usize = 1 << 20;
/// How long it waits for that.
const ROOM_WITHIN: Duration = Duration::from_secs(1);
/// What is given to the network in one piece, and how many pieces wait for it.
const PIECE_BYTES: usize = 64 << 10;
const PIECES_WAITING_MAX: usize = 2;
/// A caller that takes nothing for so long is given up, and so is one that is later than that with a piece for each
/// second.
const STALLED_AFTER: Duration = Duration::from_secs(10);
const PIECE_EVERY: Duration = Duration::from_secs(1);

/// An answer in JSON, with the room that it takes when it is large.
pub(crate) struct Made {
    pub(crate) json: Vec<u8>,
    pub(crate) room: Option<OwnedSemaphorePermit>,
}

/// The next message, in JSON; `None` when there is none.
///
/// # Errors
/// When it is too large, there is no room for it, or it is cut off.
pub(crate) async fn next(
    call: &Call,
    frames: &mut Frames,
    large: &Arc<Semaphore>,
) -> Result<Option<Made>, Status> {
    let Some(length) = frames.length().await? else {
        return Ok(None);
    };
    if length > ANSWER_BYTES_MAX {
        return Err(too_much(length));
    }
    if length <= LARGE_BYTES {
        let json = (call.write)(frames.message(length).await?)?;
        return Ok(Some(Made { json, room: None }));
    }
    let room = timeout(ROOM_WITHIN, large.clone().acquire_owned()).await;
    let room = room.ok().and_then(Result::ok).ok_or_else(no_room)?;
    let message = frames.message(length).await?;
    let write = call.write;
    // Long work; others wait for this thread.
    let made = tokio::task::spawn_blocking(move || write(message)).await;
    let json = made.map_err(|error| Status::internal(error.to_string()))??;
    Ok(Some(Made {
        json,
        room: Some(room),
    }))
}

/// The response that is made of an answer. A large one is sent in pieces, as fast as its caller takes them, and not to
/// one that takes too little.
pub(crate) fn response(made: Made) -> Response<Body> {
    let Made { json, room } = made;
    let Some(room) = room else {
        return refusal::json(axum::http::StatusCode::OK, json);
    };
    let length = json.len();
    let (send, pieces) = mpsc::channel(PIECES_WAITING_MAX);
    tokio::spawn(send_pieces(json.into(), send, room));
    let body = Body::from_stream(ReceiverStream::new(pieces));
    let mut response = refusal::json(axum::http::StatusCode::OK, body);
    // What ends before that was cut off.
    response
        .headers_mut()
        .insert(header::CONTENT_LENGTH, length.into());
    response
}

async fn send_pieces(
    mut json: Bytes,
    send: mpsc::Sender<Result<Bytes, Status>>,
    _room: OwnedSemaphorePermit,
) {
    let mut late = Instant::now() + STALLED_AFTER;
    while !json.is_empty() {
        let piece = json.split_to(PIECE_BYTES.min(json.len()));
        let until = late.min(Instant::now() + STALLED_AFTER);
        match timeout_at(until, send.send(Ok(piece))).await {
            Ok(Ok(())) => late += PIECE_EVERY,
            // It is gone, or takes too little.
            Ok(Err(_)) | Err(_) => return,
        }
    }
}

fn too_much(bytes: usize) -> Status {
    Fault::new(
        codes::TOO_LARGE,
        format!(
            "found an answer of {bytes} bytes, and at most {ANSWER_BYTES_MAX} are made into JSON"
        ),
    )
    .with_next("ask with a limit, watch with fragment, or call over gRPC")
    .into_status(Code::ResourceExhausted)
}

fn no_room() -> Status {
    Fault::new(
        codes::OVERLOADED,
        format!("found no room for another answer of more than {LARGE_BYTES} bytes"),
    )
    .with_next("ask again, or with a limit")
    .into_status(Code::ResourceExhausted)
}
