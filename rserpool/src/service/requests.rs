//! Sessions of requests and replies, in which each request is answered exactly once.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rserpool_proto::replay::{
    Client, ClientEvent, Frame, InvalidFrame, RefusalReason, RequestNumber,
};
use rserpool_proto::session::{Event, SessionConfig};
use rserpool_proto::wire::{PoolElementId, Ppid, UserMessage};

use crate::cookie::clear_part;
use crate::session::{Session, SessionClosed, SessionSendError};
use crate::transport::SendError;

/// A session of requests and replies with a pool of [`Service`](crate::Service)s. As far as its
/// client and the service's state can tell, each request is done exactly once, even if servers
/// crash. [`proto::replay`](rserpool_proto::replay) explains how.
///
/// There is no such guarantee for other effects of a service, such as a mail that it sends: they
/// may be repeated if the server crashes before its reply is out.
///
/// The session makes progress only while one of its methods is awaited.
///
/// ```
/// use rserpool::{PoolUser, RequestConfig};
/// # use rserpool::cookie::{KeyRing, Seal};
/// # use rserpool::{Bytes, InvalidState, Network, PoolElement, Registrar, RegistrarConfig, Service, ServiceConfig};
/// # use rserpool::transport::Memory;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let network = Network::new(rserpool_tokio::TokioRuntime::current(), Memory::new());
/// # let registrar = Registrar::start(&network, ["192.0.2.1:3863"], RegistrarConfig::default())?;
/// # #[derive(Default)]
/// # struct Echo;
/// # impl Service for Echo {
/// #     async fn handle(&mut self, request: Bytes) -> Bytes { request }
/// #     fn save(&self) -> Vec<u8> { Vec::new() }
/// #     fn restore(&mut self, _: &[u8]) -> Result<(), InvalidState> { Ok(()) }
/// # }
/// # let element = PoolElement::start(&network, "EchoPool", registrar.local_addresses())?;
/// # element.registered().await?;
/// # let config = ServiceConfig::new(Seal::new("EchoPool".parse()?, KeyRing::generate()));
/// # let grace = std::time::Duration::from_secs(1);
/// # tokio::spawn(element.serve(config, Echo::default, std::future::pending::<()>(), grace));
/// let user = PoolUser::new(&network, registrar.local_addresses())?;
/// let mut session = user.open_requests("EchoPool", RequestConfig::default()).await?;
/// assert_eq!(session.request("hello").await?, "hello");
/// session.close().await;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct RequestSession {
    session: Session,
    client: Client,
    ppid: Ppid,
    starts_afresh: bool,
    limit: usize,
    to_send: VecDeque<Bytes>,
    events: VecDeque<RequestEvent>,
    /// The error with which the requests ended the session; `None` while it lasts, or if the
    /// underlying session reports its own end.
    over: Option<RequestError>,
    /// The time at which a server first refused the session, since one last answered a request.
    refused_since: Option<Instant>,
}

/// Time for which the session tries other servers after a refusal. Not from the RFCs: a server that
/// can continue the session may be about to come back.
const REFUSAL_TIME: Duration = Duration::from_secs(3);

/// Settings of a [`RequestSession`].
#[derive(Debug, Clone)]
pub struct RequestConfig {
    pub(crate) session: SessionConfig,
    ppid: Ppid,
    limit: usize,
    starts_afresh: bool,
}

impl Default for RequestConfig {
    fn default() -> Self {
        Self {
            session: SessionConfig::default(),
            ppid: Ppid::NONE,
            limit: 32,
            starts_afresh: false,
        }
    }
}

impl RequestConfig {
    /// Sets the settings of the underlying session: its heartbeat, for instance, or how long to
    /// look for a server.
    #[must_use]
    pub fn session(mut self, config: SessionConfig) -> Self {
        self.session = config;
        self
    }

    /// Sets the payload protocol identifier of the service. Default: 0, unspecified.
    #[must_use]
    pub fn ppid(mut self, ppid: Ppid) -> Self {
        self.ppid = ppid;
        self
    }

    /// Sets the maximum number of requests without a reply. Default: 32. Not from the RFCs: the
    /// replies to them have to fit a cookie of 65,527 bytes, beside the state of the service.
    #[must_use]
    pub fn limit(mut self, requests: usize) -> Self {
        self.limit = requests.max(1);
        self
    }

    /// Sets whether the session continues with a new state if the servers refuse the old one, for
    /// instance because the checkpoint expired while the client was away. Default: no. Even if
    /// enabled, the session ends if the state is too large, or if the new state is refused before
    /// any reply.
    #[must_use]
    pub fn starts_afresh(mut self, yes: bool) -> Self {
        self.starts_afresh = yes;
        self
    }
}

