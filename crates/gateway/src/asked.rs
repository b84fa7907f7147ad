//! The requests of a stream: one JSON object after the other, as they come.

use axum::body::{Body, BodyDataStream};
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use tonic::Status;

use crate::calls::Call;
use crate::frames::framed;
use crate::unary::too_large;

/// What is left of a request's body.
pub(crate) struct Asked {
    call: &'static Call,
    body: BodyDataStream,
    /// What was read and is no whole object yet.
    read: BytesMut,
    object: Object,
    bytes_max: usize,
}

impl Asked {
    pub(crate) fn new(call: &'static Call, body: Body, bytes_max: usize) -> Self {
        Self {
            call,
            body: body.into_data_stream(),
            read: BytesMut::new(),
            object: Object::default(),
            bytes_max,
        }
    }

    /// The next request, as gRPC carries it; `None` when no more comes.
    ///
    /// # Errors
    /// What is no request ends the stream, as does one that is too long.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Status> {
        loop {
            if let Some(bytes) = self.object.end(&self.read) {
                return self.request(bytes).map(Some);
            }
            if self.read.len() > self.bytes_max {
                return Err(too_large(self.bytes_max));
            }
            match self.body.next().await {
                Some(Ok(piece)) => self.read.extend_from_slice(&piece),
                Some(Err(error)) => return Err(Status::cancelled(error.to_string())),
                None if self.read.iter().all(u8::is_ascii_whitespace) => return Ok(None),
                // Reading it tells what it lacks.
                None => return self.request(self.read.len()).map(Some),
            }
        }
    }

    /// Takes the first bytes of what was read for a request.
    fn request(&mut self, bytes: usize) -> Result<Bytes, Status> {
        self.object = Object::default();
        let message = (self.call.read)(&self.read.split_to(bytes))?;
        framed(&message)
    }
}

/// Looks for the end of an object, at each byte once. Whether all within is JSON is seen when it is read.
#[derive(Default)]
struct Object {
    looked_at: usize,
    depth: usize,
    in_text: bool,
    escaped: bool,
}

impl Object {
    /// How many bytes it has, when it is whole, or can be none.
    fn end(&mut self, read: &[u8]) -> Option<usize> {
        while let Some(byte) = read.get(self.looked_at) {
            self.looked_at += 1;
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' if self.in_text => self.escaped = true,
                b'"' if self.depth > 0 => self.in_text = !self.in_text,
                _ if self.in_text => {}
                b'{' => self.depth += 1,
                b'}' if self.depth > 0 => self.depth -= 1,
                byte if self.depth > 0 || byte.is_ascii_whitespace() => continue,
                _ => return Some(read.len()),
            }
            if self.depth == 0 {
                return Some(self.looked_at);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_ends_where_json_says() {
        for (read, end) in [
            ("", None),
            (" \n", None),
            ("{", None),
            ("{}", Some(2)),
            (" {} {}", Some(3)),
            ("{\"a\":{\"b\":[1]}}{", Some(15)),
            ("{\"}\":\"{\\\"}\"}", Some(12)),
            ("{\"a\\\\\":1}", Some(9)),
        ] {
            let mut whole = Object::default();
            assert_eq!(whole.end(read.as_bytes()), end, "{read}");
            assert_eq!(byte_by_byte(read), end, "{read}");
        }
    }

    #[test]
    fn what_can_be_no_object_ends_at_once() {
        for read in ["1", "}", "[{}]"] {
            let mut whole = Object::default();
            assert_eq!(whole.end(read.as_bytes()), Some(read.len()), "{read}");
            assert_eq!(byte_by_byte(read), Some(1), "{read}");
        }
    }

    fn byte_by_byte(read: &str) -> Option<usize> {
        let mut object = Object::default();
        (0..=read.len()).find_map(|to| object.end(&read.as_bytes()[..to]))
    }
}
