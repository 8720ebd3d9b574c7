//! A session, at the element that serves it.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use rserpool_proto::Identity;
use rserpool_proto::session::{Incoming, classify, control_message};
use rserpool_proto::wire::asap::BusinessCard;
use rserpool_proto::wire::parameter::Cookie;
use rserpool_proto::wire::{PoolElement, PoolHandle, Ppid, TransportAddress, UserMessage, asap};

use crate::Network;
use crate::keeper::{Keeper, Line};
use crate::log::warn_limited;
use crate::session_error::{SessionClosed, SessionSendError, data};
use crate::timer::LazyTimer;
use crate::transport::{Connection, Event, SendError};

/// Maximum time that closing may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Maximum length of a cookie in bytes: what fits a COOKIE message (RFC 5352 section 2.2.13), whose
/// length counts the padding.
pub(crate) const MAX_COOKIE: usize = 65_524;

/// Maximum number of messages in one poll that are not for the application; then other tasks run.
const BUDGET: u32 = 256;

/// A session that a pool user opened with this element, or failed over to it.
///
/// See [`PoolElement`](crate::PoolElement) for an example, and the chapter
/// `guide::sessions` for one with cookies.
pub struct ElementSession {
    network: Network,
    line: Arc<Line>,
    peer: TransportAddress,
    identity: Option<Identity>,
    /// The first message, if it was read before the session was established.
    first: Option<UserMessage>,
    /// The reason for the end of the session, if it is over.
    end: Option<SessionClosed>,
}

/// Event of an [`ElementSession`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ElementEvent {
    /// A message from the pool user.
    Message(UserMessage),
    /// The session failed over from another element, which left this cookie. The cookie is
    /// unauthenticated: a pool user can send anything.
    CookieEcho(Bytes),
    /// The pool user is itself an element of a pool, and names others that may continue in its
    /// place (RFC 5352 section 3.9). Unauthenticated.
    BusinessCard(BusinessCard),
    /// A message sent to the pool user was not delivered: the limit of its
    /// [`Reliability`](rserpool_proto::wire::Reliability) was reached, or the connection was lost
    /// (RFC 5352 section 6.8). Contains the part that the transport still had.
    NotDelivered(UserMessage),
}

impl fmt::Debug for ElementSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ElementSession").field("peer", self.peer()).finish_non_exhaustive()
    }
}

impl ElementSession {
    /// Starts a session with the message `first`, if that was read already.
    pub(crate) fn new(
        network: Network,
        keeper: &Arc<Keeper>,
        connection: Box<dyn Connection>,
        first: Option<UserMessage>,
    ) -> Self {
        keeper.start(&network);
        let (peer, identity) = (connection.peer().clone(), connection.identity());
        let line = Line::new(keeper, connection);
        Self { network, line, peer, identity, first, end: None }
    }

    /// Returns the address of the pool user.
    #[must_use]
    pub fn peer(&self) -> &TransportAddress {
        &self.peer
    }