/// Event of a [`RequestSession`]. Events are returned in the order in which they happened.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum RequestEvent {
    /// The reply to a request. Replies come in the order of the requests.
    Reply {
        /// The number that [`RequestSession::submit`] returned for the request.
        number: RequestNumber,
        /// The reply.
        body: Bytes,
    },
    /// The server failed. The failover is automatic.
    FailoverStarted {
        /// The server that failed.
        from: PoolElementId,
    },
    /// Another server continues the session.
    FailoverCompleted {
        /// The server that failed.
        from: PoolElementId,
        /// The server that continues.
        to: PoolElementId,
    },
    /// The servers refused the state of the session, which starts again with a new one. Unanswered
    /// requests are still answered.
    StartedAfresh {
        /// The reason for the refusal.
        reason: RefusalReason,
        /// Number of requests that were answered before. Their effects on the state are lost.
        forgotten: u64,
    },
}

/// Error of a [`RequestSession`]: the reason for its end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// No server can continue the session.
    #[error(transparent)]
    Session(#[from] SessionClosed),
    /// The servers refuse to continue the session, and it may not start afresh
    /// ([`RequestConfig::starts_afresh`]).
    #[error("the servers refused to continue the session")]
    Refused(#[from] RefusalReason),
    /// The pool's elements do not use the protocol of [`Service`](crate::Service)s.
    #[error("the pool does not offer a replicated service")]
    OtherProtocol(#[from] InvalidFrame),
    /// A request is too long for the transport.
    #[error(transparent)]
    Request(SendError),
    /// The task of the [`RequestClient`](crate::RequestClient) has stopped: its runtime has.
    #[error("the client's task has stopped")]
    Stopped,
}

/// Error of [`RequestSession::submit`]. The request was not accepted, and is in the error.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SubmitError {
    /// Too many requests wait for their replies, or too many events to be received.
    #[error("too many requests wait for their replies")]
    NoRoom(Bytes),
    /// The request is longer than the messages of the transport.
    #[error("a request of {} bytes is too long: at most {limit} are carried", .request.len())]
    TooLong {
        /// The request.
        request: Bytes,
        /// The maximum length of a request.
        limit: usize,
    },
}

impl RequestSession {
    pub(crate) fn new(session: Session, config: RequestConfig) -> Self {
        let RequestConfig { ppid, limit, starts_afresh, .. } = config;
        Self {
            session,
            client: Client::new(limit),
            ppid,
            starts_afresh,
            limit,
            to_send: VecDeque::new(),
            events: VecDeque::new(),
            over: None,
            refused_since: None,
        }
    }

    /// Returns the server of the session; `None` during a failover.
    #[must_use]
    pub fn element(&self) -> Option<PoolElementId> {
        self.session.element()
    }

    /// Returns the number of requests that are without a reply.
    #[must_use]
    pub fn unanswered(&self) -> usize {
        self.client.unanswered()
    }

    /// Sends a request, and waits for its reply. Other events during the wait are discarded; use
    /// [`Self::submit`] and [`Self::event`] to receive them.
    ///
    /// # Errors
    ///
    /// Returns an error if the session is over, or the request is too long. In the latter case, the
    /// session continues.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped after the request was accepted, the request is still done, at the
    /// latest when the session is used again. [`Self::event`] then returns its reply.
    pub async fn request(&mut self, body: impl Into<Bytes>) -> Result<Bytes, RequestError> {
        let mut body = body.into();
        let ours = loop {
            match self.submit(body) {
                Ok(number) => break number,
                Err(SubmitError::NoRoom(back)) => body = back,
                Err(SubmitError::TooLong { request, limit }) => {
                    let length = request.len();
                    return Err(RequestError::Request(SendError::TooLong { length, limit }));
                }
            }
            self.event().await?;
        };
        loop {
            if let RequestEvent::Reply { number, body } = self.event().await?
                && number == ours
            {
                return Ok(body);
            }
        }
    }

    /// Queues a request, which is sent while [`Self::event`] is awaited. [`Self::event`] also
    /// returns its reply. The service executes requests in the order in which they are submitted.
    ///
    /// # Errors
    ///
    /// Returns an error, which contains the request, if there is no room until a reply is received,
    /// or if the request is too long.
    pub fn submit(&mut self, body: impl Into<Bytes>) -> Result<RequestNumber, SubmitError> {
        let request = body.into();
        let limit = self.session.max_message_size().saturating_sub(Frame::REQUEST_HEADER);
        if request.len() > limit {
            return Err(SubmitError::TooLong { request, limit });
        }
        if self.events.len() >= self.limit {
            return Err(SubmitError::NoRoom(request));
        }
        let (number, message) = self.client.submit(request).map_err(SubmitError::NoRoom)?;
        self.to_send.push_back(message);
        Ok(number)
    }

    /// Waits for the next event.
    ///
    /// # Errors
    ///
    /// Returns an error if the session is over.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, no event is lost.
    pub async fn event(&mut self) -> Result<RequestEvent, RequestError> {
        poll_fn(|cx| self.poll_event(cx)).await
    }

    /// Polls for the next event, as [`Self::event`] does.
    ///
    /// # Errors
    ///
    /// Returns an error if the session is over.
    pub fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Result<RequestEvent, RequestError>> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Poll::Ready(Ok(event));
            }
            if let Some(over) = &self.over {
                return Poll::Ready(Err(over.clone()));
            }
            match self.session.poll_recv(cx) {
                Poll::Ready(Ok(event)) => self.handle_event(event),
                Poll::Ready(Err(closed)) => self.over = Some(closed.into()),
                Poll::Pending if self.poll_write(cx).is_pending() => return Poll::Pending,
                Poll::Pending => {}
            }
        }
    }

    /// Writes the queued messages. Ready when an event happened during the write.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while let Some(payload) = self.to_send.front() {
            let mut message = Some(UserMessage::new(self.ppid, payload.clone()));
            match self.session.poll_send(cx, &mut message) {
                Poll::Ready(Ok(())) => {
                    self.to_send.pop_front();
                }
                Poll::Ready(Err(error)) => {
                    self.over = Some(match error {
                        SessionSendError::Message(error) => RequestError::Request(error),
                        SessionSendError::Closed(closed) => closed.into(),
                    });
                    return Poll::Ready(());
                }
                Poll::Pending => break,
            }
            if self.session.has_events() {
                break;
            }
        }
        if self.session.has_events() { Poll::Ready(()) } else { Poll::Pending }
    }

    fn handle_event(&mut self, event: Event) {
        match event {
            Event::Message(message) if message.ppid == self.ppid => {
                self.handle_message(message.payload);
            }
            Event::FailoverStarted { from } => {
                self.to_send.clear();
                self.events.push_back(RequestEvent::FailoverStarted { from });
            }
            Event::FailoverCompleted { from, to } => {
                self.to_send = self.client.replay().collect();
                self.events.push_back(RequestEvent::FailoverCompleted { from, to });
            }
            Event::Message(_)
            | Event::NotDelivered(_)
            | Event::Connected(_)
            | Event::Closed
            | Event::Failed(_)
            | _ => {}
        }
    }

    fn handle_message(&mut self, payload: Bytes) {
        let clear = self.session.cookie().and_then(clear_part);
        match self.client.handle_message(payload, clear.as_deref()) {
            Ok(ClientEvent::Reply { number, body }) => {
                self.refused_since = None;
                self.session.handle_acceptance();
                self.events.push_back(RequestEvent::Reply { number, body });
            }
            Ok(ClientEvent::Nothing) => {}
            // Another server may accept the checkpoint: this one may have other keys, an older
            // version, or a wrong clock.
            Ok(ClientEvent::Refused(
                reason @ (RefusalReason::CheckpointRefused | RefusalReason::Other(_)),
            )) if self.passes_over(reason) => {}
            Ok(ClientEvent::Refused(reason))
                if self.starts_afresh
                    && reason != RefusalReason::StateTooLarge
                    && self.client.may_start_afresh() =>
            {
                self.session.forget_cookie();
                let forgotten = self.client.start_afresh();
                self.to_send = self.client.replay().collect();
                self.events.push_back(RequestEvent::StartedAfresh { reason, forgotten });
            }
            Ok(ClientEvent::Refused(reason)) => self.over = Some(reason.into()),
            Err(error) => self.over = Some(error.into()),
        }
    }

    /// Fails over from a server that refused the session to another one. Returns false if all
    /// servers have refused it for long enough.
    fn passes_over(&mut self, reason: RefusalReason) -> bool {
        let now = self.session.now();
        let since = *self.refused_since.get_or_insert(now);
        if !self.session.has_refused() {
            let (pool, element) = (self.session.pool_handle(), self.session.element());
            tracing::warn!(%pool, ?element, %reason, "a server refused the session, trying another");
        } else if now >= since + REFUSAL_TIME {
            return false;
        }
        self.to_send.clear();
        self.session.handle_refusal();
        true
    }

    /// Closes the session in good order. Requests without a reply may or may not have been done.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the session is aborted.
    pub async fn close(self) {
        self.session.close().await;
    }
}
