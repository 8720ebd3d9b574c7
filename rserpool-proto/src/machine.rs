//! The interface between the state machines and their drivers.

use std::time::{Duration, Instant};

use crate::Identity;
use crate::wire::{Ppid, TransportAddress, UserMessage};

/// Identifier of a connection within its state machine: an SCTP association or a TCP connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(clippy::exhaustive_structs, reason = "a number")]
pub struct ConnectionId(pub u64);

/// Change in the state of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "machines handle each")]
pub enum ConnectionEvent {
    /// The connection is established. This is the first event of a connection that the machine
    /// asked for; there is none for an accepted connection.
    Established {
        /// The local addresses.
        local: TransportAddress,
        /// The remote addresses.
        peer: TransportAddress,
        /// The authenticated identity of the peer; `None` if the transport does not authenticate.
        identity: Option<Identity>,
    },
    /// The addresses of both ends of an established connection, because they changed (RFC 5061) or
    /// because [`Output::Addresses`] asked for them.
    Addresses {
        /// The local addresses.
        local: TransportAddress,
        /// The remote addresses.
        peer: TransportAddress,
    },
    /// The peer closed the connection in good order. This is the last event of the connection.
    Closed,
    /// The connection broke, or could not be made. This is the last event of the connection.
    Lost,
    /// The remote host refused the connection, since nothing listens there. This is the last event
    /// of the connection.
    Refused,
    /// The connection could not even be attempted: this host lacks a resource, such as a file
    /// descriptor, or already has an association with that endpoint. The remote end may be
    /// reachable or not. This is the last event of the connection.
    Impossible,
}

/// An action for the driver. Drivers take the actions in the order of [`Machine::poll_output`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "drivers handle each")]
pub enum Output<E> {
    /// Connect to an address, and report the outcome by [`Machine::handle_connection`].
    Connect {
        /// The identifier of the connection.
        connection: ConnectionId,
        /// Protocol of the connection: ASAP or ENRP.
        protocol: Ppid,
        /// Destination.
        to: TransportAddress,
    },
    /// Send a message.
    Send {
        /// The connection to send it on.
        connection: ConnectionId,
        /// The message.
        message: UserMessage,
    },
    /// Report the round-trip time of a connection by [`Machine::handle_round_trip`], if the
    /// transport knows it.
    Measure(ConnectionId),
    /// Report the addresses of a connection by [`ConnectionEvent::Addresses`], if they can change
    /// with this transport.
    Addresses(ConnectionId),
    /// Send a message to the multicast groups of its protocol.
    Announce(UserMessage),
    /// Close a connection. No further event of it is reported to the machine.
    Close {
        /// The connection to close.
        connection: ConnectionId,
        /// True to discard what is not sent yet.
        abort: bool,
    },
    /// Pass an event to the owner of the machine.
    Event(E),
}

/// Number of items that a state machine holds, to check that they do not accumulate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Footprint {
    /// Connections that are established or being made.
    pub connections: usize,
    /// Running timers.
    pub timers: usize,
    /// Requests that are not answered yet, and reports that are not sent yet.
    pub waiting: usize,
    /// Subscriptions to pools, including those that are still being requested.
    pub subscriptions: usize,
    /// Hosts whose requests are counted against a rate limit.
    pub counted_hosts: usize,
    /// Elements of peers that cannot join the pool with their handle, because it has another policy
    /// or transport, and that are kept separately.
    pub rivals: usize,
}

/// The interface between a driver and a state machine of an element, a user or a registrar.
pub trait Machine {
    /// Event for the machine's owner.
    type Event;

    /// Starts the machine: it sets its timers and asks for its first connections.
    fn start(&mut self, now: Instant);

    /// Handles the round-trip time of a connection, the answer to [`Output::Measure`].
    fn handle_round_trip(&mut self, _: Instant, _: ConnectionId, _: Duration) {}

    /// Accepts a connection to the port of `protocol` (ASAP or ENRP), and returns its identifier.
    /// `identity` is that of the peer; `None` if the transport does not authenticate.
    fn accept(
        &mut self,
        now: Instant,
        protocol: Ppid,
        peer: TransportAddress,
        identity: Option<Identity>,
    ) -> ConnectionId;

    /// Handles a message that was received on a connection.
    fn handle_message(&mut self, now: Instant, from: ConnectionId, message: UserMessage);

    /// Handles a change in the state of a connection.
    fn handle_connection(&mut self, now: Instant, connection: ConnectionId, event: ConnectionEvent);

    /// Handles a message that was received from `source` by multicast.
    fn handle_announcement(&mut self, now: Instant, source: TransportAddress, message: UserMessage);

    /// Handles the expiry of the time that [`Self::poll_timeout`] returned.
    fn handle_timeout(&mut self, now: Instant);

    /// Handles a lack of connections or of descriptors: the machine may close some connections.
    fn handle_crowded(&mut self, _: Instant) {}

    /// Returns the next output, or `None` if there is no more.
    #[must_use]
    fn poll_output(&mut self) -> Option<Output<Self::Event>>;

    /// Returns the time at which to call [`Self::handle_timeout`] next.
    #[must_use]
    fn poll_timeout(&self) -> Option<Instant>;
}
