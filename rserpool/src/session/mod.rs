//! A pool user's session.

mod drive;
mod trace;

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::channel::{mpsc, oneshot};
use rserpool_proto::access::AccessRules;
use rserpool_proto::session::{self, Event, SessionConfig, SessionError, control_message};
use rserpool_proto::wire::asap::BusinessCard;
use rserpool_proto::wire::{
    EncodeError, PoolElement, PoolElementId, PoolHandle, Ppid, TransportProtocol, UserMessage,
};
use rserpool_proto::{ConnectionId, Identity};

use crate::Network;
use crate::session_error::{SessionClosed, SessionSendError, TrySendError, data};
use crate::split::{self, SessionReceiver, SessionSender};
use crate::timer::LazyTimer;
use crate::transport::{Connection, Endpoint, Purpose, SendError};
use crate::user_task::{Command, Resolution};
use trace::Trace;

/// Maximum number of unread events that a session buffers while it waits to send.
const MAX_EVENTS: usize = 64;

/// Maximum time that closing may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// A session with a pool: exchanges messages with one of its elements, and with another element
/// after the first one crashes.
///
/// The session makes progress only while one of its methods is awaited. Events are returned in the
/// order in which they happened. Until [`Event::FailoverCompleted`] is received, messages are
/// addressed to the element that failed, and do not reach the new one. So after that event, send
/// again all messages that were sent before it and not answered.
///
/// ```
/// use rserpool::{PoolUser, Ppid, SessionEvent};
/// # use rserpool::{Network, PoolElement, Registrar, RegistrarConfig};
/// # use rserpool::transport::Memory;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let network = Network::new(rserpool_tokio::TokioRuntime::current(), Memory::new());
/// # let registrar = Registrar::start(&network, ["192.0.2.1:3863"], RegistrarConfig::default())?;
/// # let mut element = PoolElement::start(&network, "EchoPool", registrar.local_addresses())?;
/// # element.registered().await?;
/// # tokio::spawn(async move {
/// #     while let Ok(mut session) = element.accept().await {
/// #         tokio::spawn(async move {
/// #             while let Ok(event) = session.recv().await {
/// #                 if let rserpool::ElementEvent::Message(message) = event {
/// #                     let _ = session.send(message.ppid, message.payload).await;
/// #                 }
/// #             }
/// #         });
/// #     }
/// # });
/// let user = PoolUser::new(&network, registrar.local_addresses())?;
/// let mut session = user.open("EchoPool").await?;
/// session.send(Ppid::NONE, "hello").await?;
/// loop {
///     match session.recv().await? {
///         SessionEvent::Message(reply) => break assert_eq!(reply.payload, "hello"),
///         SessionEvent::FailoverCompleted { .. } => session.send(Ppid::NONE, "hello").await?,
///         _ => {}
///     }
/// }
/// session.close().await;
/// # Ok(())
/// # }
/// ```
pub struct Session {
    network: Network,
    machine: session::Session,
    handle: PoolHandle,
    /// The rules on the elements that are believed.
    rules: Arc<AccessRules>,
    user: mpsc::Sender<Command>,
    /// Commands to be sent to the pool user's task.
    commands: VecDeque<Command>,
    resolution: Option<oneshot::Receiver<Resolution>>,
    /// Endpoints to connect from, one for each transport.
    endpoints: Vec<(TransportProtocol, Box<dyn Endpoint>)>,
    connection: Option<(ConnectionId, Box<dyn Connection>)>,
    /// The maximum length of a message on the last connection.
    max_message_size: usize,
    timer: LazyTimer,
    trace: Trace,
    events: VecDeque<Event>,
    /// A message that the [`Sink`] accepted.
    queued: Option<UserMessage>,
    /// The time by which closing has to be done, once it began.
    close_by: Option<Instant>,
    /// The reason for the end of the session, if it is over.
    end: Option<SessionClosed>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("handle", &self.handle)
            .field("element", &self.element())
            .finish_non_exhaustive()
    }
}

impl Session {
    pub(crate) fn new(
        network: &Network,
        user: mpsc::Sender<Command>,
        (handle, rules): (PoolHandle, Arc<AccessRules>),
        config: SessionConfig,
    ) -> Result<Self, SessionError> {
        let endpoints = network.transports().map(|transport| {
            let endpoint = transport.open(network.runtime(), Purpose::Session, None);
            Ok((
                transport.protocol(),
                endpoint.map_err(|error| SessionError::Transport(error.kind()))?,
            ))
        });
        let endpoints = endpoints.collect::<Result<_, SessionError>>()?;
        let mut machine = session::Session::new(config, network.protocols());
        machine.start(network.now());
        let trace = Trace::new(&handle);
        let mut session = Self {
            network: network.clone(),
            machine,
            handle,
            rules,
            user,
            commands: VecDeque::new(),
            resolution: None,
            endpoints,
            connection: None,
            max_message_size: usize::MAX,
            trace,
            timer: LazyTimer::default(),
            events: VecDeque::new(),
            queued: None,
            close_by: None,
            end: None,
        };
        session.drain();
        Ok(session)
    }

