//! How a member ends: in stages, so that whoever waits for it gets an answer or a reason, and knows
//! early to go elsewhere.

use tokio_util::sync::CancellationToken;

/// The stages of an end. Each is entered once, in this order, and stays.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ending {
    /// Not ready any more. Everything is still served, and leadership is handed over.
    pub(crate) leaving: CancellationToken,
    /// Clients are told to go elsewhere: no new connections, GOAWAY on the present ones. What they
    /// wait for is finished.
    pub(crate) closing: CancellationToken,
    /// What clients still wait for is answered with a reason instead.
    pub(crate) refusing: CancellationToken,
    /// Members and operators are let go as well.
    pub(crate) ended: CancellationToken,
}

impl Ending {
    /// What comes of a request, if it comes before the member refuses to wait any longer.
    pub(crate) async fn unless_refusing<T>(&self, request: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            // An answer that is there is given.
            biased;
            answer = request => Some(answer),
            () = self.refusing.cancelled() => None,
        }
    }
}
