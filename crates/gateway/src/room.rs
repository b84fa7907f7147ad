//! What large answers may hold: they are whole in memory while they are made into JSON and until they are sent.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Response, StatusCode, header};
use bytes::Bytes;
use tally_model::explanation::codes;
use tally_proto::fault::Fault;
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

use crate::calls::Call;
use crate::frames::Frames;
use crate::refusal;

/// Longest answer that is made into JSON, bytes of the message.
const MESSAGE_BYTES_MAX: usize = 16 << 20;
/// A longer one than this waits until others are sent. A small key takes six times as much in JSON.
const LARGE_BYTES: usize = 128 << 10;
/// How long it waits for that.
const ROOM_WITHIN: Duration = Duration::from_secs(1);
/// Large answers at a time; and lines of streams.
const ANSWERS_MAX: usize = 4;
const LINES_MAX: usize = 16;
/// What is given to the network in one piece, and how many pieces wait for it.
const PIECE_BYTES: usize = 64 << 10;
const PIECES_WAITING_MAX: usize = 2;
/// A caller that takes nothing for so long is given up, and so is one that is later than that with a piece for each
/// second.
const STALLED_AFTER: Duration = Duration::from_secs(10);
const PIECE_EVERY: Duration = Duration::from_secs(1);

/// Room for large answers of all callers.
#[derive(Clone)]
pub(crate) struct Room {
    answers: Arc<Semaphore>,
    lines: Arc<Semaphore>,
    /// One is made into JSON at a time: its keys take more than its bytes.
    making: Arc<Mutex<()>>,
}

impl Room {
    pub(crate) fn new() -> Self {
        Self {
            answers: Arc::new(Semaphore::new(ANSWERS_MAX)),
            lines: Arc::new(Semaphore::new(LINES_MAX)),
            making: Arc::default(),
        }
    }

    /// The whole answer, in JSON; `None` when there is none. `done` says that something is when there is one.
    ///
    /// # Errors
    /// When it is too large, there is no room for it, or it is cut off.
    pub(crate) async fn answer(
        &self,
        call: &Call,
        done: bool,
        frames: &mut Frames,
    ) -> Result<Option<Made>, Status> {
        let made = self.next(call, frames, &self.answers).await;
        made.map_err(|why| match why {
            Missing::Cut(status) => status,
            Missing::Untold(why) if done => untold(&why),
            Missing::Untold(why) => why,
        })
    }

    /// The next answer of a stream, in JSON; `None` when there is none.
    ///
    /// # Errors
    /// As for [`Room::answer`].
    pub(crate) async fn line(
        &self,
        call: &Call,
        frames: &mut Frames,
    ) -> Result<Option<Made>, Status> {
        let made = self.next(call, frames, &self.lines).await;
        made.map_err(|(Missing::Cut(why) | Missing::Untold(why))| why)
    }

    async fn next(
        &self,
        call: &Call,
        frames: &mut Frames,
        large: &Arc<Semaphore>,
    ) -> Result<Option<Made>, Missing> {
        let Some(length) = frames.length().await.map_err(Missing::Cut)? else {
            return Ok(None);
        };
        if length > MESSAGE_BYTES_MAX {
            return Err(Missing::Untold(too_much(length)));
        }
        if length <= LARGE_BYTES {
            let message = frames.message(length).await.map_err(Missing::Cut)?;
            let json = (call.write)(message).map_err(Missing::Untold)?;
            return Ok(Some(Made { json, room: None }));
        }
        let room = timeout(ROOM_WITHIN, large.clone().acquire_owned()).await;
        let room = room.ok().and_then(Result::ok);
        let room = room.ok_or_else(|| Missing::Untold(no_room()))?;
        let message = frames.message(length).await.map_err(Missing::Cut)?;
        let making = self.making.clone().lock_owned().await;
        let write = call.write;
        // Long work; others wait for this thread. It goes on when the caller is gone, and so does what it takes.
        let made = tokio::task::spawn_blocking(move || {
            let _making = making;
            let room = Some(room);
            write(message).map(|json| Made { json, room })
        });
        let made = made
            .await
            .unwrap_or_else(|error| Err(Status::internal(error.to_string())));
        made.map(Some).map_err(Missing::Untold)
    }
}

/// Why there is no answer in JSON.
enum Missing {
    /// It was cut off, or is an error.
    Cut(Status),
    /// There is one, and it cannot be told.
    Untold(Status),
}

/// An answer in JSON, with the room that it takes when it is large.
pub(crate) struct Made {
    pub(crate) json: Vec<u8>,
    pub(crate) room: Option<OwnedSemaphorePermit>,
}

/// What is to be sent, piece by piece. A piece is a copy, so that what was sent of it keeps nothing else.
struct Pieces {
    json: Vec<u8>,
    at: usize,
    _room: Option<OwnedSemaphorePermit>,
}

impl From<Made> for Pieces {
    fn from(made: Made) -> Self {
        Self {
            json: made.json,
            at: 0,
            _room: made.room,
        }
    }
}

impl Iterator for Pieces {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        let rest = &self.json[self.at..];
        let piece = &rest[..rest.len().min(PIECE_BYTES)];
        self.at += piece.len();
        (!piece.is_empty()).then(|| Bytes::copy_from_slice(piece))
    }
}

/// The response that is made of an answer. A large one is sent in pieces, as fast as its caller takes them, and not to
/// one that takes too little.
pub(crate) fn response(made: Made) -> Response<Body> {
    if made.room.is_none() {
        return refusal::json(StatusCode::OK, made.json);
    }
    let length = made.json.len();
    let (send, pieces) = mpsc::channel(PIECES_WAITING_MAX);
    tokio::spawn(send_pieces(made.into(), send));
    let body = Body::from_stream(ReceiverStream::new(pieces));
    let mut response = refusal::json(StatusCode::OK, body);
    // What ends before that was cut off.
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_LENGTH, length.into());
    response
}

async fn send_pieces(pieces: Pieces, send: mpsc::Sender<Result<Bytes, Status>>) {
    let mut late = Instant::now() + STALLED_AFTER;
    for piece in pieces {
        let until = late.min(Instant::now() + STALLED_AFTER);
        match timeout_at(until, send.send(Ok(piece))).await {
            Ok(Ok(())) => late += PIECE_EVERY,
            // It is gone, or takes too little.
            Ok(Err(_)) | Err(_) => return,
        }
    }
}

/// Of an answer.
pub(crate) fn too_much(bytes: usize) -> Status {
    let found = format!("found an answer of {bytes} bytes, which is too much to be made into JSON");
    Fault::new(codes::TOO_LARGE, found)
        .with_next("ask with a limit, watch with fragment, or call over gRPC")
        .into_status(Code::ResourceExhausted)
}

/// Of a write that was done.
fn untold(why: &Status) -> Status {
    let found = format!("it was done, and its answer is not told: {}", why.message());
    Fault::new(codes::OUTCOME_UNKNOWN, found)
        .with_next("read what is there now; a write with a tag is safe to send again")
        .into_status(Code::Unavailable)
}

fn no_room() -> Status {
    let found = format!("found no room for another answer of more than {LARGE_BYTES} bytes");
    Fault::new(codes::OVERLOADED, found)
        .with_next("ask again, or with a limit")
        .into_status(Code::ResourceExhausted)
}
