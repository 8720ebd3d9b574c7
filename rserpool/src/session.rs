//! A pool user's session.

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures::channel::{mpsc, oneshot};
use futures::future::FutureExt;
use rserpool_proto::session::{self, Event, Output, SessionConfig, SessionError};
use rserpool_proto::user::ResolveError;
use rserpool_proto::wire::asap::{self, BusinessCard};
use rserpool_proto::wire::{
    EncodeError, PoolElement, PoolElementId, PoolHandle, Ppid, TransportProtocol, UserMessage,
};
use rserpool_proto::{ConnectionEvent, ConnectionId};

use crate::Network;
use crate::timer::LazyTimer;
use crate::transport::{self, Connection, Endpoint, Purpose, SendError};
use crate::user_task::{Command, Resolution};

/// The number of events a session takes in that are not read yet while it waits to send.
const MAX_EVENTS: usize = 64;

/// The time that closing may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// A session with a pool: messages to and from one of its elements, and from another one when
/// that dies.
///
/// The session works while one of its methods is awaited. Events come in the order in which
/// things happened, and until [`Event::FailoverCompleted`] was received, what the application
/// sends is meant for the element that is gone. So after that event, send again all that was
/// sent before it and not answered; nothing of it reaches the new element otherwise.
pub struct Session {
    network: Network,
    machine: session::Session,
    handle: PoolHandle,
    user: mpsc::Sender<Command>,
    /// Commands that the pool user's task has yet to take.
    commands: VecDeque<Command>,
    resolution: Option<oneshot::Receiver<Resolution>>,
    /// One for each transport.
    endpoints: Vec<(TransportProtocol, Box<dyn Endpoint>)>,
    connection: Option<(ConnectionId, Box<dyn Connection>)>,
    timer: LazyTimer,
    events: VecDeque<Event>,
    /// Why the session is over.
    end: Option<SessionClosed>,
}