    /// Returns the element that serves the session; `None` during a failover.
    #[must_use]
    pub fn element(&self) -> Option<PoolElementId> {
        self.machine.element()
    }

    /// Returns the pool handle.
    #[must_use]
    pub fn pool_handle(&self) -> &PoolHandle {
        &self.handle
    }

    /// Returns the authenticated identity of the element that serves the session; `None` during a
    /// failover, or if the transport does not authenticate. After each failover, the new element is
    /// verified like the first.
    #[must_use]
    pub fn identity(&self) -> Option<Identity> {
        let (_, connection) = self.connection.as_ref().filter(|_| self.machine.is_connected())?;
        connection.identity()
    }

    /// Returns the last cookie that an element sent.
    #[must_use]
    pub fn cookie(&self) -> Option<&Bytes> {
        self.machine.cookie()
    }

    /// Returns whether [`Self::recv`] would return at once.
    #[cfg(feature = "service")]
    pub(crate) fn has_events(&self) -> bool {
        !self.events.is_empty() || self.end.is_some()
    }

    /// Returns whether the serving element has refused the session before. In that case, all other
    /// elements of the pool have refused it, too.
    #[cfg(feature = "service")]
    pub(crate) fn has_refused(&self) -> bool {
        self.machine.has_refused()
    }

    /// Fails over because the serving element refuses the session.
    #[cfg(feature = "service")]
    pub(crate) fn handle_refusal(&mut self) {
        self.machine.handle_refusal(self.now());
        self.drain();
    }

    /// Records that the serving element accepts the session.
    #[cfg(feature = "service")]
    pub(crate) fn handle_acceptance(&mut self) {
        self.machine.handle_acceptance();
    }

    #[cfg(feature = "service")]
    pub(crate) fn max_message_size(&self) -> usize {
        self.max_message_size
    }

    #[cfg(feature = "service")]
    pub(crate) fn runtime(&self) -> &Arc<dyn crate::runtime::Runtime> {
        self.network.runtime()
    }

    #[cfg(feature = "service")]
    pub(crate) fn now(&self) -> Instant {
        self.network.now()
    }

    /// Forgets the cookie, so that the next element does not receive it.
    #[cfg(feature = "service")]
    pub(crate) fn forget_cookie(&mut self) {
        self.machine.forget_cookie();
    }

    /// Waits until the first element serves the session.
    pub(crate) async fn connected(&mut self) -> Result<(), SessionError> {
        poll_fn(|cx| {
            loop {
                if self.machine.is_connected() {
                    return Poll::Ready(Ok(()));
                }
                match &self.end {
                    Some(SessionClosed::Failed(error)) => return Poll::Ready(Err(error.clone())),
                    Some(_) => return Poll::Ready(Err(SessionError::NoElement)),
                    None => ready!(self.drive(cx)),
                }
            }
        })
        .await
    }

    /// Tells the element that this program is itself an element of a pool, and which others may
    /// continue in its place (RFC 5352 section 3.9). After a failover, the card is not sent to the
    /// next element automatically.
    ///
    /// # Errors
    ///
    /// Returns an error if the session is over, or the card is too long for a message.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the card may or may not have been sent.
    pub async fn send_business_card(
        &mut self,
        pool_handle: PoolHandle,
        elements: Vec<PoolElement>,
    ) -> Result<(), SessionSendError> {
        let encoded = control_message(BusinessCard { pool_handle, elements });
        let limit = usize::from(u16::MAX);
        let mut message = Some(
            encoded
                .map_err(|EncodeError::TooLong { length }| SendError::TooLong { length, limit })?,
        );
        poll_fn(|cx| self.poll_send(cx, &mut message)).await
    }

    /// Waits for the next event. Events are returned in the order in which they happened.
    ///
    /// # Errors
    ///
    /// Returns an error if the session is over.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, no event is lost.
    pub async fn recv(&mut self) -> Result<Event, SessionClosed> {
        poll_fn(|cx| self.poll_recv(cx)).await
    }