    /// Returns the authenticated identity of the pool user; `None` if the transport does not
    /// authenticate.
    #[must_use]
    pub fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }

    /// Returns the maximum length of a cookie in bytes.
    #[cfg(feature = "service")]
    pub(crate) fn max_cookie_length(&self) -> usize {
        // A message and a parameter, each with a header of four bytes, and padding.
        self.max_message_size().saturating_sub(8 + 3).min(MAX_COOKIE)
    }

    #[cfg(feature = "service")]
    pub(crate) fn max_message_size(&self) -> usize {
        self.line.connection().max_message_size()
    }

    #[cfg(feature = "service")]
    pub(crate) fn now(&self) -> std::time::Instant {
        self.network.now()
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
    pub async fn recv(&mut self) -> Result<ElementEvent, SessionClosed> {
        poll_fn(|cx| self.poll_recv(cx)).await
    }

    /// Polls for the next event, as [`Self::recv`] does.
    ///
    /// # Errors
    ///
    /// Returns an error if the session is over.
    pub fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<ElementEvent, SessionClosed>> {
        for _ in 0..BUDGET {
            if let Some(end) = &self.end {
                return Poll::Ready(Err(end.clone()));
            }
            let first = &mut self.first;
            let event = self.line.poll(cx, |connection, cx| match first.take() {
                Some(first) => Poll::Ready(Event::Message(first)),
                None => connection.poll_event(cx),
            });
            let event = ready!(event);
            match event {
                Event::Message(message) => {
                    let (incoming, answer) = classify(message);
                    if let Some(answer) = answer {
                        // If there is no room for the answer, the peer does not read its answers,
                        // and this one is dropped.
                        let _ = self.line.connection().send(answer);
                    }
                    match incoming {
                        Incoming::Data(message) => {
                            return Poll::Ready(Ok(ElementEvent::Message(message)));
                        }
                        Incoming::CookieEcho(cookie) => {
                            return Poll::Ready(Ok(ElementEvent::CookieEcho(cookie)));
                        }
                        Incoming::BusinessCard(card) => {
                            return Poll::Ready(Ok(ElementEvent::BusinessCard(card)));
                        }
                        Incoming::Heartbeat => self.line.handle_heartbeat(),
                        Incoming::HeartbeatReply => {}
                        Incoming::Cookie(_) => {
                            self.report_misbehavior("unexpected cookie from a pool user")
                        }
                        Incoming::Unexpected(reason) => self.report_misbehavior(&reason),
                    }
                }
                Event::Path { address, up } => {
                    tracing::info!(peer = %self.peer(), %address, up, "path changed");
                }
                Event::Addresses { local, peer } => {
                    tracing::info!(%local, %peer, "addresses changed");
                }
                Event::SendFailed(message) if message.ppid == Ppid::ASAP => {}
                Event::SendFailed(message) => {
                    return Poll::Ready(Ok(ElementEvent::NotDelivered(message)));
                }
                Event::Established { .. } => {}
                Event::Closed => self.end = Some(SessionClosed::ByPeer),
                Event::Lost(error) => self.end = Some(SessionClosed::Lost(error.kind())),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn report_misbehavior(&self, reason: &str) {
        let now = self.network.now();
        let host = self.peer().host();
        warn_limited!(now, host, "unexpected message on the control channel", reason);
    }

    /// Sends a message with the payload protocol identifier `ppid`, once there is room.
    ///
    /// # Errors
    ///
    /// Returns an error if the session is over, the message is too long, or `ppid` is
    /// [`Ppid::ASAP`], which is reserved for the control channel.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped before it is ready, the message was not sent.
    pub async fn send(
        &mut self,
        ppid: Ppid,
        payload: impl Into<Bytes>,
    ) -> Result<(), SessionSendError> {
        self.send_message(UserMessage::new(ppid, payload)).await
    }

    /// Sends a message like [`Self::send`], with a choice of stream, order and reliability. These
    /// take effect only if the transport supports them: SCTP does, TCP does not.
    ///
    /// # Errors
    ///
    /// Returns an error in the cases of [`Self::send`], or if there is no such stream.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped before it is ready, the message was not sent.
    pub async fn send_message(&mut self, message: UserMessage) -> Result<(), SessionSendError> {
        self.transmit(data(message)?).await
    }

    /// Sends a cookie, which the pool user stores: the state for the element that takes over if
    /// this one crashes. It replaces the previous cookie. Send it before the reply that depends on
    /// it, so that no state that the client has seen is lost.
    ///
    /// # Errors
    ///
    /// Returns an error if the cookie is longer than 65,524 bytes or the session is over.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped before it is ready, the cookie was not sent.
    pub async fn send_cookie(&mut self, cookie: impl Into<Bytes>) -> Result<(), SessionSendError> {
        let cookie = cookie.into();
        let length = cookie.len();
        let message = control_message(asap::Cookie { cookie: Cookie(cookie) })
            .map_err(|_| SendError::TooLong { length, limit: MAX_COOKIE })?;
        self.transmit(message).await
    }

    /// Recommends the elements to which the pool user should fail over, in order of preference (RFC
    /// 5352 section 3.9). `elements` come from a resolution of this element's own pool. The new
    /// card replaces the previous one. A pool user tries those that are still in the pool in this
    /// order, before all others. Do not send it to users of rsplib, which cannot read it.
    ///
    /// # Errors
    ///
    /// Returns an error if the card is too long for a message or the session is over.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped before it is ready, the card was not sent.
    pub async fn send_business_card(
        &mut self,
        pool_handle: PoolHandle,
        elements: Vec<PoolElement>,
    ) -> Result<(), SessionSendError> {
        let length = elements.len() * 64;
        let message = control_message(BusinessCard { pool_handle, elements })
            .map_err(|_| SendError::TooLong { length, limit: 65_535 })?;
        self.transmit(message).await
    }

    async fn transmit(&mut self, message: UserMessage) -> Result<(), SessionSendError> {
        if let Some(end) = &self.end {
            return Err(end.clone().into());
        }
        poll_fn(|cx| self.line.poll_busy(cx, |connection, cx| connection.poll_ready(cx))).await;
        let result = self.line.connection().send(message);
        // Write at once; what cannot be written now is written with the next call.
        poll_fn(|cx| {
            let _ = self.line.poll_busy(cx, |connection, cx| connection.poll_ready(cx));
            Poll::Ready(())
        })
        .await;
        match result {
            // The next event reports that the session is over.
            Err(SendError::NotConnected) => {
                Err(SessionClosed::Lost(io::ErrorKind::NotConnected).into())
            }
            result => Ok(result?),
        }
    }

    /// Closes the session in good order, after all messages are written. The pool user does not
    /// fail over.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the session is aborted, and the pool user fails over.
    pub async fn close(self) {
        let deadline = self.network.now() + CLOSE_TIMEOUT;
        let mut timer = LazyTimer::default();
        poll_fn(|cx| {
            if timer.poll(cx, self.network.runtime(), Some(deadline)).is_ready() {
                return Poll::Ready(());
            }
            self.line.poll_busy(cx, |connection, cx| connection.poll_close(cx))
        })
        .await;
    }
}