/// A session that is over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SessionClosed {
    /// The element ended it in good order.
    #[error("the pool element closed the session")]
    ByElement,
    /// There is no element for it any more.
    #[error(transparent)]
    Failed(#[from] SessionError),
    /// The message is not one that can be sent. The session is not over.
    #[error(transparent)]
    Message(#[from] SendError),
}

/// A message that is not the control channel's.
pub(crate) fn data(message: UserMessage) -> Result<UserMessage, SendError> {
    match message.ppid {
        Ppid::ASAP => Err(SendError::Reserved),
        _ => Ok(message),
    }
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
        handle: PoolHandle,
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
        let mut session = Self {
            network: network.clone(),
            machine,
            handle,
            user,
            commands: VecDeque::new(),
            resolution: None,
            endpoints,
            connection: None,
            timer: LazyTimer::default(),
            events: VecDeque::new(),
            end: None,
        };
        session.drain();
        Ok(session)
    }

    /// The element that serves the session; none during a failover.
    #[must_use]
    pub fn element(&self) -> Option<PoolElementId> {
        self.machine.element()
    }

    /// The pool.
    #[must_use]
    pub fn pool_handle(&self) -> &PoolHandle {
        &self.handle
    }

    /// The last cookie that an element sent.
    #[must_use]
    pub fn cookie(&self) -> Option<&Bytes> {
        self.machine.cookie()
    }

    /// Returns whether [`Self::recv`] has something.
    pub(crate) fn has_events(&self) -> bool {
        !self.events.is_empty() || self.end.is_some()
    }

    /// Forgets the cookie: the next element will not get it.
    pub(crate) fn forget_cookie(&mut self) {
        self.machine.forget_cookie();
    }

    /// Waits for the first element.
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

    /// Tells the element that this program is an element of a pool itself, and which others may go
    /// on in its place (RFC 5352 section 3.9). Where the session fails over, the next element is not
    /// told by itself.
    ///
    /// # Errors
    ///
    /// When the session is over, or the card does not fit a message.
    ///
    /// # Cancel safety
    ///
    /// A dropped future has told it, or not.
    pub async fn send_business_card(
        &mut self,
        pool_handle: PoolHandle,
        elements: Vec<PoolElement>,
    ) -> Result<(), SessionClosed> {
        let encoded = asap::Message::from(BusinessCard { pool_handle, elements }).encode();
        let limit = usize::from(u16::MAX);
        let payload = encoded
            .map_err(|EncodeError::TooLong { length }| SendError::TooLong { length, limit })?;
        let mut message = Some(UserMessage::new(Ppid::ASAP, payload));
        poll_fn(|cx| self.poll_send(cx, &mut message)).await
    }

    /// Waits for the next event, in the order in which they happened.
    ///
    /// # Errors
    ///
    /// When the session is over.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost when the future is dropped.
    pub async fn recv(&mut self) -> Result<Event, SessionClosed> {
        poll_fn(|cx| self.poll_recv(cx)).await
    }

    /// As [`Self::recv`], for those who write their own futures.
    ///
    /// # Errors
    ///
    /// When the session is over.
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

    /// Sends a message of the application's protocol `ppid` to the element that serves the
    /// session, once it has room. During a failover, until the application has received
    /// [`Event::FailoverCompleted`], the message is dropped at once.
    ///
    /// # Errors
    ///
    /// When the session is over, the message is too long, or `ppid` is [`Ppid::ASAP`], which is
    /// the control channel's.
    ///
    /// # Cancel safety
    ///
    /// A message whose future is dropped was not sent.
    pub async fn send(
        &mut self,
        ppid: Ppid,
        payload: impl Into<Bytes>,
    ) -> Result<(), SessionClosed> {
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
    pub async fn send_message(&mut self, message: UserMessage) -> Result<(), SessionClosed> {
        let mut message = Some(data(message)?);
        poll_fn(|cx| self.poll_send(cx, &mut message)).await
    }

    /// As [`Self::send_message`]: takes `message` once there is room for it.
    pub(crate) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        message: &mut Option<UserMessage>,
    ) -> Poll<Result<(), SessionClosed>> {
        loop {
            // What happens meanwhile is kept for `recv`, but not without limit.
            let room = self.events.len() < MAX_EVENTS;
            let waiting = !room || self.drive(cx).is_pending();
            if let Some(end) = &self.end {
                return Poll::Ready(Err(end.clone()));
            }
            let unread = |event: &Event| matches!(event, Event::FailoverCompleted { .. });
            if !self.machine.is_connected() || self.events.iter().any(unread) {
                return Poll::Ready(Ok(()));
            }
            if let Some((_, connection)) = &mut self.connection
                && connection.poll_ready(cx).is_ready()
                && let Some(message) = message.take()
            {
                let result = connection.send(message);
                // Write at once; what does not go is written with the next call.
                let _ = connection.poll_ready(cx);
                match result {
                    Ok(()) => return Poll::Ready(Ok(())),
                    // It is over, which the next event tells; the message shares the fate of
                    // those sent just before.
                    Err(SendError::NotConnected | SendError::Full) => return Poll::Ready(Ok(())),
                    Err(error) => return Poll::Ready(Err(error.into())),
                }
            }
            if waiting {
                return Poll::Pending;
            }
        }
    }

    /// Leaves the element that serves the session for another one, as if it had died: because
    /// it refuses the work, for instance. Where failovers are not automatic
    /// ([`SessionConfig::automatic_failover`]), this is what the session waits for when its
    /// element is gone. The events of a failover follow. With no other
    /// element in the pool, the same one serves again.
    pub fn fail_over(&mut self) {
        self.machine.fail_over(self.network.now());
        self.drain();
    }

    /// Ends the session in good order: what was sent is written first.
    ///
    /// # Cancel safety
    ///
    /// A session whose future is dropped is aborted: the element may miss the last messages.
    pub async fn close(mut self) {
        self.machine.close();
        let Some((_, mut connection)) = self.connection.take() else { return };
        let deadline = self.network.now() + CLOSE_TIMEOUT;
        let mut timer = LazyTimer::default();
        poll_fn(|cx| {
            if timer.poll(cx, self.network.runtime(), Some(deadline)).is_ready() {
                return Poll::Ready(());
            }
            connection.poll_close(cx)
        })
        .await;
    }

    /// Takes in one thing that happened, does what the machine wants done then, and is ready.
    fn drive(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        ready!(self.step(cx));
        self.drain();
        Poll::Ready(())
    }

    fn drain(&mut self) {
        while let Some(output) = self.machine.poll_output() {
            self.perform(output);
        }
    }

    fn step(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while !self.commands.is_empty() && self.user.poll_ready(cx).is_ready() {
            if let Some(command) = self.commands.pop_front() {
                // A pool user that is gone drops the command, and with it the answer's sender.
                let _ = self.user.start_send(command);
            }
        }
        if let Some(resolution) = &mut self.resolution
            && let Poll::Ready(result) = resolution.poll_unpin(cx)
        {
            self.resolution = None;
            let gone = |_| Err(ResolveError::NoRegistrar(Vec::new()));
            self.machine.handle_resolution(self.network.now(), result.unwrap_or_else(gone));
            return Poll::Ready(());
        }
        if let Some((name, connection)) = &mut self.connection
            && let Poll::Ready(event) = connection.poll_event(cx)
        {
            let name = *name;
            self.handle_event(name, event);
            return Poll::Ready(());
        }
        let deadline = self.machine.poll_timeout();
        ready!(self.timer.poll(cx, self.network.runtime(), deadline));
        self.machine.handle_timeout(self.network.now());
        Poll::Ready(())
    }

    fn handle_event(&mut self, name: ConnectionId, event: transport::Event) {
        let now = self.network.now();
        let event = match event {
            transport::Event::Message(message) => {
                return self.machine.handle_message(now, name, message);
            }
            transport::Event::Established { local, peer } => {
                self.set_heartbeat();
                ConnectionEvent::Established { local, peer }
            }
            transport::Event::Path { address, up } => {
                tracing::info!(pool = %self.handle, %address, up, "path changed");
                return;
            }
            transport::Event::Addresses { local, peer } => {
                tracing::info!(pool = %self.handle, %local, %peer, "addresses changed");
                return;
            }
            transport::Event::SendFailed(message) => {
                if message.ppid != Ppid::ASAP {
                    self.events.push_back(Event::NotDelivered(message));
                }
                return;
            }
            transport::Event::Closed => ConnectionEvent::Closed,
            transport::Event::Lost(error) => {
                tracing::debug!(pool = %self.handle, %error, "connection lost");
                ConnectionEvent::Lost
            }
        };
        if !matches!(event, ConnectionEvent::Established { .. }) {
            self.connection = None;
        }
        self.machine.handle_connection(now, name, &event);
    }

    fn set_heartbeat(&mut self) {
        if let (Some(interval), Some((_, connection))) =
            (self.machine.heartbeat(), &mut self.connection)
            && let Err(error) = connection.set_heartbeat(interval)
        {
            tracing::warn!(pool = %self.handle, ?interval, %error, "no such heartbeat");
        }
    }

    fn perform(&mut self, output: Output) {
        match output {
            Output::Resolve(options) => {
                let (answer, wait) = oneshot::channel();
                self.commands.push_back(Command::Resolve(self.handle.clone(), options, answer));
                self.resolution = Some(wait);
            }
            Output::Report(element) => {
                self.commands.push_back(Command::Report(self.handle.clone(), element));
            }
            Output::Connect { connection, to } => {
                // Only elements of these protocols are connected to.
                let mut endpoints = self.endpoints.iter_mut();
                if let Some((_, endpoint)) = endpoints.find(|(its, _)| *its == to.protocol) {
                    self.connection = Some((connection, endpoint.connect(&to)));
                }
            }
            Output::Send { connection, message } => {
                if let Some((name, open)) = &mut self.connection
                    && *name == connection
                    && let Err(error) = open.send(message)
                {
                    tracing::debug!(%error, "not sent");
                }
            }
            Output::Close { connection, .. } => {
                self.connection.take_if(|(name, _)| *name == connection);
            }
            Output::Event(Event::Closed) => self.end = Some(SessionClosed::ByElement),
            Output::Event(Event::Failed(error)) => self.end = Some(error.into()),
            Output::Event(event) => self.events.push_back(event),
        }
    }
}