    /// Polls for the next event, as [`Self::recv`] does.
    ///
    /// # Errors
    ///
    /// Returns an error if the session is over.
    pub fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Event, SessionClosed>> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Poll::Ready(Ok(event));
            }
            if let Some(end) = &self.end {
                return Poll::Ready(Err(end.clone()));
            }
            ready!(self.drive(cx));
        }
    }

    /// Sends a message with the payload protocol identifier `ppid` to the element that serves the
    /// session, once there is room. From the start of a failover until the application has received
    /// [`Event::FailoverCompleted`], the message is dropped at once.
    ///
    /// While this waits, up to 64 events are buffered. If the buffer is full, the session handles
    /// no further events until the application receives some, and this method may have to wait
    /// until then. So a program in which each end sends before it receives should use
    /// [`Self::try_send`], or [`Self::split`] the session.
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
        let mut message = Some(data(message)?);
        poll_fn(|cx| self.poll_send(cx, &mut message)).await
    }

    /// Sends a message if there is room for it now.
    ///
    /// # Errors
    ///
    /// Returns an error, which contains the message, if there is no room. Otherwise, returns an error
    /// in the cases of [`Self::send_message`].
    pub fn try_send(&mut self, message: UserMessage) -> Result<(), TrySendError> {
        let mut message = Some(data(message).map_err(SessionSendError::from)?);
        let mut cx = Context::from_waker(Waker::noop());
        match (self.poll_send(&mut cx, &mut message), message) {
            (Poll::Ready(sent), _) => Ok(sent?),
            (Poll::Pending, Some(message)) => Err(TrySendError::NoRoom(message)),
            (Poll::Pending, None) => Ok(()),
        }
    }

    /// Polls to send a message, as [`Self::send_message`] does. Takes `message` once there is room
    /// for it. Ready at once if it is `None`.
    ///
    /// # Errors
    ///
    /// Returns an error in the cases of [`Self::send_message`].
    pub fn poll_send_message(
        &mut self,
        cx: &mut Context<'_>,
        message: &mut Option<UserMessage>,
    ) -> Poll<Result<(), SessionSendError>> {
        if message.as_ref().is_some_and(|message| message.ppid == Ppid::ASAP) {
            return Poll::Ready(Err(SendError::Reserved.into()));
        }
        match message {
            None => Poll::Ready(Ok(())),
            Some(_) => self.poll_send(cx, message),
        }
    }

    /// Queues a message for [`Self::poll_queued`]. Call this only after [`Self::poll_queued`] was
    /// ready.
    pub(crate) fn queue(&mut self, message: UserMessage) -> Result<(), SessionSendError> {
        self.queued = Some(data(message)?);
        Ok(())
    }

    /// Polls to send the queued message, if there is one.
    pub(crate) fn poll_queued(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), SessionSendError>> {
        let mut message = self.queued.take();
        let polled = self.poll_send_message(cx, &mut message);
        self.queued = message;
        polled
    }

    /// Polls to send a message or control message.
    pub(crate) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        message: &mut Option<UserMessage>,
    ) -> Poll<Result<(), SessionSendError>> {
        loop {
            // Events meanwhile are buffered for `recv`, up to a limit.
            let room = self.events.len() < MAX_EVENTS;
            let waiting = !room || self.drive(cx).is_pending();
            if let Some(end) = &self.end {
                return Poll::Ready(Err(end.clone().into()));
            }
            let unread = |event: &Event| matches!(event, Event::FailoverCompleted { .. });
            if !self.machine.is_connected() || self.events.iter().any(unread) {
                *message = None;
                return Poll::Ready(Ok(()));
            }
            if let Some((_, connection)) = &mut self.connection
                && connection.poll_ready(cx).is_ready()
                && let Some(message) = message.take()
            {
                let result = connection.send(message);
                // Write at once; what cannot be written now is written with the next call.
                let _ = connection.poll_ready(cx);
                match result {
                    Ok(()) => {
                        self.machine.handle_sent(self.network.now());
                        self.arm(cx);
                        return Poll::Ready(Ok(()));
                    }
                    // The connection is lost, which the next event reports. This message is lost
                    // like those sent just before it.
                    Err(SendError::NotConnected | SendError::Full) => return Poll::Ready(Ok(())),
                    Err(error) => return Poll::Ready(Err(error.into())),
                }
            }
            if waiting {
                return Poll::Pending;
            }
        }
    }

    /// Updates the timer after a message was sent, which may have made the deadline earlier. So the
    /// task is woken at the new deadline even if the caller waits for something else next.
    fn arm(&mut self, cx: &mut Context<'_>) {
        let deadline = self.machine.poll_timeout();
        if self.timer.deadline() != deadline
            && self.timer.poll(cx, self.network.runtime(), deadline).is_ready()
        {
            cx.waker().wake_by_ref();
        }
    }

    /// Fails over from the serving element to another one, as if the former had crashed: for
    /// instance because it refuses the work. Where automatic failover is disabled
    /// ([`SessionConfig::automatic_failover`]), a session whose element has failed waits for this
    /// call. The events of a failover follow. If the pool has no other element, the failed one may
    /// serve again.
    pub fn fail_over(&mut self) {
        self.machine.fail_over(self.network.now());
        self.drain();
    }

    /// Closes the session in good order, after all messages are written.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the session is aborted, and the element may miss the last
    /// messages.
    pub async fn close(mut self) {
        poll_fn(|cx| self.poll_close(cx)).await;
    }

    /// Polls to close the session, as [`Self::close`] does. Events that were not received are lost.
    pub fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let deadline = *self.close_by.get_or_insert_with(|| {
            self.machine.close();
            self.events.clear();
            self.end.get_or_insert(SessionClosed::Here);
            self.network.now() + CLOSE_TIMEOUT
        });
        if let Some((_, connection)) = &mut self.connection {
            let late = self.timer.poll(cx, self.network.runtime(), Some(deadline)).is_ready();
            if !late {
                ready!(connection.poll_close(cx));
            }
            self.connection = None;
        }
        Poll::Ready(())
    }

    /// Splits the session into halves, with which one task sends while another receives. The session
    /// makes progress while a method of either half is awaited.
    #[must_use]
    pub fn split(self) -> (SessionSender, SessionReceiver) {
        split::split(self)
    }
}
