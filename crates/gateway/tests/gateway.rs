//! The gateway before services that answer what they are told to.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::convert::Infallible;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Request, Response, StatusCode};
use axum::routing::any;
use futures::{StreamExt, stream};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use prost::Message;
use serde_json::{Value, json};
use tally_gateway::routes;
use tally_proto::etcd::request_op::Request as Op;
use tally_proto::etcd::response_op::Response as Answered;
use tally_proto::etcd::watch_request::RequestUnion;
use tally_proto::etcd::{
    RangeRequest, RangeResponse, RequestOp, ResponseHeader, ResponseOp, TxnRequest, TxnResponse,
    WatchCreateRequest, WatchRequest, WatchResponse,
};
use tally_proto::mvcc::{Event, KeyValue, event};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};
use tower::ServiceExt;

const WITHIN: Duration = Duration::from_secs(30);
const MESSAGE_BYTES_MAX: usize = 64 << 10;

fn framed(message: &impl Message) -> Bytes {
    let message = message.encode_to_vec();
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[0][..], &length, &message].concat().into()
}

fn unframed<M: Message + Default>(frame: &[u8]) -> M {
    M::decode(&frame[5..]).unwrap()
}

fn trailers(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    status.add_header(&mut trailers).unwrap();
    trailers
}

/// A body of frames, with a status at its end when there is one.
fn body(frames: Vec<Bytes>, end: Option<&Status>) -> Body {
    let frames = frames.into_iter().map(Frame::data);
    let end = end.map(|status| Frame::trailers(trailers(status)));
    let all: Vec<_> = frames.chain(end).map(Ok::<_, Infallible>).collect();
    Body::new(StreamBody::new(stream::iter(all)))
}

/// A gateway whose service answers a call of this path in this way.
fn before<F>(
    path: &str,
    answer: impl Fn(Request<Body>) -> F + Clone + Send + Sync + 'static,
) -> Router
where
    F: Future<Output = Response<Body>> + Send + 'static,
{
    routes(Router::new().route(path, any(answer)), MESSAGE_BYTES_MAX)
}

async fn post(gateway: &Router, path: &str, body: impl Into<Body>) -> Response<Body> {
    let request = Request::post(path).body(body.into()).unwrap();
    gateway.clone().oneshot(request).await.unwrap()
}

async fn read(response: Response<Body>) -> (StatusCode, Value) {
    let status = response.status();
    assert_eq!(response.headers()["content-type"], "application/json");
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap())
}

/// What the service is asked when this is sent.
async fn asked<M: Message + Default>(grpc: &str, path: &str, sent: Value) -> M {
    let (send, mut receive) = mpsc::channel(1);
    let gateway = before(grpc, move |request| {
        let send = send.clone();
        async move {
            let frame = request.into_body().collect().await.unwrap().to_bytes();
            send.send(frame).await.unwrap();
            Response::new(body(vec![], Some(&Status::aborted("enough"))))
        }
    });
    let (status, told) = read(post(&gateway, path, sent.to_string()).await).await;
    assert_eq!(status, StatusCode::CONFLICT, "{told}");
    unframed(&receive.recv().await.unwrap())
}

#[tokio::test]
async fn a_request_is_read_as_etcds_gateway_reads_it() {
    let range = "/etcdserverpb.KV/Range";
    let expected = RangeRequest {
        key: Bytes::from_static(b"a?>"),
        limit: 3,
        revision: 1 << 53,
        sort_order: 2,
        keys_only: true,
        ..RangeRequest::default()
    };
    for sent in [
        json!({"key": "YT8+", "limit": 3, "revision": "9007199254740992", "sort_order": "DESCEND", "keys_only": true}),
        // Names as in JavaScript, enums as numbers, base64 for addresses, what is at its default, what is new.
        json!({"key": "YT8-", "limit": "3", "revision": 9_007_199_254_740_992_u64, "sortOrder": 2, "keysOnly": true,
            "count_only": false, "range_end": "", "serializable": null, "min_mod_revision": null, "of_a_later_version": [1]}),
    ] {
        let found: RangeRequest = asked(range, "/v3/kv/range", sent.clone()).await;
        assert_eq!(found, expected, "{sent}");
    }
    let nested: TxnRequest = asked(
        "/etcdserverpb.KV/Txn",
        "/v3/kv/txn",
        json!({"success": [{"request_range": {"key": "YQ=="}}, {"requestPut": {"key": "Yg", "value": "YQ=="}}]}),
    )
    .await;
    let [
        RequestOp {
            request: Some(Op::RequestRange(first)),
        },
        RequestOp {
            request: Some(Op::RequestPut(second)),
        },
    ] = &nested.success[..]
    else {
        panic!("{nested:?}");
    };
    assert_eq!((&first.key[..], &second.key[..]), (&b"a"[..], &b"b"[..]));
}

