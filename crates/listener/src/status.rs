//! What tonic answers before any of Tally's code sees a call has no code of Tally's: a message that is
//! too large, one that is no message, a method that this version does not have. It gets one here.

use axum::http::Response;
use tally_model::explanation::codes;
use tally_proto::fault::{Fault, too_large};
use tonic::{Code, Status};

/// Rewrites such an answer; leaves every other one alone. `lists` is [`Port::lists`](crate::Port::lists).
pub(crate) fn explain<B: Default>(response: Response<B>, lists: Option<&str>) -> Response<B> {
    let found = Status::from_header_map(response.headers());
    match found.and_then(|found| explained(&found, lists)) {
        Some(status) => status.into_http(),
        None => response,
    }
}

fn explained(found: &Status, lists: Option<&str>) -> Option<Status> {
    let said = found.message();
    match found.code() {
        Code::OutOfRange => too_large(found),
        Code::Internal if is_no_message(said) => {
            let said = said.trim_end_matches('.');
            let fault = Fault::new(codes::INVALID_ARGUMENT, format!("found no message: {said}"))
                .with_next("build the caller from the proto files of this version");
            Some(fault.into_status(Code::InvalidArgument))
        }
        Code::Unimplemented if said.is_empty() => {
            let found = with_lists("this version does not have the called method", lists);
            let fault = Fault::new(codes::NOT_SERVED_HERE, found)
                .with_next("upgrade what was called, or call what it has");
            Some(fault.into_status(Code::Unimplemented))
        }
        _ => None,
    }
}

/// With where to look for what there is.
pub(crate) fn with_lists(found: &str, lists: Option<&str>) -> String {
    match lists {
        Some(lists) => format!("{found}; {lists} lists what it has"),
        None => found.to_owned(),
    }
}

/// tonic's own words for a body that is no message.
fn is_no_message(said: &str) -> bool {
    [
        "failed to decode Protobuf message",
        "protocol error: received message",
        "Missing request message",
        "Unexpected EOF decoding stream",
    ]
    .iter()
    .any(|own| said.contains(own))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderMap;

    use super::*;

    fn sent(status: Status) -> Option<Status> {
        let response: Response<()> = status.into_http();
        let headers: HeaderMap = explain(response, None).headers().clone();
        Status::from_header_map(&headers)
    }

    #[test]
    fn what_tonic_refuses_gets_a_code() {
        for (status, code) in [
            (
                Status::out_of_range("Error, decoded message length too large: found 9 bytes"),
                codes::TOO_LARGE,
            ),
            (
                Status::internal("failed to decode Protobuf message: invalid tag"),
                codes::INVALID_ARGUMENT,
            ),
            (Status::unimplemented(""), codes::NOT_SERVED_HERE),
        ] {
            let fault = sent(status).and_then(|status| Fault::read(&status));
            assert!(fault.is_some_and(|fault| fault.code == code), "{code}");
        }
    }

    #[test]
    fn a_message_that_is_too_large_is_refused_in_the_words_of_grpc() {
        let said = "Error, decoded message length too large: found 3145740 bytes, the limit is: 2097152 bytes";
        let status = sent(Status::out_of_range(said)).expect("a status");
        assert_eq!(status.code(), Code::ResourceExhausted);
        let expected = "grpc: received message larger than max (3145740 vs. 2097152)";
        assert_eq!(status.message(), expected);
    }

    #[test]
    fn an_answer_of_tallys_own_is_left_alone() {
        let own = Fault::new(codes::NO_LEADER, "none");
        let answer = sent(own.clone().into_status(Code::Internal)).expect("a status");
        assert_eq!(Fault::read(&answer), Some(own));
        let other = sent(Status::internal("something else")).expect("a status");
        assert_eq!(Fault::read(&other), None);
    }
}
