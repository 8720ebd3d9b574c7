//! The client's side of checkpoint and replay.

use std::collections::VecDeque;
use std::time::Instant;

use bytes::Bytes;

use super::deadline::Deadlines;
use super::progress::StoredRequest;
use super::server::Reach;
use super::{
    Answer, Epoch, Frame, InvalidFrame, MAX_CHECKPOINT_INTERVAL, Progress, RefusalReason,
    RequestNumber, RequestOptions, WINDOW, window_size,
};

/// The total size of received answers, in bytes, after which the client sends a separate
/// acknowledgement and does not wait for its next request. Not from the RFCs: a quarter of a
/// checkpoint, so that servers need not wait.
const ACKNOWLEDGE_AFTER: usize = 16 * 1024;

/// The settings of a [`Client`].
#[derive(Debug, Clone, Copy)]
#[allow(clippy::exhaustive_structs, reason = "whoever runs a client has to set all of them")]
pub struct ClientConfig {
    /// The maximum number of unanswered requests.
    pub limit: usize,
    /// The number of servers, at least 1, that may crash while they execute a request. After that,
    /// the request fails.
    pub max_crashes: u32,
}

/// The client's side of a session with checkpoint and replay. It keeps the requests that may have
/// to be sent again, and drops repeated answers.
#[derive(Debug)]
pub struct Client {
    config: ClientConfig,
    epoch: Epoch,
    /// The requests that may have to be sent again, in order and without gaps.
    kept: VecDeque<Kept>,
    /// The number of the next request.
    next: u64,
    /// The number of the last answered request. Requests are answered in order.
    acknowledged: u64,
    /// The number of requests that were answered in earlier epochs, before the session last started
    /// afresh. It is added to the request numbers of the present epoch to obtain those that the
    /// application sees.
    before: u64,
    /// The connection to the present server; `None` during a failover.
    stay: Option<Stay>,
    /// True if the present server took longer for a request than the options of the request allow.
    is_late: bool,
    /// True if a request with a deadline was submitted.
    has_deadlines: bool,
    events: VecDeque<ClientEvent>,
}

#[derive(Debug)]
struct Kept {
    body: Bytes,
    deadlines: Deadlines,
    /// The number of servers that crashed while they executed the request.
    crashes: u32,
    /// True if a server crashed after the request was sent to it, so that the next one has to
    /// announce the execution.
    suspect: bool,
}

/// The connection to the present server: the requests sent to it, and the answers received.
#[derive(Debug)]
struct Stay {
    /// The number of the last request that was sent.
    sent: u64,
    /// The number of the last request that was answered.
    answered: u64,
    /// The size of the requests after `answered`, up to `sent`.
    in_flight: usize,
    /// The request whose execution the server announced last.
    begun: Option<u64>,
    /// The size of the answers since the last acknowledgement.
    unacknowledged: usize,
    /// True if an acknowledgement is to be sent.
    acknowledge: bool,
    /// The time since which the server has been working on the oldest unanswered request.
    working_since: Instant,
}

/// Event of a [`Client`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "whoever runs a client has to do each of them")]
pub enum ClientEvent {
    /// The first answer to this request.
    Answer {
        /// The request's number, returned by [`Client::submit`].
        number: RequestNumber,
        /// The answer.
        answer: Answer,
    },
    /// The deadline of this request has passed ([`RequestOptions::deadline`]). Its answer will be
    /// [`Self::AnsweredLate`].
    DeadlinePassed(RequestNumber),
    /// The server answered this request after its deadline. There may be room for another request.
    AnsweredLate(RequestNumber),
    /// The server refuses to continue this epoch of the session.
    Refused(RefusalReason),
    /// The server takes longer for a request than [`RequestOptions::fail_over_after`] allows. The
    /// session has to fail over to another server.
    FailOver,
}

impl Client {
    /// Creates the client's side of a new session.
    #[must_use]
    pub fn new(config: ClientConfig) -> Self {
        Self {
            config: ClientConfig { limit: config.limit.max(1), ..config },
            epoch: Epoch(1),
            kept: VecDeque::new(),
            next: 1,
            acknowledged: 0,
            before: 0,
            stay: None,
            is_late: false,
            has_deadlines: false,
            events: VecDeque::new(),
        }
    }

