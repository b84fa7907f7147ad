//! Runs what answers a request where the request was read, as far as that goes without waiting.
//!
//! A task of its own costs more than a small answer: it is queued, another thread may be woken for it, and its
//! answer wakes the connection again. An answer that needs not wait is there before the connection has looked
//! at all the requests that it has read, and is written together with those of the others. What waits becomes
//! a task.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::{Context, Waker};

use hyper::rt::Executor;

/// See the module.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AtOnce;

impl<F> Executor<F> for AtOnce
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, future: F) {
        let mut future = Box::pin(future);
        // A task looks again as soon as it runs, so nobody need be woken for what comes until then.
        let mut context = Context::from_waker(Waker::noop());
        let looked = catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(&mut context)));
        // As in a task of its own, a panic ends this answer and nothing else.
        if looked.is_ok_and(|looked| looked.is_pending()) {
            tokio::spawn(future);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn what_does_not_wait_is_done_at_once() {
        let done = Arc::new(AtomicU32::new(0));
        let counts = done.clone();
        AtOnce.execute(async move {
            counts.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(done.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn what_waits_goes_on_when_it_can() {
        let (begin, begun) = oneshot::channel::<u32>();
        let (tell, told) = oneshot::channel();
        AtOnce.execute(async move {
            let came = begun.await;
            let _ = tell.send(came);
        });
        begin.send(7).expect("somebody waits");
        assert_eq!(told.await.expect("it is told"), Ok(7));
    }

    #[tokio::test]
    async fn a_panic_ends_one_answer_alone() {
        AtOnce.execute(async {
            let none: Option<u32> = None;
            assert_eq!(none, Some(1), "meant to fail");
        });
        let (tell, told) = oneshot::channel();
        AtOnce.execute(async move {
            let _ = tell.send(());
        });
        assert_eq!(told.await, Ok(()));
    }
}
