//! Answers to ranges, however large: one that is larger than what is held at once is sent while it is read.
//!
//! gRPC says how long a message is before its first byte. So such a range is read twice, as of the same
//! moment: once to find out, and once to send.

use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures::{StreamExt, stream};
use http_body_util::StreamBody;
use hyper::body::Frame;
use prost::Message;
use tally_model::keys::{self, Range, RangeAnswer, RangeEnd};
use tally_model::{KeyValue, Refusal, Revision};
use tally_proto::etcd::{RangeResponse, ResponseHeader};
use tally_storage::{StateReader, StateView};
use tokio::runtime::Handle;
use tokio::sync::mpsc::error::SendTimeoutError;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::HeaderMap;

use crate::etcd::rpctypes;

/// Keys of this size together, encoded, are held; of more none is.
const HELD_BYTES_MAX: usize = 1 << 20;
/// The longest message that etcd's server sends.
const MESSAGE_BYTES_MAX: usize = i32::MAX as usize;
/// What is given to the network in one piece, and how many pieces wait for it.
const PIECE_BYTES: usize = 64 << 10;
const PIECES_WAITING_MAX: usize = 2;
/// A caller that takes nothing for so long is given up. What it is sent keeps room on the disk.
const STALLED_AFTER: Duration = Duration::from_secs(10);

/// What a range has come to.
pub(super) enum Answer {
    Held(RangeAnswer),
    /// Of which the first piece is on its way.
    Sent(SentRange),
}

/// An answer that is sent while it is read. Clones are the same one; the first body made of it gets all.
#[derive(Clone)]
pub(super) struct SentRange(Arc<Mutex<Option<Receiving>>>);

struct Receiving {
    pieces: mpsc::Receiver<Bytes>,
    /// How it ended: what has no end was cut off.
    end: oneshot::Receiver<Status>,
}

impl SentRange {
    /// The body of an answer over HTTP/2: pieces of one gRPC message, and the status.
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

/// Reads a range that [comes in order](Range::comes_in_order). `header` makes the header of an answer of a
/// revision. `turn` is held until all of it is sent.
///
/// # Errors
/// As etcd has them.
pub(super) async fn read(
    reader: StateReader,
    ask: Range,
    header: impl Fn(Revision) -> ResponseHeader + Send + 'static,
    turn: OwnedSemaphorePermit,
) -> Result<Answer, Status> {
    let (answered, answer) = oneshot::channel();
    tokio::task::spawn_blocking(move || {
        let _until_sent = turn;
        let mut waiting = Waiting::Whole(answered);
        let read = reader.with_view(|view| waiting.read(view, &ask, header));
        // Whatever came of a state that cannot be read means nothing.
        waiting.end(read.unwrap_or_else(|_| Err(rpctypes::stopped())));
    });
    answer.await.map_err(|_| rpctypes::stopped())?
}

/// What a caller waits for.
enum Waiting {
    /// The answer, or that it will be sent.
    Whole(oneshot::Sender<Result<Answer, Status>>),
    /// How what it is sent ends.
    End(oneshot::Sender<Status>),
}

impl Waiting {
    /// Gives the answer if it is held; of a larger one it sends all.
    fn read(
        &mut self,
        view: &StateView<'_>,
        ask: &Range,
        header: impl Fn(Revision) -> ResponseHeader,
    ) -> Result<Option<RangeAnswer>, Status> {
        let refused = |refusal: Refusal| rpctypes::refusal(&refusal);
        let mut found = Vec::new();
        let mut bytes = 0;
        let walked = keys::walk(view, ask, &mut |one| {
            bytes += part(&one).encoded_len();
            match bytes > HELD_BYTES_MAX {
                true => found = Vec::new(),
                false => found.push(one),
            }
            ControlFlow::Continue(())
        });
        let RangeEnd {
            revision,
            more,
            count,
        } = walked.map_err(refused)?;
        if bytes <= HELD_BYTES_MAX {
            return Ok(Some(RangeAnswer {
                revision,
                found,
                more,
                count,
            }));
        }
        let first = RangeResponse {
            header: Some(header(revision)),
            ..Default::default()
        };
        let last = RangeResponse {
            more,
            count: count.cast_signed(),
            ..Default::default()
        };
        let whole = first.encoded_len() + bytes + last.encoded_len();
        let length = u32::try_from(whole)
            .ok()
            .filter(|_| whole <= MESSAGE_BYTES_MAX);
        let length = length.ok_or_else(|| rpctypes::message_too_large(whole, MESSAGE_BYTES_MAX))?;

        let mut sender = self.begin();
        // Not compressed.
        sender.piece.put_u8(0);
        sender.piece.put_u32(length);
        sender.put(&first)?;
        let mut sent = Ok(());
        let again = keys::walk(view, ask, &mut |one| {
            sent = sender.put(&part(&one));
            match sent {
                Ok(()) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()),
            }
        });
        again.map_err(refused)?;
        sent?;
        sender.put(&last)?;
        sender.end()?;
        Ok(None)
    }

