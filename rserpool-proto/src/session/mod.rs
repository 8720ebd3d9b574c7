//! A pool user's session with a pool: it outlives the elements that serve it (RFC 5352
//! sections 3.5 and 3.8).

mod candidates;
mod config;
mod control;
mod event;
mod liveness;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::user::{ResolveError, ResolveOptions};
use super::{ConnectionEvent, ConnectionId};
use crate::wire::parameter::Cookie;
use crate::wire::{PoolElement, PoolElementId, TransportProtocol, TransportUse, UserMessage, asap};

pub use config::SessionConfig;
pub use control::{Incoming, classify, control_message, heartbeat_reply};
pub use event::{Event, Output, SessionError};
use liveness::{Action, Liveness, Times};

/// The maximum number of elements of a business card that are remembered. Not from the RFCs.
const MAX_PREFERRED: usize = 64;

/// A session with a pool. It resolves the pool and connects to an element. When the element fails,
/// the session reports this to the registrar and connects to the next element, to which it first
/// sends the last cookie.
#[derive(Debug)]
pub struct Session {
    config: SessionConfig,
    /// The transport protocols, the preferred one first.
    protocols: Vec<TransportProtocol>,
    state: State,
    cookie: Option<Bytes>,
    /// The element that served the session last.
    last: Option<PoolElementId>,
    /// The elements of the last resolution.
    known: Vec<PoolElement>,
    /// The elements to fail over to first, as recommended by the one that served last.
    preferred: Vec<PoolElementId>,
    /// The elements that failed since the session last received a message from an element.
    failed: Vec<PoolElementId>,
    /// The elements that refused the session since an element last accepted it.
    refused: Vec<PoolElementId>,
    connections: u64,
    has_misbehaved: bool,
    /// The time since which the session has been without an element.
    without_since: Option<Instant>,
    timer: Option<Instant>,
    times: Times,
    out: VecDeque<Output>,
}

/// The time that an element's program may take to answer after its kernel accepted the connection.
/// Not from the RFCs.
const GREETING_TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "it is large only while connecting")]
enum State {
    Resolving,
    /// The element was lost, and the application decides when to fail over.
    Suspended,
    /// All elements failed; the pool is resolved again when the timer fires.
    Waiting,
    Connecting {
        connection: ConnectionId,
        element: PoolElement,
        /// The elements to try if this one fails.
        rest: VecDeque<PoolElement>,
        /// True if the connection is established and the element's program has yet to send a
        /// message. This is checked because a kernel also accepts connections for a program that
        /// hangs.
        greeted: bool,
    },
    Connected {
        connection: ConnectionId,
        element: PoolElementId,
        since: Instant,
        /// True if the element has sent a message other than the answer to a heartbeat. Until then,
        /// it may be an element that accepts connections and then fails.
        proven: bool,
        liveness: Liveness,
    },
    Ended,
}

impl Session {
    /// Creates a session that is not connected yet. It may use any of `protocols`; the first is
    /// preferred, unless the configuration prefers another.
    #[must_use]
    pub fn new(
        config: SessionConfig,
        protocols: impl IntoIterator<Item = TransportProtocol>,
    ) -> Self {
        let mut protocols: Vec<_> = protocols.into_iter().collect();
        protocols
            .sort_by_key(|protocol| config.preferred_transport.is_some_and(|it| it != *protocol));
        Self {
            times: Times::new(&config),
            cookie: config.cookie.clone(),
            config,
            protocols,
            state: State::Resolving,
            last: None,
            known: Vec::new(),
            preferred: Vec::new(),
            failed: Vec::new(),
            refused: Vec::new(),
            connections: 0,
            has_misbehaved: false,
            without_since: None,
            timer: None,
            out: VecDeque::new(),
        }
    }

    /// Checks that the outputs were drained; every input calls it first.
    fn begin(&self) {
        debug_assert!(self.out.is_empty(), "outputs were not drained before the next input");
    }

    /// Starts the session: resolves its pool.
    pub fn start(&mut self, now: Instant) {
        self.begin();
        self.without_since = Some(now);
        let options = self.resolve_options().max_age(self.config.max_age).allow_stale(true);
        self.out.push_back(Output::Resolve(options));
    }

