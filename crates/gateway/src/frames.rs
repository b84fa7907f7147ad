//! gRPC's framing: each message after a byte that says whether it is compressed, which none is here, and its length in
//! four; the status in the trailers, or in the headers where there is no message.

use axum::body::Body;
use axum::http::HeaderMap;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use http_body_util::BodyExt;
use tally_model::explanation::codes;
use tally_proto::fault::Fault;
use tonic::{Code, Status};

const HEAD_BYTES: usize = 5;

/// A message with what goes before it.
pub(crate) fn framed(message: &[u8]) -> Result<Bytes, Status> {
    let length = u32::try_from(message.len())
        .map_err(|_| Status::resource_exhausted("found a message of 4 GiB or more"))?;
    let mut frame = BytesMut::with_capacity(HEAD_BYTES + message.len());
    frame.put_u8(0);
    frame.put_u32(length);
    frame.put_slice(message);
    Ok(frame.freeze())
}

/// Reads the messages of an answer, and how it ended.
pub(crate) struct Frames {
    body: Body,
    read: BytesMut,
    trailers: HeaderMap,
}

impl Frames {
    pub(crate) fn new(body: Body) -> Self {
        Self {
            body,
            read: BytesMut::new(),
            trailers: HeaderMap::new(),
        }
    }

    /// How many bytes the next message has, of which none but the first need have come; `None` when there is none.
    ///
    /// # Errors
    /// When the answer is cut off.
    pub(crate) async fn length(&mut self) -> Result<Option<usize>, Status> {
        while self.read.len() < HEAD_BYTES {
            if !self.more().await? {
                return match self.read.is_empty() {
                    true => Ok(None),
                    false => Err(cut_off()),
                };
            }
        }
        let mut head = &self.read[..HEAD_BYTES];
        head.advance(1);
        Ok(usize::try_from(head.get_u32()).ok())
    }

    /// The next message, whose length is known.
    ///
    /// # Errors
    /// When the answer is cut off.
    pub(crate) async fn message(&mut self, length: usize) -> Result<Bytes, Status> {
        while self.read.len() < HEAD_BYTES + length {
            if !self.more().await? {
                return Err(self.status().err().unwrap_or_else(cut_off));
            }
        }
        self.read.advance(HEAD_BYTES);
        Ok(self.read.split_to(length).freeze())
    }

    /// Reads on to the end, and gives how it ended.
    ///
    /// # Errors
    /// The status, when it is not OK.
    pub(crate) async fn end(mut self) -> Result<(), Status> {
        while self.more().await? {
            self.read.clear();
        }
        self.status()
    }

    /// How it ended, as far as that is known; an answer without a status was cut off.
    pub(crate) fn status(&self) -> Result<(), Status> {
        match Status::from_header_map(&self.trailers) {
            Some(status) if status.code() == Code::Ok => Ok(()),
            Some(status) => Err(status),
            None => Err(cut_off()),
        }
    }

    /// Reads what comes next; false at the end.
    async fn more(&mut self) -> Result<bool, Status> {
        let frame = match self.body.frame().await {
            Some(frame) => frame.map_err(|error| Status::internal(error.to_string()))?,
            None => return Ok(false),
        };
        match frame.into_data() {
            Ok(data) => self.read.extend_from_slice(&data),
            Err(frame) => {
                if let Ok(trailers) = frame.into_trailers() {
                    self.trailers = trailers;
                }
            }
        }
        Ok(true)
    }
}

pub(crate) fn cut_off() -> Status {
    Fault::new(codes::OUTCOME_UNKNOWN, "the answer was cut off")
        .with_next("ask again; a write with a tag is safe to send again")
        .into_status(Code::Unavailable)
}
