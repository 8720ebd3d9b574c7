//! Serves sessions until the element is to stop.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::FutureExt;
use futures::channel::oneshot;
use futures::future::{AbortHandle, Shared, abortable};
use futures::stream::{FuturesUnordered, StreamExt};

use rserpool_proto::element::Departure;

use crate::Stopped;
use crate::element::PoolElement;
use crate::element_session::ElementSession;
use crate::timer::{LazyTimer, after};

/// Maximum number of sessions that an element serves at a time. Not from the RFCs. Further ones
/// wait to be accepted.
const MAX_SESSIONS: usize = 65_536;

/// Minimum time to wait for the registrar's confirmation that the element has left.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(2);

/// Future that is ready when the server is to stop, so that its session should finish.
#[derive(Debug, Clone)]
pub struct Stopping(Shared<oneshot::Receiver<()>>);

impl Future for Stopping {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.0.poll_unpin(cx).map(drop)
    }
}

/// A session that is served in a task of its own. Dropping it aborts the task.
struct Served {
    done: oneshot::Receiver<()>,
    abort: AbortHandle,
}

impl Future for Served {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.done.poll_unpin(cx).map(drop)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.abort.abort();
    }
}

/// Outcome of serving sessions: the element's departure, and the sessions that were cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServeOutcome {
    /// Manner in which the element left the pool.
    pub departure: Departure,
    /// Number of sessions that did not end in time and were aborted. Their pool users fail over.
    pub aborted: usize,
}

impl PoolElement {
    /// Serves each session by `serve`, in a task of its own, until `stop` is ready. After that, the
    /// element leaves the pool, notifies the sessions by their [`Stopping`], and gives them `grace`
    /// to finish. The remaining sessions are aborted, and their pool users fail over.
    ///
    /// Returns the outcome of the deregistration, and the number of sessions that were aborted. The
    /// wait for the registrar's confirmation is at least 2 s. If the element's task stops by
    /// itself, that has the same effect as `stop`.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the element leaves the pool and all its sessions are aborted.
    pub async fn serve_sessions<S, F>(
        mut self,
        mut serve: S,
        stop: impl Future,
        grace: Duration,
    ) -> ServeOutcome
    where
        S: FnMut(ElementSession, Stopping) -> F,
        F: Future + Send + 'static,
    {
        let (tell, stopping) = oneshot::channel();
        let stopping = Stopping(stopping.shared());
        let network = self.network().clone();
        let mut sessions = FuturesUnordered::new();
        let mut stop = pin!(stop.fuse());
        loop {
            let full = sessions.len() >= MAX_SESSIONS;
            let mut accept = pin!(self.accept());
            let accepted = poll_fn(|cx| {
                if stop.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(None);
                }
                while let Poll::Ready(Some(())) = sessions.poll_next_unpin(cx) {}
                if full && sessions.len() >= MAX_SESSIONS {
                    return Poll::Pending;
                }
                accept.as_mut().poll(cx).map(Some)
            });
            let session = match accepted.await {
                Some(Ok(session)) => session,
                Some(Err(Stopped)) | None => break,
            };
            let (guard, done) = oneshot::channel::<()>();
            let (served, abort) = abortable(serve(session, stopping.clone()));
            sessions.push(Served { done, abort });
            network.runtime().spawn(Box::pin(async move {
                let _ = served.await;
                drop(guard);
            }));
        }
        let deadline = after(network.now(), grace);
        let left_by = deadline.max(network.now() + LEAVE_TIMEOUT);
        let (mut grace_timer, mut leave_timer) = (LazyTimer::default(), LazyTimer::default());
        let mut leave = pin!(self.leave().fuse());
        let mut departure = None;
        let mut tell = Some(tell);
        poll_fn(|cx| {
            // Sessions are told to stop after the element has left the pool, so that no new ones
            // are sent here.
            if let (None, Poll::Ready(left)) = (departure, leave.as_mut().poll(cx)) {
                departure = Some(left);
            }
            let late = grace_timer.poll(cx, network.runtime(), Some(deadline)).is_ready();
            let given_up = leave_timer.poll(cx, network.runtime(), Some(left_by)).is_ready();
            if departure.is_some() || late {
                drop(tell.take());
            }
            let all_ended = loop {
                match sessions.poll_next_unpin(cx) {
                    Poll::Ready(Some(())) => {}
                    Poll::Ready(None) => break true,
                    Poll::Pending => break false,
                }
            };
            if (departure.is_none() && !given_up) || (!all_ended && !late) {
                return Poll::Pending;
            }
            Poll::Ready(ServeOutcome {
                departure: departure.unwrap_or(Departure::Unconfirmed),
                aborted: sessions.len(),
            })
        })
        .await
    }
}
