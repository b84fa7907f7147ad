//! Listening on an address before anything else is done, so that a taken port ends the command early.

use std::net::TcpListener;

use tally_model::explanation::codes;

use crate::exit::Failure;

/// A listener on `address` (HOST:PORT); `what` names the setting that gave it.
pub(crate) fn bind(address: &str, what: &str) -> Result<TcpListener, Failure> {
    let listener = TcpListener::bind(address);
    let listener = listener.and_then(|listener| {
        // The runtimes that serve it wait for readiness, never in the call.
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    listener.map_err(|error| {
        let found = format!("cannot listen on {address} ({what}): {error}");
        let failure = Failure::fault(codes::ADDRESS_IN_USE, found);
        failure
            .expected("a free port on an address of this machine")
            .next(format!("tally explain {}", codes::ADDRESS_IN_USE))
    })
}
