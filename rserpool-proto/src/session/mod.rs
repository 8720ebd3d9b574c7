//! A pool user's session with a pool: it outlives the elements that serve it (RFC 5352
//! sections 3.5 and 3.8).

mod config;
mod control;

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::user::{ResolveError, ResolveOptions};
use super::{ConnectionEvent, ConnectionId};
use crate::wire::parameter::Cookie;
use crate::wire::{
    PoolElement, PoolElementId, Ppid, TransportAddress, TransportProtocol, TransportUse,
    UserMessage, UserTransport, asap,
};

pub use config::SessionConfig;
pub use control::{Incoming, classify};

/// The most elements of a business card that are remembered. Not from the RFCs.
const MAX_PREFERRED: usize = 64;

/// A session: it resolves the pool, connects to an element, and when that dies reports it and
/// goes on with the next, to which it first gives the last cookie.
#[derive(Debug)]
pub struct Session {
    config: SessionConfig,
    /// The preferred one first.
    protocols: Vec<TransportProtocol>,
    state: State,
    cookie: Option<Bytes>,
    /// The element that served the session last.
    last: Option<PoolElementId>,
    /// Elements of the last resolution.
    known: Vec<PoolElement>,
    /// The elements to fail over to first, as the one that served last recommends it.
    preferred: Vec<PoolElementId>,
    /// Elements that failed since one last served the session.
    failed: Vec<PoolElementId>,
    connections: u64,
    has_misbehaved: bool,
    /// When the session came to be without an element.
    without_since: Option<Instant>,
    timer: Option<Instant>,
    out: VecDeque<Output>,
}

/// The time that an element's program may take to answer after its kernel accepted the connection.
/// Not from the RFCs.
const GREETING_TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "it is large only while connecting")]
enum State {
    Resolving,
    /// The element is gone, and the application is to say when to fail over.
    Suspended,
    /// All elements failed; the pool is resolved again when the timer fires.
    Waiting,
    Connecting {
        connection: ConnectionId,
        element: PoolElement,
        /// Those to try after it.
        rest: VecDeque<PoolElement>,
        /// True if the connection is there, and the element's program has yet to say something: its
        /// kernel accepts connections for one that hangs as well.
        greeted: bool,
    },
    Connected {
        connection: ConnectionId,
        element: PoolElementId,
        since: Instant,
        /// True if it has sent anything: else it may be one that accepts and fails.
        proven: bool,
    },
    Ended,
}

/// Action that a session wants its driver to take, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "drivers handle each")]
pub enum Output {
    /// Resolve the session's pool.
    Resolve(ResolveOptions),
    /// Report that this element is not reachable.
    Report(PoolElementId),
    /// Connect to this address; tell what becomes of it under this name. At most one
    /// connection is open at a time.
    Connect {
        /// The name.
        connection: ConnectionId,
        /// Destination.
        to: TransportAddress,
    },
    /// Send a message.
    Send {
        /// On which connection.
        connection: ConnectionId,
        /// The message.
        message: UserMessage,
    },
    /// Close a connection, of which nothing more is told then.
    Close {
        /// The connection.
        connection: ConnectionId,
        /// True to drop what is not sent yet.
        abort: bool,
    },
    /// Tell the application.
    Event(Event),
}

/// Event of a session, for the application, in the order in which it happened.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The session has its first element.
    Connected(PoolElementId),
    /// A message came.
    Message(UserMessage),
    /// A message was given up: its [`Reliability`](crate::wire::Reliability) had an end, or the
    /// connection has (RFC 5352 section 6.8). It is what the transport still had of it.
    NotDelivered(UserMessage),
    /// The element is gone. What it was sent and did not answer it may have done, or not. Where
    /// failovers are not automatic, the session waits for the application to ask for one.
    FailoverStarted {
        /// The element.
        from: PoolElementId,
    },
    /// Another element serves the session. It has got the last cookie, if there is one, and
    /// nothing else: what was sent before this event and not answered has to be sent again.
    FailoverCompleted {
        /// The element that is gone.
        from: PoolElementId,
        /// The element that serves now; the same, if only the connection was lost.
        to: PoolElementId,
    },
    /// The element closed the session in good order. The last event.
    Closed,
    /// There is no element for the session. The last event.
    Failed(SessionError),
}

/// Why a session is over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// The pool could not be resolved.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// None of the pool's elements accepted a connection for too long.
    #[error("no element of the pool accepts a connection")]
    NoElement,
    /// The element that was chosen is not in the pool, or does not accept a connection.
    #[error("element {0} of the pool cannot be reached")]
    NotReached(PoolElementId),
    /// The pool's elements are served over a transport protocol that is not in use here.
    #[error("the pool is served over {offered}, not over {}", either(.ours))]
    OtherTransport {
        /// The transport of the pool's first element.
        offered: UserTransport,
        /// The protocols that are in use here.
        ours: Vec<TransportProtocol>,
    },
    /// A transport cannot be used at all, for want of descriptors for instance.
    #[error("cannot open an endpoint: {0}")]
    Transport(ErrorKind),
}

