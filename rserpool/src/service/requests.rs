//! Sessions of requests and replies, in which each request is answered exactly once.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rserpool_proto::replay::{
    Answer, Client, ClientConfig, ClientEvent, Frame, InvalidFrame, RefusalReason, RequestFailure,
    RequestNumber, RequestOptions,
};
use rserpool_proto::session::{Event, SessionConfig};
use rserpool_proto::wire::{PoolElementId, Ppid, UserMessage};
use tracing::field::Empty;
use tracing::{Instrument, Span};

use super::checkpoint::Checkpoint;
use crate::cookie::clear_part;
use crate::log::{ANYBODY, warn_limited};
use crate::session::Session;
use crate::session_error::{SessionClosed, SessionSendError};
use crate::timer::LazyTimer;
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
/// #     fn save(&self) -> Result<Vec<u8>, InvalidState> { Ok(Vec::new()) }
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
    options: RequestOptions,
    /// A message of the client that the session had no room for.
    unsent: Option<UserMessage>,
    timer: LazyTimer,
    events: VecDeque<RequestEvent>,
    /// The error with which the requests ended the session; `None` while it lasts, or if the
    /// underlying session reports its own end.
    over: Option<RequestError>,
    /// The time at which a server first refused the session since the last answer to a request;
    /// `None` if no server has refused it since then.
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
    client: ClientConfig,
    options: RequestOptions,
    starts_afresh: bool,
    checkpoint: Option<Checkpoint>,
}

impl Default for RequestConfig {
    fn default() -> Self {
        Self {
            session: SessionConfig::default(),
            ppid: Ppid::NONE,
            client: ClientConfig { limit: 32, max_crashes: 3 },
            options: RequestOptions::default(),
            starts_afresh: false,
            checkpoint: None,
        }
    }
}

impl RequestConfig {
    /// Sets the settings of the underlying session: its heartbeat, for instance, or how long to
    /// look for a server.
    #[must_use]
    pub fn session(mut self, config: SessionConfig) -> Self {
        let cookie = self.checkpoint.as_ref().and_then(|checkpoint| checkpoint.cookie.clone());
        self.session = config.cookie(cookie);
        self
    }

    /// Sets the payload protocol identifier of the service. It must be that of
    /// [`ServiceConfig::ppid`](crate::ServiceConfig::ppid): servers ignore other messages, and log
    /// them. Default: 0, unspecified.
    #[must_use]
    pub fn ppid(mut self, ppid: Ppid) -> Self {
        self.ppid = ppid;
        self
    }

    /// Sets the maximum number of requests without a reply. Default: 32. Not from the RFCs. At most
    /// 256 KiB of them are on their way at a time.
    #[must_use]
    pub fn limit(mut self, requests: usize) -> Self {
        self.client.limit = requests.max(1);
        self
    }

    /// Sets the number of servers that may crash while they execute a request. After that, the
    /// request fails with [`RequestFailure::Crashed`], and the session continues without it.
    /// Default: 3. Not from the RFCs: so that a request that crashes servers does not end the pool.
    ///
    /// With several requests on their way, the first crash counts for the oldest one without a reply,
    /// so that the request may crash one server more. After that, servers announce what they execute.
    #[must_use]
    pub fn max_crashes(mut self, servers: u32) -> Self {
        self.client.max_crashes = servers.max(1);
        self
    }

    /// Sets the options of requests that are submitted without any. Default: no deadlines.
    #[must_use]
    pub fn options(mut self, options: RequestOptions) -> Self {
        self.options = options;
        self
    }

