//! Messages to a pool without a session (RFC 5352 section 6.5).

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rserpool_proto::access::{AccessRole, AccessRules};
use rserpool_proto::user::{ResolveError, ResolveOptions};
use rserpool_proto::wire::{
    PoolElement, PoolElementId, PoolHandle, Ppid, TransportAddress, UserMessage,
};

use crate::session_error::data;
use crate::timer::LazyTimer;
use crate::transport::{Connection, Endpoint, Event, Purpose, SendError};
use crate::verify::has_role;
use crate::{Network, PoolUser};

/// Maximum time that an element may take to accept a connection: 5 s, as for sessions.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Maximum age of the registrar's answer: `stale_cache_value`, 30 s (RFC 5352 section 7.2).
const MAX_AGE: Duration = Duration::from_secs(30);

/// Maximum number of open connections. Not from the RFCs. Beyond it, the oldest connection is
/// closed.
const MAX_CONNECTIONS: usize = 256;

/// Maximum number of received messages that are buffered while others are sent. Not from the RFCs.
/// Beyond it, nothing is read from the elements.
const MAX_RECEIVED: usize = 64;

/// Sends independent messages to a pool: to the element that the policy selects, to a certain
/// element, to the one used last, or to all. No state moves with a failover; for messages that
/// belong together, use a [`Session`](super::Session).
///
/// Connections are kept open; answers are received by [`Self::recv`].
///
/// ```
/// use rserpool::{MessengerEvent, PoolUser, Ppid, UserMessage};
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
/// let mut messenger = user.messenger("EchoPool")?;
/// messenger.send(UserMessage::new(Ppid::NONE, "hello")).await?;
/// let (_, answer) = messenger.recv().await;
/// assert!(matches!(answer, MessengerEvent::Message(message) if message.payload == "hello"));
/// # Ok(())
/// # }
/// ```
pub struct Messenger {
    network: Network,
    user: PoolUser,
    handle: PoolHandle,
    rules: Arc<AccessRules>,
    endpoint: Box<dyn Endpoint>,
    open: Vec<Open>,
    last: Option<PoolElementId>,
    /// Index of the connection that was polled last.
    turn: usize,
    received: VecDeque<(Correspondent, MessengerEvent)>,
}

/// The other end of a message without a session: an element, or an address.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Correspondent {
    /// An element of the pool.
    Element(PoolElementId),
    /// The program at an address to which messages were sent.
    Address(TransportAddress),
}

/// An event of a [`Messenger`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum MessengerEvent {
    /// A message was received.
    Message(UserMessage),
    /// A message was not delivered, although it was sent: the limit of its
    /// [`Reliability`](rserpool_proto::wire::Reliability) was reached, or the connection was lost
    /// (RFC 5352 section 6.8). Contains the part that the transport still had. SCTP reports this,
    /// TCP does not.
    NotDelivered(UserMessage),
}

/// Outcome of a message to all elements of a pool.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct SentToAll {
    /// The elements to which the message was sent.
    pub reached: Vec<PoolElementId>,
    /// The elements to which it was not sent: they could not be reached, or do not read what was
    /// sent to them before.
    pub missed: Vec<PoolElementId>,
    /// True if the pool may have more elements, to which the message was not sent. A registrar
    /// lists a limited number of elements: 128 by default.
    pub more: bool,
}

struct Open {
    with: Correspondent,
    connection: Box<dyn Connection>,
    established: bool,
}

/// Error of sending a message without a session.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MessengerError {
    /// The pool could not be resolved.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// None of the elements for which the message is meant accepts a connection.
    #[error("cannot reach any element of {0}")]
    NoElement(PoolHandle),
    /// No connection to the address could be made.
    #[error("cannot connect to {0}")]
    NotReached(TransportAddress),
    /// The message cannot be sent by the transport.
    #[error(transparent)]
    Message(#[from] SendError),
}

impl fmt::Debug for Messenger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Messenger").field("handle", &self.handle).finish_non_exhaustive()
    }
}

impl Messenger {
    pub(crate) fn new(
        network: &Network,
        user: PoolUser,
        (handle, rules): (PoolHandle, Arc<AccessRules>),
    ) -> io::Result<Self> {
        Ok(Self {
            network: network.clone(),
            user,
            handle,
            rules,
            endpoint: network.dialler(Purpose::Session)?,
            open: Vec::new(),
            last: None,
            turn: 0,
            received: VecDeque::new(),
        })
    }