#[tokio::test]
async fn no_body_asks_what_an_empty_object_asks() {
    let (send, mut receive) = mpsc::channel(1);
    let gateway = before("/etcdserverpb.KV/Range", move |request| {
        let send = send.clone();
        async move {
            let frame = request.into_body().collect().await.unwrap().to_bytes();
            send.send(frame).await.unwrap();
            Response::new(body(
                vec![framed(&RangeResponse::default())],
                Some(&Status::ok("")),
            ))
        }
    });
    for sent in ["", " \n", "{}"] {
        assert_eq!(
            read(post(&gateway, "/v3/kv/range", sent).await).await,
            (StatusCode::OK, json!({}))
        );
        assert_eq!(
            receive.recv().await.unwrap(),
            framed(&RangeRequest::default())
        );
    }
}

#[tokio::test]
async fn an_answer_is_written_as_etcds_gateway_writes_it() {
    let told = RangeResponse {
        header: Some(ResponseHeader {
            cluster_id: u64::MAX,
            revision: 7,
            ..ResponseHeader::default()
        }),
        kvs: vec![KeyValue {
            key: Bytes::from_static(b"a?>"),
            create_revision: 7,
            lease: -1,
            ..KeyValue::default()
        }],
        more: false,
        count: 1,
    };
    let gateway = before("/etcdserverpb.KV/Range", move |request: Request<Body>| {
        let told = told.clone();
        async move {
            let sent = request.headers();
            assert_eq!(sent["tally-session"], "7");
            assert_eq!(sent["grpc-timeout"], "3S");
            assert_eq!(sent["content-type"], "application/grpc");
            assert!(sent.get("x-other").is_none(), "{sent:?}");
            let answer = Response::builder().header("content-type", "application/grpc");
            let answer = answer.header("tally-outcome", "applied");
            answer
                .body(body(vec![framed(&told)], Some(&Status::ok(""))))
                .unwrap()
        }
    });
    let request = Request::post("/v3/kv/range")
        .header("Grpc-Metadata-Tally-Session", "7")
        .header("Grpc-Metadata-Content-Type", "text/html")
        .header("Grpc-Timeout", "3S")
        .header("X-Other", "1");
    let request = request.body(Body::from("{\"key\":\"YQ==\"}")).unwrap();
    let response = gateway.oneshot(request).await.unwrap();
    assert_eq!(response.headers()["grpc-metadata-tally-outcome"], "applied");
    assert!(
        response
            .headers()
            .get("grpc-metadata-content-type")
            .is_none()
    );
    let (status, told) = read(response).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(
        told,
        json!({
            "header": {"cluster_id": "18446744073709551615", "revision": "7"},
            "kvs": [{"key": "YT8+", "create_revision": "7", "lease": "-1"}],
            "count": "1",
        })
    );
}

#[tokio::test]
async fn a_refusal_has_its_code_and_its_words() {
    for (code, http) in [
        (Code::InvalidArgument, 400),
        (Code::OutOfRange, 400),
        (Code::FailedPrecondition, 400),
        (Code::PermissionDenied, 403),
        (Code::NotFound, 404),
        (Code::ResourceExhausted, 429),
        (Code::Unimplemented, 501),
        (Code::Unavailable, 503),
        (Code::DeadlineExceeded, 504),
    ] {
        let status = Status::new(code, "etcdserver: no: \"ü\"");
        let expected = json!({"error": status.message(), "code": i32::from(code), "message": status.message()});
        // In the headers, or after a body that has nothing.
        for in_headers in [true, false] {
            let status = status.clone();
            let gateway = before("/etcdserverpb.KV/Put", move |_| {
                let status = status.clone();
                async move {
                    match in_headers {
                        true => status.into_http(),
                        false => Response::new(body(vec![], Some(&status))),
                    }
                }
            });
            let told = read(post(&gateway, "/v3/kv/put", "{}").await).await;
            assert_eq!(
                told,
                (StatusCode::from_u16(http).unwrap(), expected.clone())
            );
        }
    }
}