    /// Returns whether another request can be submitted: fewer requests than the limit are
    /// unanswered, and at most [`MAX_CHECKPOINT_INTERVAL`] answered ones are kept. The client keeps
    /// answered requests because a server's checkpoint may lag by that number.
    #[must_use]
    pub fn has_room(&self) -> bool {
        let answered = self.kept.len() - self.unanswered();
        self.unanswered() < self.config.limit && answered <= MAX_CHECKPOINT_INTERVAL as usize
    }

    /// Returns the number of requests that are not answered.
    #[must_use]
    pub fn unanswered(&self) -> usize {
        (self.next - 1 - self.acknowledged) as usize
    }

    /// Submits a request, which [`Self::poll_message`] returns for sending. Returns its number.
    /// Numbers start at 1 and count on for the whole session, also when the session starts afresh.
    ///
    /// # Errors
    ///
    /// Returns the body as the error if [`Self::has_room`] is false.
    pub fn submit(
        &mut self,
        now: Instant,
        body: Bytes,
        options: RequestOptions,
    ) -> Result<RequestNumber, Bytes> {
        if !self.has_room() {
            return Err(body);
        }
        let number = self.next;
        self.next += 1;
        let deadlines = Deadlines::new(now, options);
        self.has_deadlines |= options != RequestOptions::default();
        self.kept.push_back(Kept { body, deadlines, crashes: 0, suspect: false });
        Ok(self.outside(number))
    }

    fn outside(&self, number: u64) -> RequestNumber {
        RequestNumber(self.before + number)
    }

    /// Returns the number of the first request that is kept.
    fn first(&self) -> u64 {
        self.next - self.kept.len() as u64
    }

    fn find(&self, number: u64) -> Option<&Kept> {
        let index = number.checked_sub(self.first())?;
        self.kept.get(usize::try_from(index).ok()?)
    }

    /// Records that a server serves the session, and has received the session's cookie if there is
    /// one. `checkpoint` is the unencrypted part of the cookie. All kept requests are sent to the
    /// server.
    pub fn handle_connected(&mut self, now: Instant, checkpoint: Option<&[u8]>) {
        self.forget(checkpoint);
        let before = self.first() - 1;
        self.is_late = false;
        self.stay = Some(Stay {
            sent: before,
            answered: before,
            in_flight: 0,
            begun: None,
            unacknowledged: 0,
            acknowledge: false,
            working_since: now,
        });
    }

    /// Records that the server was lost, or was left because it was late
    /// ([`RequestOptions::fail_over_after`]). Counts a crash for the request that the server was
    /// executing.
    pub fn handle_lost(&mut self) {
        let Some(stay) = self.stay.take() else { return };
        let (first, oldest) = (self.first(), self.acknowledged + 1);
        // A server announces the execution of requests that are already suspected. Without an
        // announcement, the oldest unanswered request is the most likely cause.
        let begun = stay.begun.filter(|begun| *begun > stay.answered);
        for (number, kept) in (first..=stay.sent).zip(&mut self.kept) {
            let executed = match (begun, kept.suspect) {
                (Some(begun), _) => number == begun,
                (None, true) => false,
                (None, false) => number == oldest,
            };
            kept.crashes = kept.crashes.saturating_add(u32::from(executed && number >= oldest));
            kept.suspect = true;
        }
    }

    /// Records that the server was left for a reason that has nothing to do with a request.
    pub fn handle_left(&mut self) {
        match std::mem::take(&mut self.is_late) {
            true => self.handle_lost(),
            false => self.stay = None,
        }
    }

