//! Deadlines of requests.

use std::time::{Duration, Instant};

/// Limits of the time that a request may take. Default: none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RequestOptions {
    deadline: Option<Duration>,
    fail_over_after: Option<Duration>,
}

impl RequestOptions {
    /// Sets the time after which the request fails if it is not answered, counted from its
    /// submission. A request that waits for room in the session is not submitted yet. A request
    /// that failed at its deadline may be executed nevertheless, and later requests still wait for
    /// it. Default: none.
    #[must_use]
    pub fn deadline(mut self, time: Duration) -> Self {
        self.deadline = Some(time);
        self
    }

    /// Sets the time that one server may take for the request, once the request is sent and all
    /// earlier ones are answered. After that, the session fails over to another server, which
    /// executes the request again. The server that was left counts as one that crashed. At least 1 ms.
    /// Default: no limit, as long as the server responds to heartbeats.
    #[must_use]
    pub fn fail_over_after(mut self, time: Duration) -> Self {
        self.fail_over_after = Some(time.max(Duration::from_millis(1)));
        self
    }
}

/// The deadlines of a submitted request.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Deadlines {
    /// The time at which the request fails.
    pub(super) fails_at: Option<Instant>,
    /// True once the time `fails_at` has passed.
    pub(super) is_over: bool,
    /// The time that one server may take.
    pub(super) at_server: Option<Duration>,
}

impl Deadlines {
    pub(super) fn new(now: Instant, options: RequestOptions) -> Self {
        let fails_at = options.deadline.and_then(|time| now.checked_add(time));
        Self { fails_at, is_over: false, at_server: options.fail_over_after }
    }
}
