//! Reads of many rows, which hold what they find: so many at a time, each on a thread of its own.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;

use super::rpctypes;

/// Reads at a time, or as many as there are processors.
const AT_A_TIME_MIN: usize = 4;

/// See the module. Clones are the same.
#[derive(Clone)]
pub(super) struct Holders(Arc<Semaphore>);

impl Holders {
    pub(super) fn new() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self(Arc::new(Semaphore::new(processors.max(AT_A_TIME_MIN))))
    }

    /// Looks when it is its turn, where it keeps nobody waiting. Others have theirs when the turn is dropped that it
    /// gives, but not before it has looked, whether its caller waits for it or not.
    ///
    /// # Errors
    /// When the turn does not come in time.
    pub(super) async fn look<T: Send + 'static>(
        &self,
        deadline: Instant,
        look: impl FnOnce() -> T + Send + 'static,
    ) -> Result<(T, OwnedSemaphorePermit), Status> {
        let held = turn(&self.0, deadline).await?;
        let looked = tokio::task::spawn_blocking(move || (look(), held));
        looked.await.map_err(|_| rpctypes::stopped())
    }
}

/// Waits until there is room for one more, as long as the caller does.
pub(super) async fn turn(
    room: &Arc<Semaphore>,
    deadline: Instant,
) -> Result<OwnedSemaphorePermit, Status> {
    let turn = room.clone().acquire_owned();
    let turn = tokio::time::timeout_at(deadline.into(), turn).await;
    let turn = turn.map_err(|_| rpctypes::timed_out())?;
    turn.map_err(|_| rpctypes::stopped())
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_read_whose_caller_is_gone_keeps_its_turn_until_it_ends() {
        let holders = Holders(Arc::new(Semaphore::new(1)));
        let (end, ended) = mpsc::channel::<()>();
        let (begin, begun) = tokio::sync::oneshot::channel();
        let long = Instant::now() + Duration::from_secs(30);
        let given_up = {
            let holders = holders.clone();
            tokio::spawn(async move {
                let look = move || {
                    let _ = begin.send(());
                    ended.recv()
                };
                holders.look(long, look).await.map(drop)
            })
        };
        begun.await.expect("it reads");
        given_up.abort();
        assert!(given_up.await.is_err_and(|error| error.is_cancelled()));
        let soon = Instant::now() + Duration::from_millis(50);
        assert!(holders.look(soon, || ()).await.is_err());
        end.send(()).expect("it still reads");
        holders.look(long, || ()).await.map(drop).expect("its turn");
    }
}
