//! A limit on the requests under way: `poll_ready` is pending while the limit is reached.

use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures::future::BoxFuture;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::PollSemaphore;

/// Default of the maximum number of requests under way. Not from the RFCs.
const LIMIT: usize = 1024;

/// Permits of a service, one for each request under way. Clones share them.
#[derive(Debug)]
pub(crate) struct Permits {
    semaphore: PollSemaphore,
    ready: Option<OwnedSemaphorePermit>,
}

impl Permits {
    pub(crate) fn new(limit: usize) -> Self {
        let semaphore = Arc::new(Semaphore::new(limit.clamp(1, Semaphore::MAX_PERMITS)));
        Self { semaphore: PollSemaphore::new(semaphore), ready: None }
    }

    /// Polls for a permit, which [`Self::run`] takes.
    pub(crate) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.ready.is_none() {
            // The semaphore is never closed.
            self.ready = ready!(self.semaphore.poll_acquire(cx));
        }
        Poll::Ready(())
    }

    /// Runs a request with the permit. When it is done or dropped, another request can begin.
    pub(crate) fn run<T>(
        &mut self,
        request: impl Future<Output = T> + Send + 'static,
    ) -> BoxFuture<'static, T> {
        let permit = self.ready.take();
        Box::pin(async move {
            let response = request.await;
            drop(permit);
            response
        })
    }
}

impl Default for Permits {
    fn default() -> Self {
        Self::new(LIMIT)
    }
}

impl Clone for Permits {
    fn clone(&self) -> Self {
        Self { semaphore: self.semaphore.clone(), ready: None }
    }
}
