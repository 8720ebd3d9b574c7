//! A session as the element that serves it sees it.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use rserpool_proto::session::{Incoming, classify};
use rserpool_proto::wire::asap::BusinessCard;
use rserpool_proto::wire::parameter::Cookie;
use rserpool_proto::wire::{PoolElement, PoolHandle, Ppid, TransportAddress, UserMessage, asap};

use crate::Network;
use crate::log::warn_limited;
use crate::session::data;
use crate::timer::LazyTimer;
use crate::transport::{Connection, Event, SendError};

/// The time that closing may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// The number of messages, none of them for the application, that are read before others run.
const BUDGET: u32 = 256;

/// A session that a pool user opened with this element, or brought here from one that died.
pub struct ElementSession {
    network: Network,
    connection: Box<dyn Connection>,
    /// Message that came before the session was established.
    first: Option<UserMessage>,
    /// Why the session is over, when it is.
    end: Option<End>,
}

#[derive(Debug, Clone, Copy)]
enum End {
    Closed,
    Lost(io::ErrorKind),
}

/// Event of a session, at its element.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ElementEvent {
    /// A message came.
    Message(UserMessage),
    /// The session comes from another element, which left this cookie. It is what the pool
    /// user says that it is: nothing proves it.
    CookieEcho(Bytes),
    /// The pool user is itself an element of a pool, and names others that may go on in its place
    /// (RFC 5352 section 3.9). It is what the pool user says.
    BusinessCard(BusinessCard),
    /// A message of ours was given up: its [`Reliability`](rserpool_proto::wire::Reliability) had an end, or
    /// the connection has (RFC 5352 section 6.8). It is what the transport still had of it.
    NotDelivered(UserMessage),
}

impl fmt::Debug for ElementSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ElementSession").field("peer", self.peer()).finish_non_exhaustive()
    }
}

impl ElementSession {
    /// A session that begins with the message `first`, if that was read already.
    pub(crate) fn new(
        network: Network,
        connection: Box<dyn Connection>,
        first: Option<UserMessage>,
    ) -> Self {
        Self { network, connection, first, end: None }
    }

    /// Returns the address of the pool user.
    #[must_use]
    pub fn peer(&self) -> &TransportAddress {
        self.connection.peer()
    }

    /// Waits for the next event; `None` after the pool user closed the session.
    ///
    /// # Errors
    ///
    /// When the connection to the pool user broke.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost when the future is dropped.
    pub async fn recv(&mut self) -> io::Result<Option<ElementEvent>> {
        poll_fn(|cx| self.poll_recv(cx)).await
    }

