//! The interface between the state machines and whatever drives them.

use std::time::{Duration, Instant};

use crate::wire::{Ppid, TransportAddress, UserMessage};

/// A connection as its state machine names it: an SCTP association or a TCP connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// Change in the state of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "machines handle each")]
pub enum ConnectionEvent {
    /// It is there. Comes first, and only for connections that the machine asked for.
    Established {
        /// Our end.
        local: TransportAddress,
        /// The other end.
        peer: TransportAddress,
    },
    /// The addresses of both ends of an established connection: they changed (RFC 5061), or
    /// [`Output::Addresses`] asked for them.
    Addresses {
        /// Our end.
        local: TransportAddress,
        /// The other end.
        peer: TransportAddress,
    },
    /// The peer closed it in good order. The last event.
    Closed,
    /// It broke, or could not be made. The last event.
    Lost,
    /// It could not be made, for nobody is there: the other host refused it. The last event.
    Refused,
    /// It could not even be tried: this host lacks something for it, descriptors for instance, or
    /// there is an association with that endpoint already. The last event, and no news of the
    /// other end.
    Impossible,
}

/// Action that a state machine wants its driver to take, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "drivers handle each")]
pub enum Output<E> {
    /// Connect to this address; tell what becomes of it under this name.
    Connect {
        /// The name.
        connection: ConnectionId,
        /// Protocol of the connection: ASAP or ENRP.
        protocol: Ppid,
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
    /// Tell by [`Machine::handle_round_trip`] how long it is to the other end of a connection and
    /// back, if the transport knows.
    Measure(ConnectionId),
    /// Tell by [`ConnectionEvent::Addresses`] which addresses a connection has, if the transport is
    /// one where they change.
    Addresses(ConnectionId),
    /// Send a message to everyone who listens to the multicast groups of its protocol.
    Announce(UserMessage),
    /// Close a connection, of which nothing more is told then.
    Close {
        /// The connection.
        connection: ConnectionId,
        /// True to drop what is not sent yet.
        abort: bool,
    },
    /// Tell the owner of the machine.
    Event(E),
}

/// Number of items that a state machine holds, to check that none pile up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Footprint {
    /// Connections that are there or being made.
    pub connections: usize,
    /// Timers that run.
    pub timers: usize,
    /// Requests that are yet to be answered, and reports that are yet to be sent.
    pub waiting: usize,
    /// Pools that somebody is told of, or is to be told of.
    pub subscriptions: usize,
    /// Hosts whose requests are being counted, to limit them.
    pub counted_hosts: usize,
    /// Elements of peers that do not fit the pool of their handle, and are kept beside it.
    pub rivals: usize,
}

/// Interface between the driver and a state machine that talks to registrars or is one.
pub trait Machine {
    /// Event for the machine's owner.
    type Event;

    /// Begins: timers start, connections are made.
    fn start(&mut self, now: Instant);

    /// The answer to [`Output::Measure`], where there is one.
    fn handle_round_trip(&mut self, _: Instant, _: ConnectionId, _: Duration) {}

    /// Names a connection that came from outside, to the port of `protocol`: ASAP or ENRP.
    fn accept(&mut self, now: Instant, protocol: Ppid, peer: TransportAddress) -> ConnectionId;

    /// A message came.
    fn handle_message(&mut self, now: Instant, from: ConnectionId, message: UserMessage);

    /// Something happened to a connection.
    fn handle_connection(&mut self, now: Instant, connection: ConnectionId, event: ConnectionEvent);

    /// A message came to a multicast group, from `source`.
    fn handle_announcement(&mut self, now: Instant, source: TransportAddress, message: UserMessage);

    /// The time that [`Self::poll_timeout`] gave has come.
    fn handle_timeout(&mut self, now: Instant);

    /// There are too many connections, or no descriptors for more. The machine may close some.
    fn handle_crowded(&mut self, _: Instant) {}

    /// The next thing to do.
    #[must_use]
    fn poll_output(&mut self) -> Option<Output<Self::Event>>;

    /// When to call [`Self::handle_timeout`] next.
    #[must_use]
    fn poll_timeout(&self) -> Option<Instant>;
}
