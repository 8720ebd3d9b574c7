//! Requests and replies over a session, each answered exactly once.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::{Context, Poll};

use bytes::Bytes;
use rserpool_proto::replay::{Client, ClientEvent, InvalidFrame, RefusalReason, RequestNumber};
use rserpool_proto::session::{Event, SessionConfig};
use rserpool_proto::wire::{PoolElementId, Ppid, UserMessage};

use crate::cookie::clear_part;
use crate::session::{Session, SessionClosed};
use crate::transport::SendError;

/// A session of requests and replies with a pool of [`Service`](crate::Service)s: each request
/// is done, as far as its client and the service's state can tell, exactly once, whichever of
/// the servers die meanwhile. How is told in [`protocol::replay`](rserpool_proto::replay).
///
/// What is not promised: what a service does beside changing its state and replying, such as a
/// mail that it sends, may happen again when the server dies in between.
///
/// It works while one of its methods is awaited.
#[derive(Debug)]
pub struct RequestSession {
    session: Session,
    client: Client,
    ppid: Ppid,
    starts_afresh: bool,
    limit: usize,
    to_send: VecDeque<Bytes>,
    events: VecDeque<RequestEvent>,
    /// Why the session is over, where that was not the session's own news.
    over: Option<RequestError>,
}

/// The settings of a [`RequestSession`].
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
    /// Sets the settings of the session below: its heartbeat, for instance, or how long to look for a
    /// server.
    #[must_use]
    pub fn session(mut self, config: SessionConfig) -> Self {
        self.session = config;
        self
    }

    /// The payload protocol identifier of the service: 0, no particular one.
    #[must_use]
    pub fn ppid(mut self, ppid: Ppid) -> Self {
        self.ppid = ppid;
        self
    }

    /// The number of requests that may be without a reply at a time: 32, ours. The replies to so
    /// many have to fit a cookie of 65,527 bytes, beside the state of the service.
    #[must_use]
    pub fn limit(mut self, requests: usize) -> Self {
        self.limit = requests.max(1);
        self
    }

    /// Sets whether the session goes on with a new state where the servers do not accept the old
    /// one, for instance because the client was away for so long that the checkpoint expired: no.
    /// It does not where the state is too large, or where the new one is refused before any reply.
    #[must_use]
    pub fn starts_afresh(mut self, yes: bool) -> Self {
        self.starts_afresh = yes;
        self
    }
}

/// Event of a [`RequestSession`], in the order in which it happened.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum RequestEvent {
    /// The reply to a request. Replies come in the order of the requests.
    Reply {
        /// The request's number, returned by [`RequestSession::submit`].
        number: RequestNumber,
        /// The reply.
        body: Bytes,
    },
    /// The server is gone. Nothing is to be done about it.
    FailoverStarted {
        /// The server.
        from: PoolElementId,
    },
    /// Another server goes on.
    FailoverCompleted {
        /// The server that is gone.
        from: PoolElementId,
        /// The server that goes on.
        to: PoolElementId,
    },
    /// The servers did not accept the state of the session; it begins with a new one. What is
    /// not answered will be.
    StartedAfresh {
        /// Why.
        reason: RefusalReason,
        /// The number of requests that were answered before, what they did to the state being lost.
        forgotten: u64,
    },
}

/// Why a [`RequestSession`] is over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// There is no server for it any more.
    #[error(transparent)]
    Session(#[from] SessionClosed),
    /// The servers do not go on with it, and it may not start afresh.
    #[error("the session cannot go on: {0}")]
    Refused(#[from] RefusalReason),
    /// The pool's elements do not speak this protocol.
    #[error("the pool does not offer a replicated service: {0}")]
    OtherProtocol(#[from] InvalidFrame),
    /// A request is longer than the transport carries.
    #[error(transparent)]
    Request(SendError),
}

/// Too many requests wait for their reply, or replies to be received. The request was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("too many requests wait for their replies")]
pub struct NoRoom(
    /// The request.
    pub Bytes,
);

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
        }
    }

    /// The server; none during a failover.
    #[must_use]
    pub fn element(&self) -> Option<PoolElementId> {
        self.session.element()
    }

    /// Returns the number of requests that are without a reply.
    #[must_use]
    pub fn unanswered(&self) -> usize {
        self.client.unanswered()
    }

    /// Sends a request, and waits for its reply. Whatever else happens meanwhile is not told:
    /// that is what [`Self::submit`] and [`Self::event`] are for.
    ///
    /// # Errors
    ///
    /// When the session is over.
    ///
    /// # Cancel safety
    ///
    /// A request whose future is dropped is done all the same, if it was taken: at the latest
    /// when the session is used again, and [`Self::event`] gives its reply then.
    pub async fn request(&mut self, body: impl Into<Bytes>) -> Result<Bytes, RequestError> {
        let mut body = body.into();
        let ours = loop {
            match self.submit(body) {
                Ok(number) => break number,
                Err(NoRoom(back)) => body = back,
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

    /// Takes a request, to be sent while [`Self::event`] is awaited, which also gives its reply.
    /// Requests are done in the order in which they are taken.
    ///
    /// # Errors
    ///
    /// Gives the request back when there is no room: a reply has to be received first.
    pub fn submit(&mut self, body: impl Into<Bytes>) -> Result<RequestNumber, NoRoom> {
        let body = body.into();
        if self.events.len() >= self.limit {
            return Err(NoRoom(body));
        }
        let (number, message) = self.client.submit(body).map_err(NoRoom)?;
        self.to_send.push_back(message);
        Ok(number)
    }

    /// Waits for the next event.
    ///
    /// # Errors
    ///
    /// When the session is over.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost when the future is dropped.
    pub async fn event(&mut self) -> Result<RequestEvent, RequestError> {
        poll_fn(|cx| self.poll_event(cx)).await
    }

    /// As [`Self::event`], for those who write their own futures.
    ///
    /// # Errors
    ///
    /// When the session is over.
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

    /// Writes what is to be sent; ready when something came meanwhile.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while let Some(payload) = self.to_send.front() {
            let mut message = Some(UserMessage::new(self.ppid, payload.clone()));
            match self.session.poll_send(cx, &mut message) {
                Poll::Ready(Ok(())) => {
                    self.to_send.pop_front();
                }
                Poll::Ready(Err(SessionClosed::Message(error))) => {
                    self.over = Some(RequestError::Request(error));
                    return Poll::Ready(());
                }
                Poll::Ready(Err(closed)) => {
                    self.over = Some(closed.into());
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
                self.events.push_back(RequestEvent::Reply { number, body });
            }
            Ok(ClientEvent::Nothing) => {}
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

    /// Ends the session in good order. Requests without a reply may be done or not.
    ///
    /// # Cancel safety
    ///
    /// A session whose future is dropped is aborted.
    pub async fn close(self) {
        self.session.close().await;
    }
}