#[tokio::test]
async fn what_is_no_request_calls_nothing() {
    let gateway = before("/etcdserverpb.KV/Put", |_| async {
        panic!("it was called")
    });
    let large = format!("{{\"key\":\"{}\"}}", "A".repeat(2 * MESSAGE_BYTES_MAX));
    for (sent, http, said) in [
        ("{\"key\":", 400, "EOF"),
        ("[]", 400, "T-004"),
        ("{\"key\":\"***\"}", 400, "T-004"),
        ("{\"lease\":\"x\"}", 400, "T-004"),
        ("{\"key\":\"\"} {}", 400, "trailing"),
        (&large, 429, "T-007"),
    ] {
        let (status, told) = read(post(&gateway, "/v3/kv/put", sent.to_owned()).await).await;
        assert_eq!(status, http, "{told}");
        assert!(told["error"].as_str().unwrap().contains(said), "{told}");
    }
    let gateway = before("/etcdserverpb.KV/Txn", |_| async {
        panic!("it was called")
    });
    let deep = [
        "{\"success\":[{\"request_txn\":".repeat(100),
        "}]}".repeat(100),
    ]
    .join("{}");
    let (status, told) = read(post(&gateway, "/v3/kv/txn", deep).await).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{told}");
    assert!(
        told["error"].as_str().unwrap().contains("recursion"),
        "{told}"
    );
}

#[tokio::test]
async fn a_page_of_the_web_is_not_answered() {
    let gateway = before("/etcdserverpb.KV/Put", |_| async {
        panic!("it was called")
    });
    let request = Request::post("/v3/kv/put").header("Origin", "http://evil.example");
    let request = request.body(Body::from("{\"key\":\"YQ==\"}")).unwrap();
    let (status, told) = read(gateway.oneshot(request).await.unwrap()).await;
    assert_eq!(status, StatusCode::FORBIDDEN, "{told}");
    assert!(
        told["error"].as_str().unwrap().contains("evil.example"),
        "{told}"
    );
}

#[tokio::test]
async fn an_answer_that_was_cut_off_is_none() {
    let whole = framed(&RangeResponse {
        count: 1,
        ..RangeResponse::default()
    });
    let half = whole.slice(..whole.len() - 1);
    let ends = [
        (vec![whole.clone()], None, Code::Unavailable),
        (vec![half.clone()], None, Code::Unavailable),
        (vec![half.slice(..3)], None, Code::Unavailable),
        // What it says itself is told.
        (
            vec![half],
            Some(Status::deadline_exceeded("slow")),
            Code::DeadlineExceeded,
        ),
        (vec![whole], Some(Status::aborted("late")), Code::Aborted),
        (vec![], Some(Status::ok("")), Code::Unavailable),
    ];
    for (frames, end, code) in ends {
        let shown = format!("{frames:?} {end:?}");
        let gateway = before("/etcdserverpb.KV/Range", move |_| {
            let (frames, end) = (frames.clone(), end.clone());
            async move { Response::new(body(frames, end.as_ref())) }
        });
        let (_, told) = read(post(&gateway, "/v3/kv/range", "{}").await).await;
        assert_eq!(told["code"], i32::from(code), "{shown}: {told}");
    }
}

#[tokio::test]
async fn an_answer_that_is_too_large_is_refused_before_it_is_read() {
    // Says how long it is, and that is all that comes.
    let head = Bytes::from_static(&[0, 0x10, 0, 0, 0]);
    let gateway = before("/etcdserverpb.KV/Range", move |_| {
        let begun = stream::iter([Ok::<_, Infallible>(Frame::data(head.clone()))]);
        let body = Body::new(StreamBody::new(begun.chain(stream::pending())));
        async move { Response::new(body) }
    });
    let answered = timeout(WITHIN, post(&gateway, "/v3/kv/range", "{}"))
        .await
        .unwrap();
    let (status, told) = read(answered).await;
    assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);
    assert!(
        told["error"].as_str().unwrap().contains("268435456 bytes"),
        "{told}"
    );
}

