//! Following what happens, from one member to the next, for as long as someone reads.

use tonic::Status;

use crate::client::Client;
use crate::connection::Connection;
use crate::error::Error;
use crate::retry::{Failure, GaveUp, OnDoubt};

/// There is nothing more to yield, or nobody who reads it.
pub(crate) struct Dropped;

/// What is told by one member after the other, and knows how far it has come.
pub(crate) trait Follower: Send {
    /// How far it has come: whether it has begun, and the first revision that was not yielded.
    fn place(&self) -> (bool, u64);

    /// Yields what one member sends until it breaks off.
    fn serve_from(
        &mut self,
        connection: &Connection,
    ) -> impl Future<Output = Result<Dropped, Status>> + Send;
}

/// Follows one member after another, without a deadline. Ends with an error that asking again cannot
/// mend, or with `None` once nobody reads any more.
pub(crate) async fn follow(client: &Client, follower: &mut impl Follower) -> Option<Error> {
    loop {
        // Begun anew after each member that served, so that the pauses are short again.
        let mut attempts = client.attempts().without_deadline();
        loop {
            let connection = attempts.choose();
            let before = follower.place();
            let failure = match follower.serve_from(&connection).await {
                Ok(Dropped) => return None,
                Err(status) => Failure::read(&status),
            };
            tracing::debug!(endpoint = connection.url(), ?failure, "the watch broke");
            let noted = attempts.note(&connection, failure, OnDoubt::Ignore).await;
            if let Err(GaveUp::Rejected(fault)) = noted {
                return Some(Error::rejected(fault));
            }
            if before != follower.place() {
                break;
            }
        }
    }
}