fn either(protocols: &[TransportProtocol]) -> String {
    protocols.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ")
}

impl Session {
    /// Returns a session that is not connected yet, over any of `protocols`: the first is preferred,
    /// unless the configuration prefers another.
    #[must_use]
    pub fn new(
        config: SessionConfig,
        protocols: impl IntoIterator<Item = TransportProtocol>,
    ) -> Self {
        let mut protocols: Vec<_> = protocols.into_iter().collect();
        protocols
            .sort_by_key(|protocol| config.preferred_transport.is_some_and(|it| it != *protocol));
        Self {
            config,
            protocols,
            state: State::Resolving,
            cookie: None,
            last: None,
            known: Vec::new(),
            preferred: Vec::new(),
            failed: Vec::new(),
            connections: 0,
            has_misbehaved: false,
            without_since: None,
            timer: None,
            out: VecDeque::new(),
        }
    }

    /// Every input begins with this.
    fn begin(&self) {
        debug_assert!(self.out.is_empty(), "outputs were not drained before the next input");
    }

    /// Begins.
    pub fn start(&mut self, now: Instant) {
        self.begin();
        self.without_since = Some(now);
        let ResolveOptions { items, .. } = self.resolve_options();
        self.out.push_back(Output::Resolve(ResolveOptions { items, max_age: self.config.max_age }));
    }