/// Keys that make a large answer, of several pieces.
fn large() -> RangeResponse {
    let key = |number: u32| KeyValue {
        key: number.to_string().into(),
        value: vec![b'v'; 1 << 10].into(),
        ..KeyValue::default()
    };
    RangeResponse {
        kvs: (0..300).map(key).collect(),
        ..RangeResponse::default()
    }
}

#[tokio::test]
async fn large_answers_are_whole_and_no_more_than_four_at_a_time() {
    let gateway = before("/etcdserverpb.KV/Range", |_| async {
        Response::new(body(vec![framed(&large())], Some(&Status::ok(""))))
    });
    // Of callers that take nothing yet.
    let mut waiting = Vec::new();
    for _ in 0..4 {
        let response = post(&gateway, "/v3/kv/range", "{}").await;
        assert_eq!(response.status(), StatusCode::OK);
        waiting.push(response);
    }
    let (status, told) = read(post(&gateway, "/v3/kv/range", "{}").await).await;
    assert_eq!(status, StatusCode::TOO_MANY_REQUESTS, "{told}");
    assert!(told["error"].as_str().unwrap().contains("T-003"), "{told}");
    // One that is gone, and one that takes all, make room.
    drop(waiting.pop());
    let (_, told) = read(waiting.pop().unwrap()).await;
    assert_eq!(told["kvs"].as_array().unwrap().len(), 300);
    for _ in 0..2 {
        waiting.push(post(&gateway, "/v3/kv/range", "{}").await);
    }
    assert!(
        waiting
            .iter()
            .all(|response| response.status() == StatusCode::OK)
    );
}

/// What they would have taken is for others.
#[tokio::test]
async fn callers_that_take_nothing_are_given_up() {
    let gateway = before("/etcdserverpb.KV/Range", |_| async {
        Response::new(body(vec![framed(&large())], Some(&Status::ok(""))))
    });
    let mut waiting = Vec::new();
    for _ in 0..4 {
        waiting.push(post(&gateway, "/v3/kv/range", "{}").await);
    }
    let others =
        async { while post(&gateway, "/v3/kv/range", "{}").await.status() != StatusCode::OK {} };
    timeout(WITHIN, others).await.unwrap();
    // The first one at least; what it has taken until then is all that it gets.
    let given_up = waiting.remove(0);
    let length = given_up.headers()["content-length"].to_str().unwrap();
    let length: usize = length.parse().unwrap();
    let body = given_up.into_body().collect().await;
    let taken = body.map_or(0, |taken| taken.to_bytes().len());
    assert!(taken < length, "{taken} of {length} bytes");
}

/// A request whose end does not come, and a stream of which not even the first request does.
#[tokio::test]
async fn a_request_that_is_not_whole_in_time_is_refused() {
    let (range, watch) = ("/etcdserverpb.KV/Range", "/etcdserverpb.Watch/Watch");
    let late = async |grpc, path, sent: &'static str| {
        let gateway = before(grpc, |_| async { panic!("it was called") });
        let sent = stream::iter([Ok::<_, Infallible>(Bytes::from(sent))]);
        let sent = Body::from_stream(sent.chain(stream::pending()));
        let refused = timeout(2 * WITHIN, post(&gateway, path, sent)).await;
        read(refused.unwrap()).await
    };
    let (unary, stream) = tokio::join!(
        late(range, "/v3/kv/range", "{\"key\":"),
        late(watch, "/v3/watch", "{\"create_request\":{")
    );
    for (status, told) in [unary, stream] {
        assert_eq!(status, StatusCode::GATEWAY_TIMEOUT, "{told}");
        assert!(told.to_string().contains("T-004"), "{told}");
    }
}