    /// Sends a message to the element that the pool's policy selects, or to the next one if that
    /// element cannot be reached. Returns the identifier of the element that was reached. The
    /// message is lost if that element crashes before it handles the message.
    ///
    /// # Errors
    ///
    /// Returns an error if the message was not sent.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped before it is ready, the message was not sent.
    pub async fn send(&mut self, message: UserMessage) -> Result<PoolElementId, MessengerError> {
        let elements = self.resolve().await?;
        for element in &elements {
            if self.deliver(element, &message).await? {
                return Ok(element.identifier);
            }
        }
        Err(MessengerError::NoElement(self.handle.clone()))
    }

    /// Sends a message to a certain element, and to no other (RFC 5352 section 6.5.3).
    ///
    /// # Errors
    ///
    /// Returns an error if the message was not sent.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped before it is ready, the message was not sent.
    pub async fn send_to(
        &mut self,
        identifier: PoolElementId,
        message: UserMessage,
    ) -> Result<(), MessengerError> {
        let find = |elements: Vec<PoolElement>| {
            elements.into_iter().find(|element| element.identifier == identifier)
        };
        let mut element = find(self.resolve().await?);
        if element.is_none() {
            // The answer in the cache may be a part of the pool, or too old.
            let all = ResolveOptions::default().items(u32::MAX);
            element = find(self.user.resolve(self.handle.clone(), all).await?);
        }
        match element {
            Some(element) if self.deliver(&element, &message).await? => Ok(()),
            _ => Err(MessengerError::NoElement(self.handle.clone())),
        }
    }

    /// Sends a message to this address, whether it belongs to an element of the pool or not (RFC
    /// 5352 section 6.5.4). A failure is not reported to the registrar. The access rules have to permit
    /// the program at the address the role of an element of any pool.
    ///
    /// # Errors
    ///
    /// Returns an error if the message was not sent.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped before it is ready, the message was not sent.
    pub async fn send_at(
        &mut self,
        address: &TransportAddress,
        message: UserMessage,
    ) -> Result<(), MessengerError> {
        let with = Correspondent::Address(address.clone());
        match self.send_over(with, address, &message).await? {
            true => Ok(()),
            false => Err(MessengerError::NotReached(address.clone())),
        }
    }

    /// Sends a message to the element to which the last one was sent. If there is none, or it
    /// cannot be reached any more, behaves like [`Self::send`].
    ///
    /// # Errors
    ///
    /// Returns an error if the message was not sent.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped before it is ready, the message was not sent.
    pub async fn send_to_last(
        &mut self,
        message: UserMessage,
    ) -> Result<PoolElementId, MessengerError> {
        if let Some(last) = self.last {
            match self.send_to(last, message.clone()).await {
                Ok(()) => return Ok(last),
                Err(MessengerError::NoElement(_)) => {}
                Err(error) => return Err(error),
            }
        }
        self.send(message).await
    }

    /// Sends a message to all elements of the pool that the registrar lists, and returns which of
    /// them were reached.
    ///
    /// # Errors
    ///
    /// Returns an error if the pool could not be resolved, or if the message can never be sent by the
    /// transport. It was sent to nobody then.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the message may have been sent to some of the elements.
    pub async fn send_to_all(&mut self, message: UserMessage) -> Result<SentToAll, MessengerError> {
        let options = ResolveOptions::default().items(u32::MAX);
        let answer = self.user.ask(self.handle.clone(), options).await?;
        let mut sent = SentToAll { more: !answer.complete, ..SentToAll::default() };
        for element in answer.elements {
            match self.deliver(&element, &message).await {
                Ok(true) => sent.reached.push(element.identifier),
                // No element can be sent such a message.
                Err(error) if error != SendError::Full && sent.reached.is_empty() => {
                    return Err(error.into());
                }
                Ok(false) | Err(_) => sent.missed.push(element.identifier),
            }
        }
        Ok(sent)
    }

    /// Waits for the next message from an element, or for the next one to an element that was not
    /// delivered. Cookies and other messages of the control channel are not returned.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, no event is lost.
    pub async fn recv(&mut self) -> (Correspondent, MessengerEvent) {
        poll_fn(|cx| {
            loop {
                if let Some(received) = self.received.pop_front() {
                    return Poll::Ready(received);
                }
                ready!(self.poll_open(cx));
            }
        })
        .await
    }