    /// Returns the next message for the server. Returns `None` if there is nothing to send now.
    pub fn poll_message(&mut self, now: Instant) -> Option<Bytes> {
        let stay = self.stay.as_ref()?;
        let (acknowledge, number, in_flight) = (stay.acknowledge, stay.sent + 1, stay.in_flight);
        let acknowledged = RequestNumber(self.acknowledged);
        let epoch = self.epoch;
        let next = self.find(number);
        let size = next.map_or(0, |kept| window_size(kept.body.len()));
        let Some(kept) = next.filter(|_| in_flight == 0 || in_flight + size <= WINDOW) else {
            if !acknowledge {
                return None;
            }
            self.acknowledged_by_message();
            return Some(Frame::Acknowledgement { epoch, acknowledged }.encode());
        };
        let number = RequestNumber(number);
        let message = if number.0 > self.acknowledged
            && (self.is_abandoned(kept) || kept.deadlines.is_over)
        {
            let servers = kept.crashes;
            Frame::Abandonment { epoch, number, acknowledged, servers }
        } else {
            let (announce, body) = (kept.suspect, kept.body.clone());
            Frame::Request { epoch, number, acknowledged, announce, body }
        };
        self.acknowledged_by_message();
        if let Some(stay) = &mut self.stay {
            if stay.in_flight == 0 {
                stay.working_since = now;
            }
            stay.sent += 1;
            stay.in_flight += size;
        }
        Some(message.encode())
    }

    /// Returns whether servers are to fail an unanswered request instead of executing it.
    fn is_abandoned(&self, kept: &Kept) -> bool {
        kept.crashes >= self.config.max_crashes
    }

    fn acknowledged_by_message(&mut self) {
        if let Some(stay) = &mut self.stay {
            stay.acknowledge = false;
            stay.unacknowledged = 0;
        }
    }

    /// Handles a message from the server. `checkpoint` is the unencrypted part of the session's
    /// last cookie.
    ///
    /// # Errors
    ///
    /// Returns an error if the message is not one that servers send.
    pub fn handle_message(
        &mut self,
        now: Instant,
        message: Bytes,
        checkpoint: Option<&[u8]>,
    ) -> Result<(), InvalidFrame> {
        match Frame::decode(message)? {
            Frame::Answer { epoch, number, answer } if epoch == self.epoch => {
                self.handle_answer(now, number.0, answer, checkpoint);
            }
            Frame::Begun { epoch, number } if epoch == self.epoch => {
                if let Some(stay) = &mut self.stay {
                    stay.begun = Some(number.0);
                }
            }
            Frame::Solicitation { epoch } if epoch == self.epoch => {
                if let Some(stay) = &mut self.stay {
                    stay.acknowledge = true;
                }
            }
            Frame::Refusal { epoch, reason } if epoch == self.epoch => {
                self.events.push_back(ClientEvent::Refused(reason));
            }
            Frame::Answer { .. }
            | Frame::Begun { .. }
            | Frame::Solicitation { .. }
            | Frame::Refusal { .. } => {}
            Frame::Request { .. } | Frame::Abandonment { .. } | Frame::Acknowledgement { .. } => {
                return Err(InvalidFrame);
            }
        }
        Ok(())
    }

    fn handle_answer(
        &mut self,
        now: Instant,
        number: u64,
        answer: Answer,
        checkpoint: Option<&[u8]>,
    ) {
        self.leave_window(now, number, &answer);
        // Servers answer in order, so any other answer is a repeated one, or comes from a faulty
        // server.
        let is_next = number == self.acknowledged + 1;
        let Some(kept) = self.find(number).filter(|_| is_next) else { return };
        let is_given_up = kept.deadlines.is_over;
        self.acknowledged = number;
        let number = self.outside(number);
        self.forget(checkpoint);
        self.events.push_back(match is_given_up {
            true => ClientEvent::AnsweredLate(number),
            false => ClientEvent::Answer { number, answer },
        });
    }

    /// Takes the requests up to `number` out of the window, since the server executes requests in
    /// order.
    fn leave_window(&mut self, now: Instant, number: u64, answer: &Answer) {
        let has_unanswered = self.unanswered() > 1;
        let Some(mut stay) = self.stay.take() else { return };
        if number > stay.answered && number <= stay.sent {
            for left in stay.answered + 1..=number {
                let size = self.find(left).map_or(0, |kept| window_size(kept.body.len()));
                stay.in_flight = stay.in_flight.saturating_sub(size);
            }
            stay.answered = number;
            stay.working_since = now;
            stay.unacknowledged += answer.size();
            stay.acknowledge |= has_unanswered && stay.unacknowledged >= ACKNOWLEDGE_AFTER;
        }
        self.stay = Some(stay);
    }

