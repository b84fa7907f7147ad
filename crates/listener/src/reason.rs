//! Why a connection ended, from what hyper and h2 say.

use std::error::Error;
use std::io;

use tally_proto::fault::with_causes;

/// How a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// The caller went away, as callers do.
    Gone(String),
    /// The caller did something that it should not have.
    Caller(String),
}

/// Reads an error of a connection.
pub(crate) fn read(error: &hyper::Error) -> Reason {
    let mut causes = std::iter::successors(Some(error as &dyn Error), |&cause| cause.source());
    if error.is_timeout() {
        return Reason::Caller("it was silent for too long".to_owned());
    }
    if let Some(h2) = causes.clone().find_map(|cause| cause.downcast_ref()) {
        return http2(h2);
    }
    if let Some(io) = causes.find_map(|cause| cause.downcast_ref::<io::Error>()) {
        return input_output(io);
    }
    if error.is_incomplete_message() {
        return Reason::Caller("it ended in the middle of a request".to_owned());
    }
    if error.is_canceled() || error.is_closed() || error.is_body_write_aborted() {
        return Reason::Gone(error.to_string());
    }
    Reason::Caller(with_causes(error.to_string(), error))
}

fn http2(error: &h2::Error) -> Reason {
    if let Some(io) = error.get_io() {
        return input_output(io);
    }
    // What the caller itself reports, for example that it leaves.
    if error.is_remote() {
        return Reason::Gone(error.to_string());
    }
    Reason::Caller(format!("it is not HTTP/2 as it should be: {error}"))
}

fn input_output(error: &io::Error) -> Reason {
    // h2 takes an end in the middle of a frame for an error of its own making.
    if error.kind() == io::ErrorKind::UnexpectedEof || error.to_string().contains("bytes remaining")
    {
        return Reason::Caller("it ended in the middle of a frame".to_owned());
    }
    if matches!(
        error.kind(),
        io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::NotConnected
            | io::ErrorKind::TimedOut
    ) {
        return Reason::Gone(error.to_string());
    }
    Reason::Caller(error.to_string())
}
