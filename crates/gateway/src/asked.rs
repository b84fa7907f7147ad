//! The requests of a stream: one JSON object after the other, as they come.

use axum::body::{Body, BodyDataStream};
use bytes::{Buf, Bytes, BytesMut};
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
                let message = (self.call.read)(&self.read[..bytes])?;
                self.read.advance(bytes);
                self.object = Object::default();
                return framed(&message).map(Some);
            }
            if self.read.len() > self.bytes_max {
                return Err(too_large(self.bytes_max));
            }
            match self.body.next().await {
                Some(Ok(piece)) => self.read.extend_from_slice(&piece),
                Some(Err(error)) => return Err(Status::cancelled(error.to_string())),
                None => return self.last(),
            }
        }
    }

    /// What is left at the end is no whole request, or nothing.
    fn last(&mut self) -> Result<Option<Bytes>, Status> {
        let rest = self.read.split();
        match rest.iter().all(u8::is_ascii_whitespace) {
            true => Ok(None),
            false => (self.call.read)(&rest).and_then(|message| framed(&message).map(Some)),
        }
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
            // Reading these tells what is wrong.
            ("1", Some(1)),
            ("}", Some(1)),
            ("[{}]", Some(4)),
        ] {
            let mut whole = Object::default();
            assert_eq!(whole.end(read.as_bytes()), end, "{read}");
            // Byte by byte it is the same, but for what is none, which is known at once.
            let mut grown = Object::default();
            let found = (0..=read.len()).find_map(|to| grown.end(&read.as_bytes()[..to]));
            let expected = end.map(|end| {
                if read.contains('[') && end == 4 {
                    1
                } else {
                    end
                }
            });
            assert_eq!(found, expected, "{read}");
        }
    }
}