    /// Forgets the answered requests that the checkpoint includes.
    fn forget(&mut self, checkpoint: Option<&[u8]>) {
        let held = checkpoint
            .and_then(Reach::decode)
            .filter(|reach| reach.epoch == self.epoch)
            .map_or(0, |reach| reach.number.0);
        while self.first() <= held.min(self.acknowledged) && self.kept.pop_front().is_some() {}
    }

    /// Returns the time at which to call [`Self::handle_timeout`].
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        if !self.has_deadlines {
            return None;
        }
        let answered = self.kept.len() - self.unanswered();
        let fails = self.kept.iter().skip(answered).filter(|kept| !kept.deadlines.is_over);
        let fails = fails.filter_map(|kept| kept.deadlines.fails_at).min();
        fails.into_iter().chain(self.late_at()).min()
    }

    /// Handles the timeout of [`Self::poll_timeout`].
    pub fn handle_timeout(&mut self, now: Instant) {
        let answered = self.kept.len() - self.unanswered();
        for (number, kept) in (self.acknowledged + 1..).zip(self.kept.iter_mut().skip(answered)) {
            let is_due = kept.deadlines.fails_at.is_some_and(|time| now >= time);
            if is_due && !std::mem::replace(&mut kept.deadlines.is_over, true) {
                let number = RequestNumber(self.before + number);
                self.events.push_back(ClientEvent::DeadlinePassed(number));
            }
        }
        if self.late_at().is_some_and(|time| now >= time) {
            self.is_late = true;
            self.events.push_back(ClientEvent::FailOver);
        }
    }

    /// Returns the time at which the server takes too long for the oldest unanswered request, if that
    /// was sent.
    fn late_at(&self) -> Option<Instant> {
        let stay = self.stay.as_ref().filter(|_| !self.is_late)?;
        let oldest = self.find(self.acknowledged + 1)?;
        if self.acknowledged >= stay.sent || self.is_abandoned(oldest) {
            return None;
        }
        stay.working_since.checked_add(oldest.deadlines.at_server?)
    }

    /// Returns the next event.
    pub fn poll_event(&mut self) -> Option<ClientEvent> {
        self.events.pop_front()
    }

    /// Returns whether the client may begin another epoch, in which the session starts afresh. It
    /// may not if the present epoch is already a fresh start in which no request was answered.
    #[must_use]
    pub fn may_start_afresh(&self) -> bool {
        self.epoch == Epoch(1) || self.acknowledged > 0
    }

    /// Begins another epoch of the session, in which no request has been executed, and sends all
    /// unanswered requests again. Returns the number of requests that were answered before, whose
    /// effects are lost.
    pub fn start_afresh(&mut self, now: Instant) -> u64 {
        let answered = self.before + self.acknowledged;
        self.kept.drain(..self.kept.len() - self.unanswered());
        self.epoch = Epoch(self.epoch.0.wrapping_add(1));
        self.before = answered;
        self.next = 1 + self.kept.len() as u64;
        self.acknowledged = 0;
        if self.stay.is_some() {
            self.handle_connected(now, None);
        }
        answered
    }

    /// Returns the session's progress, with the requests that may have to be sent again.
    #[must_use]
    pub fn progress(&self) -> Progress {
        let request =
            |kept: &Kept| StoredRequest { body: kept.body.clone(), crashes: kept.crashes };
        Progress {
            epoch: self.epoch,
            before: self.before,
            first: self.first(),
            acknowledged: self.acknowledged,
            requests: self.kept.iter().map(request).collect(),
        }
    }

    /// Creates the client's side of a session that another client began. Its requests have no
    /// deadlines any more.
    #[must_use]
    pub fn resume(config: ClientConfig, progress: Progress) -> Self {
        let Progress { epoch, before, first, acknowledged, requests } = progress;
        let next = first + requests.len() as u64;
        let kept = requests.into_iter().map(|StoredRequest { body, crashes }| Kept {
            body,
            deadlines: Deadlines::default(),
            crashes,
            // The session's last server may have crashed.
            suspect: true,
        });
        let kept = kept.collect();
        Self { epoch, before, next, kept, acknowledged, ..Self::new(config) }
    }
}
