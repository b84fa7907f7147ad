//! Sends the same request until it is answered.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::time::sleep;
use tonic::{Code, Request, Response, Status};

/// As a client sets it: long enough for an election on a busy machine.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Pause before the same request is sent again. Short: a gap must be the cluster's, not the client's.
const AGAIN_AFTER: Duration = Duration::from_millis(1);
/// Requests sent again before the client gives up.
const ATTEMPTS_MAX: usize = 60_000;

/// Calls `send` with a copy of the client and of the request until there is an answer; counts in
/// `repeats` how often it was not the first time.
pub(super) async fn until_answered<C: Clone, T: Clone, A, F>(
    client: &C,
    ask: T,
    repeats: &mut u64,
    mut send: impl FnMut(C, Request<T>) -> F,
) -> Result<A>
where
    F: Future<Output = Result<Response<A>, Status>>,
{
    for _ in 0..ATTEMPTS_MAX {
        let mut request = Request::new(ask.clone());
        request.set_timeout(ANSWER_WITHIN);
        match send(client.clone(), request).await {
            Ok(response) => return Ok(response.into_inner()),
            Err(status) if may_pass(&status) => {
                *repeats += 1;
                sleep(AGAIN_AFTER).await;
            }
            Err(status) => return Err(status).context("turned down for good"),
        }
    }
    bail!("no answer after {ATTEMPTS_MAX} attempts")
}

/// Sending the same again may bring an answer.
fn may_pass(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable
            | Code::DeadlineExceeded
            | Code::Cancelled
            | Code::Unknown
            | Code::Aborted
            | Code::ResourceExhausted
            | Code::Internal
    )
}
