//! The requests of a stream: one JSON value after the other, as they come.

use axum::body::{Body, BodyDataStream};
use bytes::{Buf, Bytes, BytesMut};
use futures::StreamExt;
use serde::de::IgnoredAny;
use tonic::Status;

use crate::calls::Call;
use crate::frames::framed;
use crate::unary::too_large;

/// What is left of a request's body.
pub(crate) struct Asked {
    call: &'static Call,
    body: BodyDataStream,
    /// What was read and is no whole value yet.
    read: BytesMut,
    bytes_max: usize,
}

impl Asked {
    pub(crate) fn new(call: &'static Call, body: Body, bytes_max: usize) -> Self {
        Self {
            call,
            body: body.into_data_stream(),
            read: BytesMut::new(),
            bytes_max,
        }
    }

    /// The next request, as gRPC carries it; `None` when no more comes.
    ///
    /// # Errors
    /// What is no request ends the stream, as does one that is too long.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Status> {
        // Only the end of an object can make a value whole.
        let mut whole = !self.read.is_empty();
        loop {
            if whole && let Some(bytes) = self.value() {
                let message = (self.call.read)(&self.read[..bytes])?;
                self.read.advance(bytes);
                return framed(&message).map(Some);
            }
            if self.read.len() > self.bytes_max {
                return Err(too_large(self.bytes_max));
            }
            match self.body.next().await {
                Some(Ok(piece)) => {
                    whole = piece.contains(&b'}');
                    self.read.extend_from_slice(&piece);
                }
                Some(Err(error)) => return Err(Status::cancelled(error.to_string())),
                None => return self.last(),
            }
        }
    }

    /// How many bytes the first value has, when it is whole, or cannot become one.
    fn value(&self) -> Option<usize> {
        let mut values = serde_json::Deserializer::from_slice(&self.read).into_iter::<IgnoredAny>();
        match values.next()? {
            Ok(_) => Some(values.byte_offset()),
            Err(error) if error.is_eof() => None,
            // Reading it tells what is wrong.
            Err(_) => Some(self.read.len()),
        }
    }

    /// What is left at the end is no value, or nothing.
    fn last(&mut self) -> Result<Option<Bytes>, Status> {
        let rest = self.read.split();
        match rest.iter().all(u8::is_ascii_whitespace) {
            true => Ok(None),
            false => (self.call.read)(&rest).and_then(|message| framed(&message).map(Some)),
        }
    }
}