    async fn resolve(&self) -> Result<Vec<PoolElement>, ResolveError> {
        let options = ResolveOptions::default().max_age(MAX_AGE);
        self.user.resolve(self.handle.clone(), options).await
    }

    /// Sends a message to an element. Returns false if the element could not be reached.
    async fn deliver(
        &mut self,
        element: &PoolElement,
        message: &UserMessage,
    ) -> Result<bool, SendError> {
        let identifier = element.identifier;
        let address = element.user_transport.address();
        let Some(address) = address.filter(|it| it.protocol == self.network.protocol()) else {
            return Ok(false);
        };
        let sent = self.send_over(Correspondent::Element(identifier), address, message).await?;
        if sent {
            self.last = Some(identifier);
        } else {
            let _ = self.user.report_unreachable(self.handle.clone(), identifier).await;
        }
        Ok(sent)
    }

    /// Sends a message over the open connection to `with`, or over a new one to `address`. Returns
    /// false if the other end could not be reached.
    async fn send_over(
        &mut self,
        with: Correspondent,
        address: &TransportAddress,
        message: &UserMessage,
    ) -> Result<bool, SendError> {
        let message = data(message.clone())?;
        if address.protocol != self.network.protocol() {
            return Ok(false);
        }
        if !self.open.iter().any(|open| open.with == with) {
            if self.open.len() == MAX_CONNECTIONS {
                self.open.remove(0);
            }
            let connection = self.endpoint.connect(address);
            self.open.push(Open { with: with.clone(), connection, established: false });
        }
        let deadline = self.network.now() + CONNECT_TIMEOUT;
        let mut timer = LazyTimer::default();
        let result = poll_fn(|cx| {
            loop {
                let Some(index) = self.open.iter().position(|open| open.with == with) else {
                    return Poll::Ready(Ok(false));
                };
                // Handle the connection's events first: a lost connection would still accept the
                // message.
                let room = self.received.len() < MAX_RECEIVED;
                let established = self.open[index].established;
                if (room || !established) && self.poll_one(cx, index).is_ready() {
                    continue;
                }
                let open = &mut self.open[index];
                if open.established && open.connection.poll_ready(cx).is_ready() {
                    let sent = open.connection.send(message.clone());
                    // Write at once; what cannot be written now is written with the next call.
                    let _ = open.connection.poll_ready(cx);
                    return Poll::Ready(sent.map(|()| true));
                }
                if room && self.poll_open(cx).is_ready() {
                    continue;
                }
                ready!(timer.poll(cx, self.network.runtime(), Some(deadline)));
                // A peer that does not read does not count as unreachable: the error is that the
                // connection is full.
                let full = if established { Err(SendError::Full) } else { Ok(false) };
                return Poll::Ready(full);
            }
        });
        let sent = match result.await {
            Err(SendError::NotConnected) => Ok(false),
            result => result,
        };
        if sent == Ok(false) {
            self.open.retain(|open| open.with != with);
        }
        sent
    }

    /// Handles one event of any connection; the connections take turns.
    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        for _ in 0..self.open.len() {
            self.turn = (self.turn + 1) % self.open.len();
            if self.poll_one(cx, self.turn).is_ready() {
                return Poll::Ready(());
            }
        }
        Poll::Pending
    }

    fn poll_one(&mut self, cx: &mut Context<'_>, index: usize) -> Poll<()> {
        let open = &mut self.open[index];
        match ready!(open.connection.poll_event(cx)) {
            Event::Established { .. } => {
                let now = self.network.now();
                // At an address, there may be an element of another pool.
                let pool = match open.with {
                    Correspondent::Element(_) => Some(&self.handle),
                    Correspondent::Address(_) => None,
                };
                let rules = &self.rules;
                if has_role(now, rules, AccessRole::Element, pool, &*open.connection) {
                    open.established = true;
                } else {
                    self.open.remove(index);
                }
            }
            Event::Message(message) if message.ppid == Ppid::ASAP => {}
            Event::Message(message) => {
                let event = MessengerEvent::Message(message);
                self.received.push_back((open.with.clone(), event));
            }
            Event::SendFailed(message) => {
                let event = MessengerEvent::NotDelivered(message);
                self.received.push_back((open.with.clone(), event));
            }
            Event::Path { .. } | Event::Addresses { .. } => {}
            Event::Closed | Event::Lost(_) => {
                self.open.remove(index);
            }
        }
        Poll::Ready(())
    }
}