    /// Returns whether [`Self::send`] would send now.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        matches!(self.state, State::Connected { .. })
    }

    /// The element that serves the session.
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

    /// Returns the interval of the transport's heartbeats, or `None` for the transport's own.
    #[must_use]
    pub fn heartbeat(&self) -> Option<Duration> {
        self.config.heartbeat
    }

    /// The last cookie.
    #[must_use]
    pub fn cookie(&self) -> Option<&Bytes> {
        self.cookie.as_ref()
    }

    /// Forgets the cookie: the next element will not get it.
    pub fn forget_cookie(&mut self) {
        self.cookie = None;
    }

    /// Sends a message to the element that serves the session.
    ///
    /// # Errors
    ///
    /// Gives the message back while there is none.
    pub fn send(&mut self, message: UserMessage) -> Result<(), UserMessage> {
        self.begin();
        let State::Connected { connection, .. } = self.state else { return Err(message) };
        self.out.push_back(Output::Send { connection, message });
        Ok(())
    }

    /// Leaves the element that serves the session for another one, as if it had died, but
    /// without a report: it refuses the work, for instance. Where failovers are not automatic,
    /// this is what a session waits for.
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

    /// Ends the session.
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

    /// The answer to [`Output::Resolve`].
    pub fn handle_resolution(
        &mut self,
        now: Instant,
        result: Result<Vec<PoolElement>, ResolveError>,
    ) {
        self.begin();
        if !matches!(self.state, State::Resolving) {
            return;
        }
        let elements = match result {
            Ok(elements) => elements,
            // A pool that was never there is a mistake; one that is gone may come back, and
            // while no registrar answers, elements may live that were there before.
            Err(ResolveError::UnknownPool(_)) if self.last.is_some() => Vec::new(),
            Err(_) if self.last.is_some() => std::mem::take(&mut self.known),
            Err(error) => return self.fail(error.into()),
        };
        let protocols = &self.protocols;
        let rank = |element: &PoolElement| {
            let address = element.user_transport.address()?;
            protocols.iter().position(|protocol| *protocol == address.protocol)
        };
        let (mut usable, other): (Vec<_>, Vec<_>) =
            elements.into_iter().partition(|element| rank(element).is_some());
        if let (true, Some(other)) = (usable.is_empty(), other.first()) {
            let (offered, ours) = (other.user_transport.clone(), protocols.clone());
            return self.fail(SessionError::OtherTransport { offered, ours });
        }
        usable.sort_by_key(rank);
        self.known.clone_from(&usable);
        if let (Some(chosen), None) = (self.config.element, self.last) {
            usable.retain(|element| element.identifier == chosen);
            if usable.is_empty() {
                return self.fail(SessionError::NotReached(chosen));
            }
        }
        // Those which failed just now come last: they may be alive after all.
        let (failed, mut candidates): (VecDeque<_>, VecDeque<_>) =
            usable.into_iter().partition(|element| self.failed.contains(&element.identifier));
        let place = |element: &PoolElement| {
            let preferred = self.preferred.iter();
            preferred.enumerate().find(|(_, id)| **id == element.identifier).map(|(at, _)| at)
        };
        candidates.make_contiguous().sort_by_key(|element| place(element).unwrap_or(usize::MAX));
        candidates.extend(failed);
        self.try_next(now, candidates);
    }

    fn try_next(&mut self, now: Instant, mut candidates: VecDeque<PoolElement>) {
        if self.without_since.is_some_and(|since| now >= since + self.config.give_up_after) {
            return self.fail(SessionError::NoElement);
        }
        let Some(element) = candidates.pop_front() else { return self.wait(now) };
        self.connections += 1;
        let connection = ConnectionId(self.connections);
        let address = element.user_transport.address().expect("only those are candidates");
        self.out.push_back(Output::Connect { connection, to: address.clone() });
        self.timer = Some(now + self.config.connect_timeout);
        self.state = State::Connecting { connection, element, rest: candidates, greeted: false };
    }

    /// Something happened to the connection.
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
                State::Connected { connection: ours, element, since, proven },
                ConnectionEvent::Lost,
            ) if ours == connection => {
                self.begin_failover(now, since);
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
            (State::Connected { connection: ours, .. }, ConnectionEvent::Closed)
                if ours == connection =>
            {
                self.out.push_back(Output::Event(Event::Closed));
            }
            (state, _) => self.state = state,
        }
    }

    /// The session is without an element from now on, or still, if the last one accepted it and
    /// failed at once.
    fn begin_failover(&mut self, now: Instant, connected_since: Instant) {
        if now >= connected_since + self.config.connect_timeout {
            self.without_since = Some(now);
        }
        self.without_since.get_or_insert(now);
    }

    fn connected(&mut self, now: Instant, connection: ConnectionId, element: &PoolElement) {
        self.timer = None;
        let to = element.identifier;
        self.state = State::Connected { connection, element: to, since: now, proven: false };
        let control = element
            .user_transport
            .address()
            .is_some_and(|address| address.usage == TransportUse::DATA_PLUS_CONTROL);
        if let (true, Some(cookie)) = (control, &self.cookie) {
            // The first message, before any data (RFC 5352 section 3.8).
            let cookie = Cookie(cookie.clone());
            match asap::Message::from(asap::CookieEcho { cookie }).encode() {
                Ok(payload) => {
                    let message = UserMessage::new(Ppid::ASAP, payload);
                    self.out.push_back(Output::Send { connection, message });
                }
                Err(error) => tracing::error!(%error, "a cookie that came cannot be sent"),
            }
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

    /// At a registrar, not from a cache.
    fn resolve_options(&self) -> ResolveOptions {
        // The one that was chosen may be any of the pool.
        let all = self.config.element.filter(|_| self.last.is_none()).map(|_| u32::MAX);
        ResolveOptions { items: all.or(self.config.items), ..ResolveOptions::default() }
    }

    fn fail(&mut self, error: SessionError) {
        self.state = State::Ended;
        self.timer = None;
        self.out.push_back(Output::Event(Event::Failed(error)));
    }

    /// A message came on the connection.
    pub fn handle_message(&mut self, now: Instant, connection: ConnectionId, message: UserMessage) {
        self.begin();
        if let State::Connecting { connection: ours, element, greeted: true, .. } = &self.state
            && *ours == connection
        {
            let element = element.clone();
            self.connected(now, connection, &element);
        }
        let (incoming, answer) = classify(message);
        if matches!(incoming, Incoming::HeartbeatReply) {
            // The program runs, which does not mean that it works.
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
            // In memory of its own, for it may be kept for long.
            Incoming::Cookie(cookie) => self.cookie = Some(Bytes::copy_from_slice(&cookie)),
            Incoming::BusinessCard(card) => {
                let order = card.elements.iter().map(|element| element.identifier);
                self.preferred = order.take(MAX_PREFERRED).collect();
            }
            Incoming::Heartbeat | Incoming::HeartbeatReply => {}
            Incoming::CookieEcho(_) => {
                self.report_misbehavior("a cookie echo, which elements do not send")
            }
            Incoming::Unexpected(reason) => self.report_misbehavior(&reason),
        }
    }

    /// Logs the first thing that an element does wrong; what follows it may repeat.
    fn report_misbehavior(&mut self, reason: &str) {
        if !std::mem::replace(&mut self.has_misbehaved, true) {
            tracing::warn!(reason, "unexpected message on the control channel");
        }
    }

    /// The time that [`Self::poll_timeout`] gave has come.
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
            state @ (State::Resolving
            | State::Suspended
            | State::Connected { .. }
            | State::Ended) => {
                self.state = state;
            }
        }
    }

    /// The next thing to do.
    #[must_use]
    pub fn poll_output(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    /// When to call [`Self::handle_timeout`] next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timer
    }
}

/// Returns the first message to an element whose program has to answer it: over TCP, where elements
/// are of this implementation. Elements over SCTP may be of another, which answers nothing.
fn greeting(element: &PoolElement) -> Option<UserMessage> {
    let address = element.user_transport.address()?;
    let ours = address.protocol == TransportProtocol::Tcp
        && address.usage == TransportUse::DATA_PLUS_CONTROL;
    ours.then(|| control::heartbeat_message(false)).flatten()
}
