//! Timers, sorted by their deadlines.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use rserpool::runtime::{Runtime, Timer};

use crate::{MioRuntime, TURN, lock};

#[derive(Debug, Default)]
pub(crate) struct Timers {
    pub(crate) queue: BTreeMap<(Instant, u64), Waker>,
    next: u64,
}

impl Timers {
    /// Removes the timers that are due at `now`, and returns their wakers.
    pub(crate) fn due(&mut self, now: Instant) -> Vec<Waker> {
        let later = self.queue.split_off(&(now, u64::MAX));
        std::mem::replace(&mut self.queue, later).into_values().collect()
    }
}

#[derive(Debug)]
pub(crate) struct MioTimer {
    pub(crate) runtime: MioRuntime,
    pub(crate) deadline: Instant,
    pub(crate) queued: Option<(Instant, u64)>,
}

impl MioTimer {
    fn cancel(&mut self) {
        if let Some(key) = self.queued.take() {
            lock(&self.runtime.0.timers).queue.remove(&key);
        }
    }
}

impl Future for MioTimer {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.deadline <= self.runtime.now() {
            self.cancel();
            return Poll::Ready(());
        }
        let runtime = self.runtime.clone();
        let mut timers = lock(&runtime.0.timers);
        let key = match self.queued {
            Some(key) => key,
            None => {
                timers.next += 1;
                let key = (self.deadline, timers.next);
                self.queued = Some(key);
                key
            }
        };
        timers.queue.insert(key, cx.waker().clone());
        drop(timers);
        // The runtime's thread may sleep past the new deadline, so wake it.
        if TURN.get().is_none() {
            let _ = runtime.0.wake.wake();
        }
        Poll::Pending
    }
}

impl Timer for MioTimer {
    fn reset(mut self: Pin<&mut Self>, deadline: Instant) {
        self.cancel();
        self.deadline = deadline;
    }
}

impl Drop for MioTimer {
    fn drop(&mut self) {
        self.cancel();
    }
}
