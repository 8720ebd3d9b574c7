//! Sources that are polled only after they were woken.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures::task::AtomicWaker;

/// Wraps one of a task's several sources of events, and polls it only if that source itself woke
/// the task. Polling a socket in vain may cost a system call.
pub(crate) struct WakeFilter<S> {
    pub(crate) source: S,
    woken: Arc<Woken>,
    waker: Waker,
}

#[derive(Debug)]
struct Woken {
    flag: AtomicBool,
    task: AtomicWaker,
}

impl<S: fmt::Debug> fmt::Debug for WakeFilter<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WakeFilter").field("source", &self.source).finish_non_exhaustive()
    }
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.flag.store(true, Ordering::Release);
        self.task.wake();
    }
}

impl<S> WakeFilter<S> {
    pub(crate) fn new(source: S) -> Self {
        let woken = Arc::new(Woken { flag: AtomicBool::new(true), task: AtomicWaker::new() });
        Self { source, waker: Waker::from(Arc::clone(&woken)), woken }
    }

    /// Polls the source if it was woken since it was last pending.
    pub(crate) fn poll<R>(
        &mut self,
        cx: &mut Context<'_>,
        poll: impl FnOnce(&mut S, &mut Context<'_>) -> Poll<R>,
    ) -> Poll<R> {
        self.woken.task.register(cx.waker());
        if !self.woken.flag.swap(false, Ordering::AcqRel) {
            return Poll::Pending;
        }
        let polled = poll(&mut self.source, &mut Context::from_waker(&self.waker));
        if polled.is_ready() {
            // The source may have more to read, so poll it again next time.
            self.woken.flag.store(true, Ordering::Release);
        }
        polled
    }
}