/// "Nothing was appended" would have its client do it again.
#[tokio::test]
async fn a_write_whose_answer_finds_no_room_is_not_said_to_be_not_done() {
    let gateway = before("/etcdserverpb.KV/Txn", |_| async {
        let range = ResponseOp {
            response: Some(Answered::ResponseRange(large())),
        };
        let told = TxnResponse {
            succeeded: true,
            responses: vec![range],
            ..TxnResponse::default()
        };
        Response::new(body(vec![framed(&told)], Some(&Status::ok(""))))
    });
    let mut waiting = Vec::new();
    for _ in 0..4 {
        waiting.push(post(&gateway, "/v3/kv/txn", "{}").await);
    }
    let put = r#"{"failure":[{"request_txn":{"success":[{"request_put":{"key":"YQ=="}}]}}]}"#;
    let range = r#"{"success":[{"request_range":{"key":"YQ=="}}]}"#;
    for (asked, http, code) in [
        (put, StatusCode::SERVICE_UNAVAILABLE, "T-002"),
        (range, StatusCode::TOO_MANY_REQUESTS, "T-003"),
    ] {
        let (status, told) = read(post(&gateway, "/v3/kv/txn", asked).await).await;
        assert_eq!(status, http, "{told}");
        assert!(told["error"].as_str().unwrap().contains(code), "{told}");
    }
}

#[tokio::test]
async fn an_answer_that_would_be_too_much_json_is_refused() {
    let key = KeyValue {
        create_revision: 1 << 60,
        mod_revision: 1 << 60,
        version: 1,
        ..KeyValue::default()
    };
    let told = RangeResponse {
        kvs: vec![key; 500_000],
        ..RangeResponse::default()
    };
    assert!(told.encoded_len() < 16 << 20);
    let gateway = before("/etcdserverpb.KV/Range", move |_| {
        let told = framed(&told);
        async move { Response::new(body(vec![told], Some(&Status::ok("")))) }
    });
    let (status, told) = read(post(&gateway, "/v3/kv/range", "{}").await).await;
    assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);
    assert!(told["error"].as_str().unwrap().contains("T-007"), "{told}");
}

#[tokio::test]
async fn a_large_line_of_a_stream_is_one_piece() {
    let event = |number: u32| Event {
        kv: Some(KeyValue {
            key: number.to_string().into(),
            value: vec![b'v'; 1 << 10].into(),
            ..KeyValue::default()
        }),
        ..Event::default()
    };
    let told = WatchResponse {
        events: (0..300).map(event).collect(),
        ..WatchResponse::default()
    };
    let gateway = before("/etcdserverpb.Watch/Watch", move |_| {
        let told = vec![framed(&told), framed(&WatchResponse::default())];
        async move { Response::new(body(told, Some(&Status::ok("")))) }
    });
    let response = post(&gateway, "/v3/watch", "{\"progress_request\":{}}").await;
    // Each is one piece, which goes out as one chunk: some clients take a chunk for a line.
    let mut body = response.into_body();
    let mut lines: Vec<Value> = Vec::new();
    while let Some(piece) = body.frame().await {
        let piece = piece.unwrap().into_data().unwrap();
        lines.push(serde_json::from_slice(&piece).unwrap());
    }
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0]["result"]["events"].as_array().unwrap().len(), 300);
}

#[tokio::test]
async fn a_path_that_is_none_is_named() {
    let (status, told) = read(post(&routes(Router::new(), 1), "/v3/kv/rang", "{}").await).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert!(
        told["error"].as_str().unwrap().contains("\"/v3/kv/rang\""),
        "{told}"
    );
}

#[tokio::test]
async fn a_stream_that_is_refused_before_it_tells_anything_has_the_status_of_that() {
    // tonic sends the headers at once, and what came of the call after them.
    for in_headers in [true, false] {
        let gateway = before("/etcdserverpb.Lease/LeaseKeepAlive", move |_| async move {
            let status = Status::unavailable("etcdserver: no leader");
            match in_headers {
                true => status.into_http(),
                false => Response::new(body(vec![], Some(&status))),
            }
        });
        let (status, told) = read(post(&gateway, "/v3/lease/keepalive", "{}").await).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{told}");
        assert_eq!(told["error"]["message"], "etcdserver: no leader", "{told}");
    }
}