    /// As [`Self::recv`], for those who write their own futures.
    ///
    /// # Errors
    ///
    /// When the connection to the pool user broke.
    pub fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<ElementEvent>>> {
        for _ in 0..BUDGET {
            match self.end {
                Some(End::Closed) => return Poll::Ready(Ok(None)),
                Some(End::Lost(kind)) => return Poll::Ready(Err(kind.into())),
                None => {}
            }
            let event = match self.first.take() {
                Some(first) => Event::Message(first),
                None => ready!(self.connection.poll_event(cx)),
            };
            match event {
                Event::Message(message) => {
                    let (incoming, answer) = classify(message);
                    if let Some(answer) = answer {
                        // Who sends so much of it that there is no room is not told.
                        let _ = self.connection.send(answer);
                    }
                    match incoming {
                        Incoming::Data(message) => {
                            return Poll::Ready(Ok(Some(ElementEvent::Message(message))));
                        }
                        Incoming::CookieEcho(cookie) => {
                            return Poll::Ready(Ok(Some(ElementEvent::CookieEcho(cookie))));
                        }
                        Incoming::BusinessCard(card) => {
                            return Poll::Ready(Ok(Some(ElementEvent::BusinessCard(card))));
                        }
                        Incoming::Heartbeat | Incoming::HeartbeatReply => {}
                        Incoming::Cookie(_) => {
                            self.report_misbehavior("a cookie, which users do not send")
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
                    return Poll::Ready(Ok(Some(ElementEvent::NotDelivered(message))));
                }
                Event::Established { .. } => {}
                Event::Closed => self.end = Some(End::Closed),
                Event::Lost(error) => {
                    self.end = Some(End::Lost(error.kind()));
                    return Poll::Ready(Err(error));
                }
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

    /// Sends a message of the application's protocol `ppid`, once there is room.
    ///
    /// # Errors
    ///
    /// When the session is over, the message is too long, or `ppid` is [`Ppid::ASAP`], which is
    /// the control channel's.
    ///
    /// # Cancel safety
    ///
    /// A message whose future is dropped was not sent.
    pub async fn send(&mut self, ppid: Ppid, payload: impl Into<Bytes>) -> Result<(), SendError> {
        self.send_message(UserMessage::new(ppid, payload)).await
    }

    /// As [`Self::send`], for those who choose the stream, or give up order or reliability: as far
    /// as the transport has such things, which SCTP does and TCP does not.
    ///
    /// # Errors
    ///
    /// As with [`Self::send`], or when there is no such stream.
    ///
    /// # Cancel safety
    ///
    /// A message whose future is dropped was not sent.
    pub async fn send_message(&mut self, message: UserMessage) -> Result<(), SendError> {
        self.transmit(data(message)?).await
    }

    /// Leaves state with the pool user, for the element that takes over if this one dies. It
    /// replaces the cookie before. Send it before the reply that makes it true, and no state
    /// that a client has seen is lost.
    ///
    /// # Errors
    ///
    /// When the cookie is longer than 65,527 bytes or the session is over.
    ///
    /// # Cancel safety
    ///
    /// A cookie whose future is dropped was not sent.
    pub async fn send_cookie(&mut self, cookie: impl Into<Bytes>) -> Result<(), SendError> {
        let cookie = cookie.into();
        let length = cookie.len();
        let message = asap::Message::from(asap::Cookie { cookie: Cookie(cookie) });
        let payload = message.encode().map_err(|_| SendError::TooLong { length, limit: 65_527 })?;
        self.transmit(UserMessage::new(Ppid::ASAP, payload)).await
    }

    /// Recommends which elements the pool user should fail over to, the first first: elements of
    /// a resolution of our own pool (RFC 5352 section 3.9). It replaces the one before. A pool
    /// user takes the order for those which the pool still has, and tries them before others.
    /// Not for users of rsplib, which cannot read it.
    ///
    /// # Errors
    ///
    /// When it is longer than a message or the session is over.
    ///
    /// # Cancel safety
    ///
    /// A card whose future is dropped was not sent.
    pub async fn send_business_card(
        &mut self,
        pool_handle: PoolHandle,
        elements: Vec<PoolElement>,
    ) -> Result<(), SendError> {
        let length = elements.len() * 64;
        let message = asap::Message::from(BusinessCard { pool_handle, elements });
        let payload = message.encode().map_err(|_| SendError::TooLong { length, limit: 65_535 })?;
        self.transmit(UserMessage::new(Ppid::ASAP, payload)).await
    }

    async fn transmit(&mut self, message: UserMessage) -> Result<(), SendError> {
        if self.end.is_some() {
            return Err(SendError::NotConnected);
        }
        poll_fn(|cx| self.connection.poll_ready(cx)).await;
        let result = self.connection.send(message);
        // Write at once; what does not go is written with the next call.
        poll_fn(|cx| {
            let _ = self.connection.poll_ready(cx);
            Poll::Ready(())
        })
        .await;
        result
    }

    /// Ends the session in good order: what was sent is written first. The pool user does not
    /// fail over then.
    ///
    /// # Cancel safety
    ///
    /// A session whose future is dropped is aborted, and the pool user fails over.
    pub async fn close(mut self) {
        let deadline = self.network.now() + CLOSE_TIMEOUT;
        let mut timer = LazyTimer::default();
        poll_fn(|cx| {
            if timer.poll(cx, self.network.runtime(), Some(deadline)).is_ready() {
                return Poll::Ready(());
            }
            self.connection.poll_close(cx)
        })
        .await;
    }
}