    /// Continues an earlier session from its checkpoint, perhaps in another process. Requests that
    /// were not answered then are sent to the server. Their replies are the first events of a
    /// [`RequestSession`]; a [`RequestClient`](crate::RequestClient) drops them.
    /// Default: a new session.
    #[must_use]
    pub fn resume(mut self, checkpoint: Checkpoint) -> Self {
        self.session = self.session.cookie(checkpoint.cookie.clone());
        self.checkpoint = Some(checkpoint);
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
    /// A request failed. The session continues without it.
    Failed {
        /// The number that [`RequestSession::submit`] returned for the request.
        number: RequestNumber,
        /// The reason.
        failure: RequestFailure,
    },
    /// A request was answered after its deadline had passed. There may be room for another one.
    AnsweredLate {
        /// The number that [`RequestSession::submit`] returned for the request.
        number: RequestNumber,
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

/// Error of a request, or of its [`RequestSession`] as a whole.
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
    /// The request is too long for the transport. The session continues.
    #[error(transparent)]
    Request(SendError),
    /// The request failed. The session continues without it.
    #[error(transparent)]
    Failed(#[from] RequestFailure),
    /// The task of the [`RequestClient`](crate::RequestClient) has stopped, because its runtime has
    /// stopped.
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
        let RequestConfig { ppid, client, options, starts_afresh, checkpoint, .. } = config;
        let limit = client.limit;
        let client = match checkpoint {
            None => Client::new(client),
            Some(checkpoint) => Client::resume(client, checkpoint.progress),
        };
        Self {
            session,
            client,
            ppid,
            starts_afresh,
            limit,
            options,
            unsent: None,
            timer: LazyTimer::default(),
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

    pub(crate) fn options(&self) -> RequestOptions {
        self.options
    }

    /// Returns the checkpoint from which the session can be continued ([`RequestConfig::resume`]),
    /// also after it is over, and in another process. It contains the unanswered requests, and the
    /// state of the service, sealed. For requests to be answered exactly once even if this process
    /// crashes, store the checkpoint after each reply: with an earlier checkpoint, the session
    /// returns to an earlier state.
    #[must_use]
    pub fn checkpoint(&self) -> Checkpoint {
        Checkpoint { cookie: self.session.cookie().cloned(), progress: self.client.progress() }
    }

    /// Sends a request, and waits for its reply. Other events during the wait are discarded; use
    /// [`Self::submit`] and [`Self::event`] to receive them.
    ///
    /// # Errors
    ///
    /// Returns an error if the session is over, or the request is too long or failed. In the latter
    /// cases, the session continues.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped after the request was accepted, the request is still done, at the
    /// latest when the session is used again. [`Self::event`] then returns its reply.
    pub async fn request(&mut self, body: impl Into<Bytes>) -> Result<Bytes, RequestError> {
        self.request_with(body, self.options).await
    }

    /// Sends a request as [`Self::request`] does, with options of its own.
    ///
    /// # Errors
    ///
    /// Returns an error in the cases of [`Self::request`].
    ///
    /// # Cancel safety
    ///
    /// See [`Self::request`].
    pub async fn request_with(
        &mut self,
        body: impl Into<Bytes>,
        options: RequestOptions,
    ) -> Result<Bytes, RequestError> {
        let span =
            tracing::debug_span!("request", pool = %self.session.pool_handle(), number = Empty);
        self.exchange(body.into(), options, &span).instrument(span.clone()).await
    }

    /// Sends a request and waits for its reply, within the span.
    async fn exchange(
        &mut self,
        mut body: Bytes,
        options: RequestOptions,
        span: &Span,
    ) -> Result<Bytes, RequestError> {
        let ours = loop {
            match self.submit_with(body, options) {
                Ok(number) => break number,
                Err(SubmitError::NoRoom(back)) => body = back,
                Err(SubmitError::TooLong { request, limit }) => {
                    let length = request.len();
                    return Err(RequestError::Request(SendError::TooLong { length, limit }));
                }
            }
            self.event().await?;
        };
        span.record("number", ours.0);
        loop {
            match self.event().await? {
                RequestEvent::Reply { number, body } if number == ours => return Ok(body),
                RequestEvent::Failed { number, failure } if number == ours => {
                    return Err(failure.into());
                }
                RequestEvent::Reply { .. }
                | RequestEvent::Failed { .. }
                | RequestEvent::AnsweredLate { .. }
                | RequestEvent::FailoverStarted { .. }
                | RequestEvent::FailoverCompleted { .. }
                | RequestEvent::StartedAfresh { .. } => {}
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
        self.submit_with(body, self.options)
    }

    /// Queues a request as [`Self::submit`] does, with options of its own.
    ///
    /// # Errors
    ///
    /// Returns an error in the cases of [`Self::submit`].
    pub fn submit_with(
        &mut self,
        body: impl Into<Bytes>,
        options: RequestOptions,
    ) -> Result<RequestNumber, SubmitError> {
        let request = body.into();
        let limit = self.session.max_message_size().saturating_sub(Frame::REQUEST_HEADER);
        if request.len() > limit {
            return Err(SubmitError::TooLong { request, limit });
        }
        if self.events.len() >= self.limit {
            return Err(SubmitError::NoRoom(request));
        }
        let now = self.session.now();
        self.client.submit(now, request, options).map_err(SubmitError::NoRoom)
    }

    /// Leaves the server for another one. Unanswered requests are sent again.
    pub fn fail_over(&mut self) {
        self.client.handle_left();
        self.unsent = None;
        self.session.fail_over();
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
            if let Some(event) = self.client.poll_event() {
                self.handle_client_event(event);
                continue;
            }
            match self.session.poll_recv(cx) {
                Poll::Ready(Ok(event)) => self.handle_event(event),
                Poll::Ready(Err(closed)) => self.over = Some(closed.into()),
                Poll::Pending if self.poll_write(cx).is_ready() => {}
                // Check the deadline only after all received data is read, so that a delay of this
                // program does not count against the server.
                Poll::Pending if self.poll_deadline(cx).is_pending() => return Poll::Pending,
                Poll::Pending => {}
            }
        }
    }

    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let deadline = self.client.poll_timeout();
        ready!(self.timer.poll(cx, self.session.runtime(), deadline));
        self.client.handle_timeout(self.session.now());
        Poll::Ready(())
    }

    /// Writes the client's messages. Ready when an event happened during the write.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while !self.session.has_events() {
            if self.unsent.is_none() {
                let next = self.client.poll_message(self.session.now());
                self.unsent = next.map(|payload| UserMessage::new(self.ppid, payload));
            }
            if self.unsent.is_none() {
                return Poll::Pending;
            }
            match self.session.poll_send(cx, &mut self.unsent) {
                // During a failover, the session accepts no message, and drops this one.
                Poll::Ready(Ok(())) => self.unsent = None,
                Poll::Ready(Err(error)) => {
                    self.over = Some(match error {
                        SessionSendError::Message(error) => RequestError::Request(error),
                        SessionSendError::Closed(closed) => closed.into(),
                    });
                    return Poll::Ready(());
                }
                Poll::Pending if self.session.has_events() => break,
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(())
    }

    fn handle_event(&mut self, event: Event) {
        match event {
            Event::Message(message) if message.ppid == self.ppid => {
                self.handle_message(message.payload);
            }
            Event::Connected(_) => self.handle_connected(),
            Event::FailoverStarted { from } => {
                self.client.handle_lost();
                self.unsent = None;
                self.events.push_back(RequestEvent::FailoverStarted { from });
            }
            Event::FailoverCompleted { from, to } => {
                self.handle_connected();
                self.events.push_back(RequestEvent::FailoverCompleted { from, to });
            }
            Event::Message(_) | Event::NotDelivered(_) | Event::Closed | Event::Failed(_) | _ => {}
        }
    }

    fn handle_connected(&mut self) {
        let clear = self.session.cookie().and_then(clear_part);
        self.client.handle_connected(self.session.now(), clear.as_deref());
    }

    fn handle_message(&mut self, payload: Bytes) {
        let clear = self.session.cookie().and_then(clear_part);
        let now = self.session.now();
        if let Err(error) = self.client.handle_message(now, payload, clear.as_deref()) {
            self.over = Some(error.into());
        }
    }

    fn handle_client_event(&mut self, event: ClientEvent) {
        match event {
            ClientEvent::Answer { number, answer } => {
                self.refused_since = None;
                self.session.handle_acceptance();
                self.events.push_back(match answer {
                    Answer::Reply(body) => RequestEvent::Reply { number, body },
                    Answer::Failure(failure) => {
                        let (now, pool) = (self.session.now(), self.session.pool_handle());
                        warn_limited!(
                            now, ANYBODY, "request failed", %pool, number = number.0, %failure
                        );
                        RequestEvent::Failed { number, failure }
                    }
                });
            }
            ClientEvent::DeadlinePassed(number) => {
                let failure = RequestFailure::DeadlinePassed;
                self.events.push_back(RequestEvent::Failed { number, failure });
            }
            ClientEvent::AnsweredLate(number) => {
                self.events.push_back(RequestEvent::AnsweredLate { number });
            }
            ClientEvent::FailOver => self.fail_over(),
            ClientEvent::Refused(reason) => self.handle_refusal(reason),
        }
    }

    fn handle_refusal(&mut self, reason: RefusalReason) {
        if reason.depends_on_server() && self.passes_over(reason) {
            return;
        }
        if self.starts_afresh
            && reason != RefusalReason::StateTooLarge
            && self.client.may_start_afresh()
        {
            self.session.forget_cookie();
            let forgotten = self.client.start_afresh(self.session.now());
            self.unsent = None;
            self.events.push_back(RequestEvent::StartedAfresh { reason, forgotten });
        } else {
            self.over = Some(reason.into());
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
        self.client.handle_left();
        self.unsent = None;
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
