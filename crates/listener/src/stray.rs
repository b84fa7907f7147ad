//! What a caller at the wrong port is told: which port this is, and which one serves what it wanted.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::Body;
use axum::http::{Request, Response, StatusCode, Version, header};
use axum::response::IntoResponse;
use tally_model::explanation::codes;
use tally_proto::fault::Fault;
use tonic::Code;

use crate::notes::Notes;
use crate::port::{Port, Speaks};
use crate::status::with_lists;

/// Who called; every request has it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caller(pub(crate) SocketAddr);

/// Answers a request for something that is not served here.
pub(crate) fn answer(notes: &Arc<Notes>, request: &Request<Body>) -> Response<Body> {
    let fault = fault(notes.port(), request.uri().path(), is_grpc(request));
    if let Some(Caller(from)) = request.extensions().get() {
        notes.stray(*from, &fault.to_string());
    }
    if is_grpc(request) {
        return fault.into_status(Code::Unimplemented).into_http();
    }
    let status = match notes.port().speaks {
        Speaks::GrpcAndHttp { .. } => StatusCode::MISDIRECTED_REQUEST,
        Speaks::Grpc | Speaks::Http => StatusCode::NOT_FOUND,
    };
    (status, line(&fault)).into_response()
}

fn is_grpc(request: &Request<Body>) -> bool {
    let kind = request.headers().get(header::CONTENT_TYPE);
    request.version() == Version::HTTP_2
        && kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

fn line(fault: &Fault) -> String {
    format!("{fault}; {}\n", fault.next)
}

fn fault(port: &Port, path: &str, grpc: bool) -> Fault {
    let here = &port.name;
    if !grpc {
        let fault = |found| Fault::new(codes::NOT_SERVED_HERE, found);
        return match port.speaks {
            Speaks::Http => fault(format!("found {path:?}, which {here} does not have"))
                .with_next("ask for /livez, /readyz or /metrics"),
            Speaks::Grpc => http_on_grpc(port),
            Speaks::GrpcAndHttp { http } => {
                let found =
                    format!("found {path:?}; this is {here}, which speaks gRPC, and {http}");
                plain_or_grpc(port, fault(found))
            }
        };
    }
    let service = path.trim_start_matches('/');
    let service = service.split('/').next().unwrap_or_default();
    match port.serving(service) {
        Some(other) => Fault::new(
            codes::NOT_SERVED_HERE,
            format!("{service} is served on {other}; this is {here}"),
        )
        .with_next(format!("call {other}")),
        None => Fault::new(
            codes::NOT_SERVED_HERE,
            with_lists(
                &format!("found a call of {service:?}; this is {here}, which does not have it"),
                port.lists,
            ),
        )
        .with_next("compare the address with `tally cluster status`"),
    }
}

/// Plain HTTP on a port for gRPC.
fn http_on_grpc(port: &Port) -> Fault {
    let found = format!(
        "found an HTTP request; this is {}, which speaks gRPC",
        port.name
    );
    let fault = Fault::new(codes::NOT_SERVED_HERE, found);
    plain_or_grpc(port, fault)
}

/// With the port for plain HTTP as what to ask next, where there is one.
fn plain_or_grpc(port: &Port, fault: Fault) -> Fault {
    match port.plain() {
        Some(other) => fault.with_next(format!("ask {other}")),
        None => fault.with_next("call it with a gRPC client"),
    }
}

/// The whole answer to a caller of HTTP/1 on a port for gRPC, and what the log says.
pub(crate) fn http1_on_grpc(port: &Port) -> (String, String) {
    let fault = http_on_grpc(port);
    let body = line(&fault);
    let answer = format!(
        "HTTP/1.1 421 Misdirected Request\r\ncontent-type: text/plain; charset=utf-8\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    (answer, fault.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::{Counts, Elsewhere};

    fn port(speaks: Speaks) -> Port {
        let elsewhere = [
            ("tally.peer.v1.", "the peer port of n1, host1:7412"),
            ("", "the http port of n1, host1:7413"),
        ];
        let elsewhere = elsewhere.map(|(services, port)| Elsewhere {
            services,
            port: port.to_owned(),
        });
        Port {
            name: "the client port of n1".to_owned(),
            speaks,
            elsewhere: elsewhere.to_vec(),
            lists: Some("a book"),
            counts: Counts::default(),
        }
    }

    #[test]
    fn a_call_for_another_port_is_told_which() {
        let port = port(Speaks::Grpc);
        let fault = fault(&port, "/tally.peer.v1.Peer/Vote", true);
        assert_eq!(
            fault.to_string(),
            "T-023: tally.peer.v1.Peer is served on the peer port of n1, host1:7412; this is the \
             client port of n1"
        );
        assert_eq!(fault.next, "call the peer port of n1, host1:7412");
    }

    #[test]
    fn what_nobody_serves_is_named() {
        let fault = fault(&port(Speaks::Grpc), "/helloworld.Greeter/SayHello", true);
        assert!(fault.found.contains("\"helloworld.Greeter\""), "{fault}");
        assert!(fault.found.contains("the client port of n1"), "{fault}");
        assert!(
            fault.found.ends_with("; a book lists what it has"),
            "{fault}"
        );
    }

    #[test]
    fn a_browser_is_told_where_http_is() {
        let (answer, said) = http1_on_grpc(&port(Speaks::Grpc));
        assert!(answer.starts_with("HTTP/1.1 421 "), "{answer}");
        assert!(answer.contains("host1:7413"), "{answer}");
        assert!(said.contains("speaks gRPC"), "{said}");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        assert!(head.contains(&format!("content-length: {}", body.len())));
    }

    #[test]
    fn a_path_that_is_not_there_is_named() {
        let fault = fault(&port(Speaks::Http), "/health", false);
        assert!(fault.found.contains("\"/health\""), "{fault}");
        assert!(fault.next.contains("/readyz"), "{fault:?}");
    }
}
