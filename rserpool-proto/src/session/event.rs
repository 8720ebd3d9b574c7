//! The outputs of a session, its events for the application, and its errors.

use std::io::ErrorKind;

#[cfg(doc)]
use super::SessionConfig;
use crate::ConnectionId;
use crate::user::{ResolveError, ResolveOptions};
use crate::wire::{PoolElementId, TransportAddress, TransportProtocol, UserMessage, UserTransport};

/// An action that a session requires of its driver. Drivers execute them in order.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "drivers handle each")]
pub enum Output {
    /// Resolve the session's pool.
    Resolve(ResolveOptions),
    /// Report to the registrar that this element is not reachable.
    Report(PoolElementId),
    /// Connect to the address `to`, and pass the connection's events to the session with the
    /// identifier `connection`. At most one connection is open at a time.
    Connect {
        /// The identifier that the session assigns to the connection.
        connection: ConnectionId,
        /// The destination.
        to: TransportAddress,
    },
    /// Send a message.
    Send {
        /// The connection.
        connection: ConnectionId,
        /// The message.
        message: UserMessage,
    },
    /// Close a connection, and pass no more of its events to the session.
    Close {
        /// The connection.
        connection: ConnectionId,
        /// True to drop unsent data.
        abort: bool,
    },
    /// Report an event to the application.
    Event(Event),
}

/// An event of a session, for the application. Events are in the order in which they happened.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The session is connected to its first element.
    Connected(PoolElementId),
    /// A message was received.
    Message(UserMessage),
    /// A message was not delivered: the limit of its [`Reliability`](crate::wire::Reliability) was
    /// reached, or the connection was lost (RFC 5352 section 6.8). Contains the bytes of the
    /// message that the transport still had.
    NotDelivered(UserMessage),
    /// The session lost the element that served it. That element may or may not have processed
    /// messages that it did not answer. If failovers are not automatic, the session waits for the
    /// application to ask for one.
    FailoverStarted {
        /// The element that was lost.
        from: PoolElementId,
    },
    /// The session is connected to an element again. This element has received the last cookie, if
    /// there is one, and no other data. The application has to repeat the messages that it sent
    /// before this event and that the earlier element did not answer.
    FailoverCompleted {
        /// The element that was lost.
        from: PoolElementId,
        /// The element that serves now. It is the same one if only the connection was lost.
        to: PoolElementId,
    },
    /// The element closed the session gracefully. This is the last event.
    Closed,
    /// The session failed. This is the last event.
    Failed(SessionError),
}

/// Error with which a session fails.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// The pool could not be resolved.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// No element of the pool accepted a connection within the time set with
    /// [`SessionConfig::give_up_after`].
    #[error("cannot connect: no element of the pool accepts a connection")]
    NoElement,
    /// The element chosen with [`SessionConfig::element`] is not in the pool. If the element is in
    /// the pool but accepts no connection, the session fails with [`SessionError::NoElement`].
    #[error("cannot reach element {0} of the pool")]
    NotReached(PoolElementId),
    /// The pool's elements use only transport protocols that this session does not use.
    #[error("the pool is served over {offered}, not over {}", either(.ours))]
    OtherTransport {
        /// The transport of the pool's first element.
        offered: UserTransport,
        /// The transport protocols that this session uses.
        ours: Vec<TransportProtocol>,
    },
    /// A transport cannot be used, for example for want of file descriptors.
    #[error("cannot open an endpoint: {0}")]
    Transport(ErrorKind),
}

fn either(protocols: &[TransportProtocol]) -> String {
    protocols.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ")
}
