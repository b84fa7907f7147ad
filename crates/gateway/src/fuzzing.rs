//! JSON of arbitrary bytes, for the fuzz targets in `tests/fuzz` and, with real requests that were cut and flipped,
//! for every test run.

use std::convert::Infallible;

use axum::body::Body;
use bytes::Bytes;
use futures::executor::block_on;
use futures::stream;
use tally_model::explanation::codes;
use tally_proto::fault;

use crate::asked::Asked;
use crate::calls::CALLS;

const BYTES_MAX: usize = 1 << 20;

/// The first byte says which path, the second how long pieces are, the rest is the body of a stream: its requests are
/// the same in whatever pieces they come.
pub fn json(data: &[u8]) {
    let [which, length, body @ ..] = data else {
        return;
    };
    let whole = requests(*which, body, body.len());
    let pieces = requests(*which, body, usize::from(*length));
    assert_eq!(whole, pieces);
}

/// All requests of a body, and whether it ended well.
fn requests(which: u8, body: &[u8], length: usize) -> (Vec<Bytes>, bool) {
    let call = &CALLS[usize::from(which) % CALLS.len()];
    let pieces = body.chunks(length.max(1)).map(Bytes::copy_from_slice);
    let pieces: Vec<_> = pieces.map(Ok::<_, Infallible>).collect();
    let mut asked = Asked::new(call, Body::from_stream(stream::iter(pieces)), BYTES_MAX);
    let mut requests = Vec::new();
    loop {
        match block_on(asked.next()) {
            Ok(Some(request)) => requests.push(request),
            Ok(None) => return (requests, true),
            Err(status) => {
                let code = fault::read(&status).map(|fault| fault.code);
                assert_eq!(code.as_deref(), Some(codes::INVALID_ARGUMENT), "{status:?}");
                return (requests, false);
            }
        }
    }
}

/// Real requests for [`json`].
pub fn json_seeds() -> Vec<Vec<u8>> {
    let seeds = [
        (
            "/v3/kv/range",
            r#"{"key":"YQ==","range_end":"AA","limit":"7","sort_order":"DESCEND","keysOnly":true,"min_mod_revision":null}"#,
        ),
        (
            "/v3/kv/txn",
            r#"{"compare":[{"target":"CREATE","result":2,"key":"YQ==","create_revision":"0"}],"success":[{"request_txn":{"failure":[{"request_put":{"key":"YQ==","lease":-1}}]}}]}"#,
        ),
        (
            "/v3/watch",
            r#"{"create_request":{"key":"YQ==","filters":["NOPUT",1]}}
 {"progress_request":{}}{"cancel_request":{"watch_id":100}}"#,
        ),
        (
            "/v3/lease/keepalive",
            r#"{"ID":"1\u0031","{\"}":[{"a\\":1}]}"#,
        ),
    ];
    let seeds = seeds.iter().map(|(path, body)| {
        let which = CALLS.iter().position(|call| call.path == *path);
        let which = which.and_then(|which| u8::try_from(which).ok());
        [&[which.unwrap_or_default(), 3], body.as_bytes()].concat()
    });
    seeds.collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn real_requests_are_read() {
        let found = json_seeds();
        let found = found.iter().map(|seed| requests(seed[0], &seed[2..], 5));
        let found: Vec<_> = found.map(|(all, well)| (all.len(), well)).collect();
        assert_eq!(found, [(1, true), (1, true), (3, true), (1, true)]);
    }

    #[test]
    fn what_is_no_request_is_none_of_a_call_that_is_always_refused_either() {
        for path in ["/v3/auth/{*call}", "/v3/lock/{call}", "/v3/watch"] {
            let which = CALLS.iter().position(|call| call.path == path);
            let which = which.and_then(|which| u8::try_from(which).ok()).unwrap();
            let body = br#":"1\u0031","{\"}":[{"a"#;
            assert_eq!(requests(which, body, 100), (Vec::new(), false), "{path}");
            json(&[&[which, 3], &body[..]].concat());
        }
    }

    #[test]
    fn no_body_can_make_its_reader_panic_or_depends_on_its_pieces() {
        for seed in json_seeds() {
            json(&seed);
            for at in 2..seed.len() {
                json(&seed[..at]);
                for flip in [0x01, 0x02, 0x20, 0x80, 0xff] {
                    let mut flipped = seed.clone();
                    flipped[at] ^= flip;
                    json(&flipped);
                }
            }
        }
    }
}
