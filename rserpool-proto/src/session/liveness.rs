//! Detection of elements whose program does not respond, by heartbeats on the control channel.
//!
//! A connection shows only that the kernel of the other host works. So a session that receives
//! nothing for a while sends a heartbeat, which the element's program has to answer. Elements of
//! other implementations do not answer heartbeats. While the application waits for an answer of
//! such an element, the session asks the registrar whether the element is still in the pool,
//! because the registrar's keep-alives detect a program that hangs. Otherwise, the session relies
//! on the failure detection of the transport.

use std::time::{Duration, Instant};

use super::SessionConfig;

/// The maximum time that the application waits for an answer before the session sends a heartbeat.
/// Not from the RFCs: with the timeout of at most 2 s, the session detects a hanging program in
/// less than 3 s.
const SOON: Duration = Duration::from_millis(300);

/// The intervals of heartbeats.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    /// The time without a message until a heartbeat is sent.
    idle: Duration,
    /// The time without a message until a heartbeat is sent, while the application waits for an
    /// answer.
    expecting: Duration,
    /// The time that the element has to respond.
    timeout: Duration,
}

impl Times {
    pub(super) fn new(config: &SessionConfig) -> Self {
        let idle = config.heartbeat;
        Self { idle, expecting: SOON.min(idle), timeout: config.heartbeat_timeout() }
    }
}

/// The liveness of the element that serves a session.
#[derive(Debug, Clone, Copy)]
pub(super) struct Liveness {
    /// True if the element has answered a heartbeat.
    answers: bool,
    last_heard: Instant,
    /// The time at which the application sent a message, if nothing was received since.
    expecting_since: Option<Instant>,
    /// The time until which the element has to respond to a heartbeat.
    deadline: Option<Instant>,
    /// True if the registrar was asked about the element.
    inquires: bool,
    /// True if the registrar then said that there is no such pool.
    is_pool_unknown: bool,
}

/// The action to take when the time of [`Liveness::next`] is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Nothing,
    SendHeartbeat,
    /// Ask the registrar whether the element is still in the pool.
    Inquire,
    /// Leave the element, because its program does not respond.
    FailOver,
}

impl Liveness {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            answers: false,
            last_heard: now,
            expecting_since: None,
            deadline: None,
            inquires: false,
            is_pool_unknown: false,
        }
    }

    /// Records that a message from the element was received; `answer` is true if the message
    /// answers a heartbeat.
    pub(super) fn hear(&mut self, now: Instant, answer: bool) {
        self.answers |= answer;
        self.last_heard = now;
        self.deadline = None;
        self.is_pool_unknown = false;
        // The answer to a heartbeat does not show that the element has processed the application's
        // message, so the session keeps waiting for data. But the program responds, so the next
        // heartbeat is due only after an interval.
        self.expecting_since = if answer { self.expecting_since.map(|_| now) } else { None };
    }

    /// Records that the application sent a message.
    pub(super) fn expect(&mut self, now: Instant) {
        self.expecting_since.get_or_insert(now);
    }

    /// Returns the time at which to call [`Self::handle_timeout`].
    pub(super) fn next(&self, times: &Times) -> Option<Instant> {
        if !self.answers {
            return self.expecting_since.map(|since| since + times.expecting + times.timeout);
        }
        let soon = self.expecting_since.map(|since| since + times.expecting);
        let idle = self.last_heard + times.idle;
        Some(self.deadline.unwrap_or(soon.map_or(idle, |soon| soon.min(idle))))
    }

    /// Returns whether an inquiry to the registrar about the element is pending, and clears it.
    pub(super) fn take_inquiry(&mut self) -> bool {
        std::mem::take(&mut self.inquires)
    }

    /// Records that the registrar knows no such pool. Returns whether it said so before, without a
    /// message from the element since: a single answer may be that of a registrar that has just
    /// started.
    pub(super) fn pool_is_unknown(&mut self) -> bool {
        std::mem::replace(&mut self.is_pool_unknown, true)
    }

    pub(super) fn handle_timeout(&mut self, now: Instant, times: &Times) -> Action {
        let Some(due) = self.next(times).filter(|due| *due <= now) else { return Action::Nothing };
        let late = now.duration_since(due);
        if !self.answers {
            self.expecting_since = Some(now);
            self.inquires = true;
            return Action::Inquire;
        }
        match self.deadline {
            // If this program itself was late, the element's answer may still be unread. The
            // element then gets another heartbeat and the full timeout again.
            Some(_) if late < times.timeout => Action::FailOver,
            _ => {
                self.deadline = Some(now + times.timeout);
                Action::SendHeartbeat
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "any instant will do to begin with")]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn times() -> Times {
        Times { idle: MS * 5000, expecting: MS * 300, timeout: MS * 2000 }
    }

    #[test]
    fn the_registrar_is_asked_about_who_never_answers() {
        let now = Instant::now();
        let mut liveness = Liveness::new(now);
        liveness.hear(now, false);
        assert_eq!(liveness.next(&times()), None);
        liveness.expect(now);
        for inquiry in 1..4 {
            let due = now + MS * 2300 * inquiry;
            assert_eq!(liveness.next(&times()), Some(due));
            assert_eq!(liveness.handle_timeout(due, &times()), Action::Inquire);
            assert!(liveness.take_inquiry());
            assert!(!liveness.take_inquiry());
        }
        liveness.hear(now + MS * 8000, false);
        assert_eq!(liveness.next(&times()), None);
    }

    #[test]
    fn silence_is_asked_about_and_then_ends_the_stay() {
        let now = Instant::now();
        let mut liveness = Liveness::new(now);
        liveness.hear(now, true);
        assert_eq!(liveness.next(&times()), Some(now + MS * 5000));
        assert_eq!(liveness.handle_timeout(now + MS * 5000, &times()), Action::SendHeartbeat);
        liveness.hear(now + MS * 5001, true);
        assert_eq!(liveness.next(&times()), Some(now + MS * 10_001));

        liveness.expect(now + MS * 6000);
        assert_eq!(liveness.next(&times()), Some(now + MS * 6300));
        assert_eq!(liveness.handle_timeout(now + MS * 6300, &times()), Action::SendHeartbeat);
        assert_eq!(liveness.next(&times()), Some(now + MS * 8300));
        assert_eq!(liveness.handle_timeout(now + MS * 8300, &times()), Action::FailOver);
    }

    #[test]
    fn the_own_delay_is_not_the_elements() {
        let now = Instant::now();
        let mut liveness = Liveness::new(now);
        liveness.hear(now, true);
        assert_eq!(liveness.handle_timeout(now + MS * 5000, &times()), Action::SendHeartbeat);
        // The program was stopped for a minute.
        assert_eq!(liveness.handle_timeout(now + MS * 65_000, &times()), Action::SendHeartbeat);
        assert_eq!(liveness.next(&times()), Some(now + MS * 67_000));
    }
}