    /// Returns whether an element serves the session, so that [`Self::send`] sends a message.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        matches!(self.state, State::Connected { .. })
    }

    /// Returns the element that serves the session; `None` if there is none at present.
    #[must_use]
    pub fn element(&self) -> Option<PoolElementId> {
        match self.state {
            State::Connected { element, .. } => Some(element),
            State::Resolving
            | State::Suspended
            | State::Waiting
            | State::Connecting { .. }
            | State::Ended => None,
        }
    }

    /// Returns the interval of the transport's heartbeats, or `None` for the transport's default.
    #[must_use]
    pub fn heartbeat(&self) -> Option<Duration> {
        self.config.transport_heartbeat
    }

    /// Returns the last cookie (session state) received from an element, if there is one.
    #[must_use]
    pub fn cookie(&self) -> Option<&Bytes> {
        self.cookie.as_ref()
    }

    /// Forgets the cookie: the next element will not receive it.
    pub fn forget_cookie(&mut self) {
        self.cookie = None;
    }

    /// Sends a message to the element that serves the session.
    ///
    /// # Errors
    ///
    /// Returns the message as the error while no element serves the session.
    pub fn send(&mut self, now: Instant, message: UserMessage) -> Result<(), UserMessage> {
        self.begin();
        let State::Connected { connection, .. } = self.state else { return Err(message) };
        self.out.push_back(Output::Send { connection, message });
        self.handle_sent(now);
        Ok(())
    }

    /// Records that the driver sent a message of the application to the element that serves the
    /// session, without [`Self::send`].
    pub fn handle_sent(&mut self, now: Instant) {
        if let State::Connected { liveness, .. } = &mut self.state {
            liveness.expect(now);
            let next = liveness.next(&self.times);
            self.wake_by(next);
        }
    }

    /// Sets the timer to `next` if that is earlier than its present time. A later time is ignored,
    /// because an unneeded wake-up now and then is cheaper than setting a timer for each message.
    fn wake_by(&mut self, next: Option<Instant>) {
        self.timer = [self.timer, next].into_iter().flatten().min();
    }

    /// Leaves the element that serves the session for another one, for example because the element
    /// refuses a request. Unlike after a failure, the session does not report the element as
    /// unreachable. If failovers are not automatic, this method starts the failover for which the
    /// session waits.
    pub fn fail_over(&mut self, now: Instant) {
        self.begin();
        if matches!(self.state, State::Suspended) {
            self.without_since = Some(now);
            return self.resolve();
        }
        let State::Connected { connection, element, since, .. } = self.state else { return };
        self.begin_failover(now, since);
        self.out.push_back(Output::Close { connection, abort: true });
        self.out.push_back(Output::Event(Event::FailoverStarted { from: element }));
        if !self.failed.contains(&element) {
            self.failed.push(element);
        }
        self.resolve();
    }

    /// Returns whether the element that serves the session has refused the session before. In that
    /// case, all other elements of the pool have refused it, too.
    #[must_use]
    pub fn has_refused(&self) -> bool {
        self.element().is_some_and(|element| self.refused.contains(&element))
    }

    /// Leaves the element that serves the session, because the element refuses the session. The
    /// session tries elements that refused it after all others, and pauses when an element refuses
    /// it for the second time. Refusals count until an element accepts the session (see
    /// [`Self::handle_acceptance`]).
    pub fn handle_refusal(&mut self, now: Instant) {
        self.begin();
        let State::Connected { connection, element, since, .. } = self.state else { return };
        self.begin_failover(now, since);
        self.out.push_back(Output::Close { connection, abort: true });
        self.out.push_back(Output::Event(Event::FailoverStarted { from: element }));
        if self.refused.contains(&element) {
            self.wait(now);
        } else {
            self.refused.push(element);
            self.resolve();
        }
    }

    /// Records that the element accepts the session. Elements that refused the session before are
    /// no longer tried last.
    pub fn handle_acceptance(&mut self) {
        self.refused.clear();
    }

    /// Closes the session.
    pub fn close(&mut self) {
        self.begin();
        match std::mem::replace(&mut self.state, State::Ended) {
            State::Connected { connection, .. } => {
                self.out.push_back(Output::Close { connection, abort: false });
            }
            State::Connecting { connection, .. } => {
                self.out.push_back(Output::Close { connection, abort: true });
            }
            State::Resolving | State::Suspended | State::Waiting | State::Ended => {}
        }
        self.timer = None;
    }

    /// Handles the answer to [`Output::Resolve`].
    pub fn handle_resolution(
        &mut self,
        now: Instant,
        result: Result<Vec<PoolElement>, ResolveError>,
    ) {
        self.begin();
        match &mut self.state {
            State::Resolving => {}
            State::Connected { liveness, .. } => {
                if liveness.take_inquiry() {
                    self.handle_inquiry(now, &result);
                }
                return;
            }
            State::Suspended | State::Waiting | State::Connecting { .. } | State::Ended => return,
        }
        let elements = match result {
            Ok(elements) => elements,
            // If no element has served the session yet, an unknown pool is an error. If one has,
            // the pool may exist again later. While no registrar answers, the elements of the last
            // resolution may still be alive.
            Err(ResolveError::UnknownPool(_)) if self.last.is_some() => Vec::new(),
            Err(_) if self.last.is_some() => std::mem::take(&mut self.known),
            Err(error) => return self.fail(error.into()),
        };
        match self.candidates(elements) {
            Ok(candidates) => self.try_next(now, candidates),
            Err(error) => self.fail(error),
        }
    }

    /// Handles the registrar's answer about an element that has not answered the application. The
    /// session leaves the element if the registrar has others but not this one, or if it has said twice
    /// that there is no such pool.
    fn handle_inquiry(&mut self, now: Instant, result: &Result<Vec<PoolElement>, ResolveError>) {
        let State::Connected { connection, element, since, proven, liveness } = &mut self.state
        else {
            return;
        };
        let (connection, element, since, proven) = (*connection, *element, *since, *proven);
        let is_removed = match result {
            Ok(elements) => {
                !elements.is_empty() && elements.iter().all(|other| other.identifier != element)
            }
            Err(ResolveError::UnknownPool(_)) => liveness.pool_is_unknown(),
            Err(_) => false,
        };
        if is_removed {
            self.out.push_back(Output::Close { connection, abort: true });
            self.lost(now, element, since, proven);
        }
    }

    fn try_next(&mut self, now: Instant, mut candidates: VecDeque<PoolElement>) {
        if self.without_since.is_some_and(|since| now >= since + self.config.give_up_after) {
            return self.fail(SessionError::NoElement);
        }
        let Some(element) = candidates.pop_front() else { return self.wait(now) };
        self.connections += 1;
        let connection = ConnectionId(self.connections);
        let address =
            element.user_transport.address().expect("candidates have a transport address");
        self.out.push_back(Output::Connect { connection, to: address.clone() });
        self.timer = Some(now + self.config.connect_timeout);
        self.state = State::Connecting { connection, element, rest: candidates, greeted: false };
    }

    /// Handles an event of the connection.
    pub fn handle_connection(
        &mut self,
        now: Instant,
        connection: ConnectionId,
        event: &ConnectionEvent,
    ) {
        self.begin();
        match (std::mem::replace(&mut self.state, State::Ended), event) {
            (
                State::Connecting { connection: ours, element, rest, .. },
                ConnectionEvent::Established { .. },
            ) if ours == connection => match greeting(&element) {
                Some(message) => {
                    self.out.push_back(Output::Send { connection, message });
                    self.timer = Some(now + self.config.connect_timeout.min(GREETING_TIMEOUT));
                    self.state = State::Connecting { connection, element, rest, greeted: true };
                }
                None => self.connected(now, connection, &element),
            },
            (
                State::Connecting { connection: ours, element, rest, .. },
                ConnectionEvent::Closed
                | ConnectionEvent::Lost
                | ConnectionEvent::Refused
                | ConnectionEvent::Impossible,
            ) if ours == connection => self.unreachable(now, element.identifier, rest),
            (
                State::Connected { connection: ours, element, since, proven, .. },
                ConnectionEvent::Lost,
            ) if ours == connection => self.lost(now, element, since, proven),
            (State::Connected { connection: ours, .. }, ConnectionEvent::Closed)
                if ours == connection =>
            {
                self.out.push_back(Output::Event(Event::Closed));
            }
            (state, _) => self.state = state,
        }
    }

    /// Fails over from an element that was lost.
    fn lost(&mut self, now: Instant, element: PoolElementId, since: Instant, proven: bool) {
        self.begin_failover(now, since);
        self.timer = None;
        self.out.push_back(Output::Event(Event::FailoverStarted { from: element }));
        self.report(element);
        if !self.config.automatic_failover {
            self.state = State::Suspended;
        } else if proven {
            self.resolve();
        } else {
            self.wait(now);
        }
    }

    /// Records that the session has been without an element since `now`. If the last element was
    /// connected for less than the connect timeout, keeps the start time of the previous failover.
    fn begin_failover(&mut self, now: Instant, connected_since: Instant) {
        if now >= connected_since + self.config.connect_timeout {
            self.without_since = Some(now);
        }
        self.without_since.get_or_insert(now);
    }

    fn connected(&mut self, now: Instant, connection: ConnectionId, element: &PoolElement) {
        self.timer = None;
        let to = element.identifier;
        let liveness = Liveness::new(now);
        self.state =
            State::Connected { connection, element: to, since: now, proven: false, liveness };
        let control = element
            .user_transport
            .address()
            .is_some_and(|address| address.usage == TransportUse::DATA_PLUS_CONTROL);
        if let (true, Some(cookie)) = (control, &self.cookie) {
            // The cookie echo is the first message, before any data (RFC 5352 section 3.8).
            let cookie = Cookie(cookie.clone());
            match control_message(asap::CookieEcho { cookie }) {
                Ok(message) => self.out.push_back(Output::Send { connection, message }),
                Err(error) => tracing::error!(%error, "cannot encode the cookie echo"),
            }
        }
        // Over TCP, the session has already sent a heartbeat to the element as its greeting.
        if control
            && greeting(element).is_none()
            && let Some(message) = control::heartbeat_message(false)
        {
            self.out.push_back(Output::Send { connection, message });
        }
        self.out.push_back(Output::Event(match self.last.replace(to) {
            None => Event::Connected(to),
            Some(from) => Event::FailoverCompleted { from, to },
        }));
    }

    fn unreachable(&mut self, now: Instant, element: PoolElementId, rest: VecDeque<PoolElement>) {
        self.report(element);
        self.try_next(now, rest);
    }

    fn report(&mut self, element: PoolElementId) {
        if !self.failed.contains(&element) {
            self.failed.push(element);
        }
        self.out.push_back(Output::Report(element));
    }

    fn wait(&mut self, now: Instant) {
        self.state = State::Waiting;
        self.timer = Some(now + self.config.retry_delay);
    }

    fn resolve(&mut self) {
        self.timer = None;
        self.state = State::Resolving;
        self.out.push_back(Output::Resolve(self.resolve_options()));
    }

    /// Returns options with which the pool is resolved by a registrar and not from the cache.
    fn resolve_options(&self) -> ResolveOptions {
        // If the configuration sets the first element, a partial answer might not contain it, so
        // the session requests all elements.
        let all = self.config.element.filter(|_| self.last.is_none()).map(|_| u32::MAX);
        let items = all.or(self.config.items);
        ResolveOptions { items, ..ResolveOptions::default() }
    }

    fn fail(&mut self, error: SessionError) {
        self.state = State::Ended;
        self.timer = None;
        self.out.push_back(Output::Event(Event::Failed(error)));
    }

    /// Handles a message received on the connection.
    pub fn handle_message(&mut self, now: Instant, connection: ConnectionId, message: UserMessage) {
        self.begin();
        if let State::Connecting { connection: ours, element, greeted: true, .. } = &self.state
            && *ours == connection
        {
            let element = element.clone();
            self.connected(now, connection, &element);
        }
        let (incoming, answer) = classify(message);
        if let State::Connected { connection: ours, liveness, .. } = &mut self.state
            && *ours == connection
        {
            liveness.hear(now, matches!(incoming, Incoming::HeartbeatReply));
            let next = liveness.next(&self.times);
            self.wake_by(next);
        }
        if matches!(incoming, Incoming::HeartbeatReply) {
            // The answer shows that the element's program responds, but not that its service works.
            return;
        }
        match &mut self.state {
            State::Connected { connection: ours, proven, .. } if *ours == connection => {
                *proven = true;
            }
            State::Connected { .. }
            | State::Resolving
            | State::Suspended
            | State::Waiting
            | State::Connecting { .. }
            | State::Ended => return,
        }
        self.without_since = None;
        self.failed.clear();
        if let Some(message) = answer {
            self.out.push_back(Output::Send { connection, message });
        }
        match incoming {
            Incoming::Data(message) => self.out.push_back(Output::Event(Event::Message(message))),
            // Copies the cookie, because it may be kept for long, and a slice would keep the whole
            // message in memory.
            Incoming::Cookie(cookie) => self.cookie = Some(Bytes::copy_from_slice(&cookie)),
            Incoming::BusinessCard(card) => {
                let order = card.elements.iter().map(|element| element.identifier);
                self.preferred = order.take(MAX_PREFERRED).collect();
            }
            Incoming::Heartbeat | Incoming::HeartbeatReply => {}
            Incoming::CookieEcho(_) => {
                self.report_misbehavior("cookie echo received from an element")
            }
            Incoming::Unexpected(reason) => self.report_misbehavior(&reason),
        }
    }

    /// Logs the first unexpected message of the session. Later ones may repeat it.
    fn report_misbehavior(&mut self, reason: &str) {
        if !std::mem::replace(&mut self.has_misbehaved, true) {
            tracing::warn!(reason, "unexpected message on the control channel");
        }
    }

    /// Handles the timeout of [`Self::poll_timeout`].
    pub fn handle_timeout(&mut self, now: Instant) {
        self.begin();
        if self.timer.is_none_or(|timer| now < timer) {
            return;
        }
        self.timer = None;
        match std::mem::replace(&mut self.state, State::Ended) {
            State::Connecting { connection, element, rest, .. } => {
                self.out.push_back(Output::Close { connection, abort: true });
                self.unreachable(now, element.identifier, rest);
            }
            State::Waiting => self.resolve(),
            State::Connected { connection, element, since, proven, mut liveness } => {
                match liveness.handle_timeout(now, &self.times) {
                    Action::FailOver => {
                        self.out.push_back(Output::Close { connection, abort: true });
                        return self.lost(now, element, since, proven);
                    }
                    Action::SendHeartbeat => {
                        if let Some(message) = control::heartbeat_message(false) {
                            self.out.push_back(Output::Send { connection, message });
                        }
                    }
                    Action::Inquire => {
                        let all =
                            ResolveOptions { items: Some(u32::MAX), ..ResolveOptions::default() };
                        self.out.push_back(Output::Resolve(all));
                    }
                    Action::Nothing => {}
                }
                self.timer = liveness.next(&self.times);
                self.state = State::Connected { connection, element, since, proven, liveness };
            }
            state @ (State::Resolving | State::Suspended | State::Ended) => {
                self.state = state;
            }
        }
    }

    /// Returns the next action for the driver.
    #[must_use]
    pub fn poll_output(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    /// Returns the time at which to call [`Self::handle_timeout`] next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timer
    }
}

/// Returns the heartbeat to send first to an element that must answer it; `None` for other
/// elements. Elements over TCP with a control channel are of this implementation and must answer.
/// Elements over SCTP may be of another implementation, which does not answer.
fn greeting(element: &PoolElement) -> Option<UserMessage> {
    let address = element.user_transport.address()?;
    let ours = address.protocol != TransportProtocol::Sctp
        && address.usage == TransportUse::DATA_PLUS_CONTROL;
    ours.then(|| control::heartbeat_message(false)).flatten()
}