    /// Tells the caller that it will be sent pieces.
    fn begin(&mut self) -> Sender {
        let (sending, pieces) = mpsc::channel(PIECES_WAITING_MAX);
        let (ended, end) = oneshot::channel();
        let sent = SentRange(Arc::new(Mutex::new(Some(Receiving { pieces, end }))));
        if let Self::Whole(answered) = std::mem::replace(self, Self::End(ended)) {
            // Who does not wait any more takes no piece either.
            let _ = answered.send(Ok(Answer::Sent(sent)));
        }
        Sender {
            pieces: sending,
            piece: BytesMut::with_capacity(PIECE_BYTES),
        }
    }

    /// Gives the answer that was held, or says how it ended. Nobody may wait for it any more.
    fn end(self, end: Result<Option<RangeAnswer>, Status>) {
        match (self, end) {
            (Self::Whole(answered), Ok(Some(held))) => {
                let _ = answered.send(Ok(Answer::Held(held)));
            }
            (Self::Whole(answered), Err(status)) => {
                let _ = answered.send(Err(status));
            }
            (Self::End(ended), Ok(_)) => {
                let _ = ended.send(Status::ok(""));
            }
            (Self::End(ended), Err(status)) => {
                let _ = ended.send(status);
            }
            (Self::Whole(_), Ok(None)) => {}
        }
    }
}

/// Sends messages that together are one.
struct Sender {
    pieces: mpsc::Sender<Bytes>,
    piece: BytesMut,
}

impl Sender {
    fn put(&mut self, part: &RangeResponse) -> Result<(), Status> {
        self.piece.reserve(part.encoded_len());
        part.encode(&mut self.piece)
            .map_err(|error| Status::internal(error.to_string()))?;
        while self.piece.len() >= PIECE_BYTES {
            let piece = self.piece.split_to(PIECE_BYTES);
            self.send(piece)?;
        }
        Ok(())
    }

    fn end(mut self) -> Result<(), Status> {
        let last = self.piece.split();
        self.send(last)
    }

    fn send(&self, piece: BytesMut) -> Result<(), Status> {
        let taken = self.pieces.send_timeout(piece.freeze(), STALLED_AFTER);
        Handle::current()
            .block_on(taken)
            .map_err(|error| match error {
                SendTimeoutError::Closed(_) => Status::cancelled("the caller has gone"),
                SendTimeoutError::Timeout(_) => Status::deadline_exceeded(format!(
                    "the caller has taken nothing for {} s: ask with a limit",
                    STALLED_AFTER.as_secs()
                )),
            })
    }
}

/// An answer with one key. Messages one after the other are one message with the keys of all.
fn part(one: &KeyValue) -> RangeResponse {
    RangeResponse {
        kvs: vec![one.into()],
        ..Default::default()
    }
}
