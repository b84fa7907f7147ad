//! What tonic answers before any of Tally's code sees a call has no code of Tally's: a message that is
//! too large, one that is no message, a method that this version does not have. It gets one here.

use axum::http::Response;
use tally_model::explanation::codes;
use tally_proto::fault::Fault;
use tonic::{Code, Status};

/// Rewrites such an answer; leaves every other one alone.
pub(crate) fn explain<B: Default>(response: Response<B>) -> Response<B> {
    match Status::from_header_map(response.headers()).and_then(|found| fault(&found)) {
        Some((code, fault)) => fault.into_status(code).into_http(),
        None => response,
    }
}

fn fault(found: &Status) -> Option<(Code, Fault)> {
    let said = found.message();
    match found.code() {
        Code::OutOfRange if said.contains("message length too large") => {
            let said = said.trim_start_matches("Error, ");
            let fault = Fault::new(codes::TOO_LARGE, said).with_next(
                "send less in one message; a member takes from clients what message-bytes-max says, and of the etcd API request-bytes-max",
            );
            Some((Code::ResourceExhausted, fault))
        }
        Code::Internal if is_no_message(said) => {
            let said = said.trim_end_matches('.');
            let fault = Fault::new(codes::INVALID_ARGUMENT, format!("found no message: {said}"))
                .with_next("build the caller from the proto files of this version");
            Some((Code::InvalidArgument, fault))
        }
        Code::Unimplemented if said.is_empty() => {
            let found = "this version does not have the called method";
            let fault = Fault::new(codes::NOT_SERVED_HERE, found)
                .with_next("upgrade what was called, or call what it has");
            Some((Code::Unimplemented, fault))
        }
        _ => None,
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

    fn explained(status: Status) -> Option<Fault> {
        let response: Response<()> = status.into_http();
        let headers: HeaderMap = explain(response).headers().clone();
        Fault::read(&Status::from_header_map(&headers)?)
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
            let fault = explained(status);
            assert!(fault.is_some_and(|fault| fault.code == code), "{code}");
        }
    }

    #[test]
    fn an_answer_of_tallys_own_is_left_alone() {
        let own = Fault::new(codes::NO_LEADER, "none");
        let status = own.clone().into_status(Code::Internal);
        assert_eq!(explained(status), Some(own));
        assert_eq!(explained(Status::internal("something else")), None);
    }
}
