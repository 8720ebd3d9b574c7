//! Timers on the runtime.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use crate::runtime::{Runtime, Timer};

/// The longest time to wait: ten years, so that adding it to an instant does not overflow.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 86_400);

/// Returns the instant after a time, or after ten years if that is earlier.
pub(crate) fn after(now: Instant, time: Duration) -> Instant {
    now + time.min(LONGEST)
}

/// A timer that is created when it is first needed.
#[derive(Default)]
pub(crate) struct LazyTimer {
    timer: Option<Pin<Box<dyn Timer>>>,
    deadline: Option<Instant>,
}

impl fmt::Debug for LazyTimer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LazyTimer").field("deadline", &self.deadline).finish_non_exhaustive()
    }
}

impl LazyTimer {
    /// Returns the deadline of the last [`Self::poll`].
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Polls for `deadline`: ready once it is reached; never ready if there is none.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        runtime: &Arc<dyn Runtime>,
        deadline: Option<Instant>,
    ) -> Poll<()> {
        let Some(deadline) = deadline else { return Poll::Pending };
        let timer = match &mut self.timer {
            Some(timer) => {
                if self.deadline != Some(deadline) {
                    timer.as_mut().reset(deadline);
                }
                timer
            }
            None => self.timer.insert(runtime.timer(deadline)),
        };
        self.deadline = Some(deadline);
        timer.as_mut().poll(cx)
    }
}