/// A gateway before a watch that answers each request with the id that was asked for, and ends when no more comes.
fn echo() -> Router {
    before("/etcdserverpb.Watch/Watch", |request| async {
        let (send, receive) = mpsc::channel::<Result<Frame<Bytes>, Infallible>>(1);
        tokio::spawn(async move {
            let mut frames = request.into_body().into_data_stream();
            while let Some(frame) = frames.next().await {
                let frame = match frame {
                    Ok(frame) => frame,
                    Err(error) => {
                        let status = Status::from_error(error.into());
                        let _ = send.send(Ok(Frame::trailers(trailers(&status)))).await;
                        return;
                    }
                };
                let asked: WatchRequest = unframed(&frame);
                let Some(RequestUnion::CreateRequest(WatchCreateRequest { watch_id, .. })) =
                    asked.request_union
                else {
                    panic!("{asked:?}");
                };
                let events = vec![Event {
                    r#type: event::EventType::Delete.into(),
                    ..Event::default()
                }];
                let told = WatchResponse {
                    watch_id,
                    events,
                    ..WatchResponse::default()
                };
                let _ = send.send(Ok(Frame::data(framed(&told)))).await;
            }
            let _ = send
                .send(Ok(Frame::trailers(trailers(&Status::ok("")))))
                .await;
        });
        Response::new(Body::new(StreamBody::new(ReceiverStream::new(receive))))
    })
}

fn told(id: &str) -> String {
    format!("{{\"result\":{{\"watch_id\":\"{id}\",\"events\":[{{\"type\":\"DELETE\"}}]}}}}\n")
}

#[tokio::test]
async fn requests_of_a_stream_are_answered_as_they_come() {
    let (send, receive) = mpsc::channel::<Result<Bytes, Infallible>>(1);
    let piece = |text: &'static str| send.send(Ok(Bytes::from(text)));
    let gateway = echo();
    let asked = async {
        post(
            &gateway,
            "/v3/watch",
            Body::from_stream(ReceiverStream::new(receive)),
        )
        .await
    };
    // In pieces that end anywhere, and two in one.
    let first = async {
        piece("{\"create_request\":{\"wat").await.unwrap();
        piece("ch_id\":\"1\"}").await.unwrap();
        piece("}").await.unwrap();
    };
    let (response, ()) = timeout(WITHIN, async { tokio::join!(asked, first) })
        .await
        .unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let mut lines = response.into_body().into_data_stream();
    let mut next = async || {
        timeout(WITHIN, lines.next())
            .await
            .unwrap()
            .map(Result::unwrap)
    };
    assert_eq!(next().await.unwrap(), told("1"));
    piece("\n{\"createRequest\":{\"watchId\":2}}{\"create_request\":{\"watch_id\":3}}")
        .await
        .unwrap();
    assert_eq!(next().await.unwrap(), told("2"));
    assert_eq!(next().await.unwrap(), told("3"));
    drop(send);
    assert_eq!(next().await, None);
}

#[tokio::test]
async fn a_stream_ends_with_what_cannot_be_read() {
    let good = "{\"create_request\":{\"watch_id\":\"1\"}}";
    for bad in [
        "{\"create_request\":[]}",
        "}",
        "{\"create",
        "{\"create_request\":{\"key\":\"*\"}}",
    ] {
        // As the first it decides the status of the answer.
        let (status, said) = read(post(&echo(), "/v3/watch", bad).await).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{bad}: {said}");
        assert_eq!(said["error"]["grpc_code"], 3, "{bad}: {said}");
        let response = post(&echo(), "/v3/watch", format!("{good}{bad}")).await;
        assert_eq!(response.status(), StatusCode::OK);
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let body = std::str::from_utf8(&body).unwrap();
        let rest = body
            .strip_prefix(&told("1"))
            .unwrap_or_else(|| panic!("{bad}: {body}"));
        let end: Value = serde_json::from_str(rest).unwrap();
        assert_eq!(end["error"]["http_code"], 400, "{bad}: {end}");
        assert_eq!(end["error"]["http_status"], "Bad Request", "{bad}: {end}");
        assert!(
            end["error"]["message"].as_str().unwrap().contains("T-004"),
            "{bad}: {end}"
        );
    }
    let (status, said) = read(post(&echo(), "/v3/watch", " ").await).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{said}");
}
