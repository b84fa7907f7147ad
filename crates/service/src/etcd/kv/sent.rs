//! Answers that are sent piece by piece, as fast as their callers take them.
//!
//! A gRPC answer says how long it is before its first byte, and how it ended after the last. What tonic makes of a
//! message is one buffer, which HTTP/2 then holds until the caller has taken it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures::{StreamExt, stream};
use http_body_util::StreamBody;
use hyper::body::Frame;
use prost::Message;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::codegen::http::HeaderMap;
use tonic::{Response, Status};

use super::HELD_BYTES_MAX;
use crate::etcd::rpctypes;

/// The longest message that etcd's server sends.
const MESSAGE_BYTES_MAX: usize = i32::MAX as usize;
/// What is given to the network in one piece, and how many pieces wait for it.
const PIECE_BYTES: usize = 64 << 10;
const PIECES_WAITING_MAX: usize = 2;
/// A caller that takes nothing for so long is given up: what is sent keeps memory, or room on the disk.
const STALLED_AFTER: Duration = Duration::from_secs(10);
/// And so is one that is later than that with a piece for each of these.
const PIECE_EVERY: Duration = Duration::from_secs(1);
/// How long an answer that is ready waits until others are sent.
const ROOM_WITHIN: Duration = Duration::from_secs(1);

/// An answer that is sent in pieces. Clones are the same one; the first body made of it gets all.
#[derive(Clone)]
pub(super) struct Sent(Arc<Mutex<Option<Receiving>>>);

struct Receiving {
    pieces: mpsc::Receiver<Bytes>,
    /// How it ended: what has no end was cut off.
    end: oneshot::Receiver<Status>,
}

impl Sent {
    /// The body of an answer over HTTP/2: the pieces of one gRPC message, and the status.
    pub(super) fn into_body(self) -> Body {
        let taken = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(Receiving { pieces, end }) = taken else {
            return Body::empty();
        };
        let data = ReceiverStream::new(pieces).map(Frame::data);
        let last = stream::once(async {
            let status = end.await.unwrap_or_else(|_| rpctypes::stopped());
            let mut trailers = HeaderMap::new();
            // Fails for a message that is no header, and ours are.
            let _ = status.add_header(&mut trailers);
            Frame::trailers(trailers)
        });
        Body::new(StreamBody::new(data.chain(last).map(Ok::<_, Status>)))
    }
}

/// Sends one message of a known length.
pub(super) struct Sending {
    pieces: mpsc::Sender<Bytes>,
    /// What is not sent yet.
    waiting: BytesMut,
    begun: Instant,
    sent: u32,
    /// Room for what is sent; others wait for it.
    _room: OwnedSemaphorePermit,
}

/// Tells the caller how it ended.
pub(super) type End = oneshot::Sender<Status>;

impl Sending {
    /// Begins to send a message of so many bytes, when there is room for one more in `room`.
    ///
    /// # Errors
    /// When there is none within a second, or it is longer than a message may be.
    pub(super) async fn begin(
        bytes: usize,
        room: &Arc<Semaphore>,
    ) -> Result<(Self, End, Sent), Status> {
        let length = u32::try_from(bytes)
            .ok()
            .filter(|_| bytes <= MESSAGE_BYTES_MAX);
        let length = length.ok_or_else(|| rpctypes::message_too_large(bytes, MESSAGE_BYTES_MAX))?;
        let room = timeout(ROOM_WITHIN, room.clone().acquire_owned()).await;
        let room = room.map_err(|_| rpctypes::too_many())?;
        let room = room.map_err(|_| rpctypes::stopped())?;
        let (pieces, receiver) = mpsc::channel(PIECES_WAITING_MAX);
        let (ended, end) = oneshot::channel();
        let receiving = Receiving {
            pieces: receiver,
            end,
        };
        let mut waiting = BytesMut::with_capacity(PIECE_BYTES);
        // Not compressed.
        waiting.put_u8(0);
        waiting.put_u32(length);
        let sending = Self {
            pieces,
            waiting,
            begun: Instant::now(),
            sent: 0,
            _room: room,
        };
        Ok((sending, ended, Sent(Arc::new(Mutex::new(Some(receiving))))))
    }

    /// Sends a part of the message, from a thread that may wait.
    ///
    /// # Errors
    /// When the caller has gone, or takes too little.
    pub(super) fn put(&mut self, part: &impl Message) -> Result<(), Status> {
        self.waiting.reserve(part.encoded_len());
        part.encode(&mut self.waiting)
            .map_err(|error| Status::internal(error.to_string()))?;
        while self.waiting.len() >= PIECE_BYTES {
            let piece = self.waiting.split_to(PIECE_BYTES).freeze();
            Handle::current().block_on(self.send(piece))?;
        }
        Ok(())
    }

    /// Sends what is left.
    ///
    /// # Errors
    /// As for [`Sending::put`].
    pub(super) fn finish(mut self) -> Result<(), Status> {
        let last = self.waiting.split().freeze();
        Handle::current().block_on(self.send(last))
    }

    async fn send(&mut self, piece: Bytes) -> Result<(), Status> {
        let stalled = Instant::now() + STALLED_AFTER;
        let late = self.begun + STALLED_AFTER + PIECE_EVERY * self.sent;
        self.sent = self.sent.saturating_add(1);
        match timeout_at(stalled.min(late), self.pieces.send(piece)).await {
            Ok(taken) => taken.map_err(|_| Status::cancelled("the caller has gone")),
            Err(_) => Err(Status::deadline_exceeded(format!(
                "the caller has taken no {PIECE_BYTES} bytes for {} s, or in each second: ask with a limit",
                STALLED_AFTER.as_secs()
            ))),
        }
    }
}

/// Answers with a message: with it as it is, or when it is large with one that stands for it while it is sent in
/// pieces. `ended` is told how that ended.
///
/// # Errors
/// As for [`Sending::begin`].
pub(super) async fn respond<T: Message + Default + 'static>(
    message: T,
    room: &Arc<Semaphore>,
    ended: impl FnOnce(&Result<(), Status>) + Send + 'static,
) -> Result<Response<T>, Status> {
    let bytes = message.encoded_len();
    if bytes <= HELD_BYTES_MAX {
        return Ok(Response::new(message));
    }
    let (mut sending, end, sent) = Sending::begin(bytes, room).await?;
    tokio::task::spawn_blocking(move || {
        let put = sending.put(&message);
        let result = put.and_then(|()| sending.finish());
        ended(&result);
        let _ = end.send(result.err().unwrap_or_else(|| Status::ok("")));
    });
    Ok(stands_for(sent))
}

/// An answer in whose place pieces are sent.
pub(super) fn stands_for<T: Default>(sent: Sent) -> Response<T> {
    let mut answer = Response::new(T::default());
    answer.extensions_mut().insert(sent);
    answer
}
