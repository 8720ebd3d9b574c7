//! Message-oriented transports: endpoints and connections modelled on those of SCTP.
//!
//! A [`Transport`] opens [`Endpoint`]s. An endpoint is one bound port that both dials and accepts.
//! A registrar has to connect to the address from which a pool element connected, in order to
//! monitor it. A [`Connection`] is an SCTP association or a TCP connection, and carries
//! [`UserMessage`]s.

mod failed;
pub(crate) mod interfaces;
pub mod memory;
#[cfg_attr(not(feature = "multicast"), path = "no_multicast.rs")]
pub(crate) mod multicast;
#[cfg(all(target_os = "linux", feature = "sctp"))]
pub mod sctp;
mod stream;
pub mod tcp;
#[cfg(feature = "tls")]
pub mod tls;

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rserpool_proto::Identity;
use rserpool_proto::wire::{Ppid, TransportAddress, TransportProtocol, UserMessage};

use crate::runtime::Runtime;

use failed::Failed;
pub use memory::Memory;
#[cfg(all(target_os = "linux", feature = "sctp"))]
pub use sctp::Sctp;
pub use stream::StreamConnection;
pub use tcp::Tcp;
#[cfg(feature = "tls")]
pub use tls::Tls;

/// A transport protocol, such as [`Tcp`], which opens endpoints.
///
/// The chapter `guide::transports` has a complete example.
pub trait Transport: fmt::Debug + Send + Sync + 'static {
    /// Returns the transport protocol.
    fn protocol(&self) -> TransportProtocol;

    /// Opens an endpoint that accepts connections at `listen`, or only dials if `listen` is `None`.
    ///
    /// # Errors
    ///
    /// Returns an error if the address cannot be bound. Nothing is open then.
    fn open(
        &self,
        runtime: &Arc<dyn Runtime>,
        purpose: Purpose,
        listen: Option<&TransportAddress>,
    ) -> io::Result<Box<dyn Endpoint>>;
}

/// The use of an endpoint's connections. Transports with message boundaries and payload protocol
/// identifiers may ignore it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Purpose {
    /// Messages of one protocol, ASAP or ENRP, each with its own length field.
    Protocol(Ppid),
    /// A session: the application's data, and ASAP as its control channel.
    Session,
    /// A stream of bytes for a transport over this one, such as `Tls`. The messages that are
    /// received are parts of the stream, in order; a transport that keeps message boundaries
    /// receives them as they were sent.
    Bytes,
}

/// Returns whether an operation failed for want of descriptors or memory, so that it may succeed
/// later.
pub(crate) fn is_shortage(error: &io::Error) -> bool {
    #[cfg(unix)]
    if let Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS) = error.raw_os_error() {
        return true;
    }
    error.kind() == io::ErrorKind::OutOfMemory
}

/// A predicate that selects hosts.
pub type HostFilter = Arc<dyn Fn(IpAddr) -> bool + Send + Sync>;

/// An endpoint: one bound port.
pub trait Endpoint: fmt::Debug + Send + Sync {
    /// Returns the address on which the endpoint accepts connections; `None` if it only dials.
    fn local(&self) -> Option<&TransportAddress>;

    /// Sets the hosts whose connections are accepted. Called at most once, before the first
    /// [`Self::poll_accept`]. The owner checks connections again, so only a transport that does work
    /// before it returns a connection, such as a handshake, needs this method. The default
    /// implementation ignores the filter.
    fn accept_only(&mut self, hosts: HostFilter) {
        let _ = hosts;
    }

    /// Begins to connect. The connection's first event reports the outcome.
    fn connect(&mut self, to: &TransportAddress) -> Box<dyn Connection>;

    /// Polls for the next incoming connection, which is established already. Never ready if the
    /// endpoint does not accept.
    ///
    /// # Errors
    ///
    /// Returns an error if a connection could not be accepted, for want of descriptors or memory
    /// for instance. Further connections may follow.
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Box<dyn Connection>>>;
}

/// An SCTP association or a TCP connection. Dropping it aborts it.
pub trait Connection: fmt::Debug + Send + Sync {
    /// Returns the peer's address: the one that was dialled, or the source of an accepted
    /// connection.
    fn peer(&self) -> &TransportAddress;

    /// Returns the authenticated identity of the peer, once the connection is established; `None` if
    /// the transport does not authenticate it. Default: `None`.
    fn identity(&self) -> Option<Identity> {
        None
    }

    /// Polls for the next event, and writes pending data. Must not be called after
    /// [`Event::Closed`] or [`Event::Lost`]. Cancel safety: if the caller stops polling, no event
    /// is lost.
    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Event>;

    /// Polls until [`Self::send`] has room for a message. Also writes pending data.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()>;

    /// Returns whether so much waits to be written that [`Self::poll_ready`] has to be asked before
    /// further messages are read. A transport that writes the answers to several messages together
    /// returns false meanwhile. Default: true.
    fn has_backlog(&self) -> bool {
        true
    }

    /// Polls until all messages accepted by [`Self::send`] are written, or cannot be written any
    /// more. The default implementation calls [`Self::poll_ready`], which suits transports that
    /// write at once.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_ready(cx)
    }

    /// Queues a message to send. The polling methods, such as [`Self::poll_event`] and
    /// [`Self::poll_ready`], write it.
    ///
    /// # Errors
    ///
    /// Returns an error if the message is not accepted, see [`SendError`].
    fn send(&mut self, message: UserMessage) -> Result<(), SendError>;

    /// Writes pending data, closes the sending direction, and waits until the peer has closed the
    /// other one. The caller limits the time for that.
    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<()>;

    /// Makes the transport probe the peer whenever nothing was received for `interval`. A peer that
    /// stays silent for a few intervals is lost. Transports that notice a lost peer without probing
    /// need not do anything.
    ///
    /// # Errors
    ///
    /// Returns an error if the connection is not established, or the transport does not support
    /// this interval.
    fn set_heartbeat(&mut self, interval: Duration) -> io::Result<()> {
        let _ = interval;
        Ok(())
    }

    /// Returns the maximum length of a message, in bytes. Default: no limit.
    fn max_message_size(&mut self) -> usize {
        usize::MAX
    }

    /// Returns the paths of the connection; `None` if the transport has only one path, or the
    /// connection is not established.
    fn paths(&mut self) -> Option<&mut dyn Paths> {
        None
    }
}

/// The paths of a connection between two hosts, each of which may have several addresses. The first
/// local address is the one to which the endpoint was bound; the first address of the peer is the
/// one that was dialled.
pub trait Paths {
    /// Returns the local addresses.
    ///
    /// # Errors
    ///
    /// Returns an error if the connection is over.
    fn local(&self) -> io::Result<TransportAddress>;

    /// Returns the peer's addresses.
    ///
    /// # Errors
    ///
    /// Returns an error if the connection is over.
    fn peer(&self) -> io::Result<TransportAddress>;

    /// Returns the peer's address to which data is sent.
    ///
    /// # Errors
    ///
    /// Returns an error if the connection is over.
    fn primary(&self) -> io::Result<IpAddr>;

    /// Sets the peer's address to which data is sent, as long as the peer is reachable there.
    ///
    /// # Errors
    ///
    /// Returns an error if the peer does not have the address.
    fn set_primary(&mut self, address: IpAddr) -> io::Result<()>;

    /// Returns the smoothed round-trip time of the primary path (RFC 9260 section 6.3.1), as
    /// precisely as the transport knows it.
    ///
    /// # Errors
    ///
    /// Returns an error if the connection is over.
    fn round_trip_time(&self) -> io::Result<Duration>;

    /// Adds a local address to the established connection, and informs the peer (RFC 5061). The
    /// address is in use once [`Self::local`] returns it, after a round trip.
    ///
    /// # Errors
    ///
    /// Returns an error if the host does not have the address, or the peer does not support the
    /// change.
    fn add_local(&mut self, address: IpAddr) -> io::Result<()>;

    /// Removes a local address from the established connection, and informs the peer (RFC 5061).
    ///
    /// # Errors
    ///
    /// Returns an error if the connection does not have the address, or has no other.
    fn remove_local(&mut self, address: IpAddr) -> io::Result<()>;
}

/// Event of a [`Connection`].
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// A dialled connection is established. Always the first event of such a connection.
    Established {
        /// The local end.
        local: TransportAddress,
        /// The other end.
        peer: TransportAddress,
    },
    /// A message was received.
    Message(UserMessage),
    /// A path of a multi-homed connection failed, or works again. The connection goes on.
    Path {
        /// The peer's address on the path.
        address: IpAddr,
        /// True if the path works.
        up: bool,
    },
    /// The local or the peer's addresses of the established connection changed (RFC 5061). Changes
    /// of the local addresses are not always reported; [`Paths::local`] returns the current ones.
    Addresses {
        /// The local end.
        local: TransportAddress,
        /// The other end.
        peer: TransportAddress,
    },
    /// A message was not delivered: the limit of its
    /// [`Reliability`](rserpool_proto::wire::Reliability) was reached, or the connection was lost.
    /// Contains the bytes that the transport still had.
    SendFailed(UserMessage),
    /// The peer closed the connection in good order. The last event.
    Closed,
    /// The connection broke or could not be established. The last event.
    Lost(io::Error),
}

/// Error of sending a message, which was not accepted. The connection is unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The message is too long for the transport.
    #[error("a message of {length} bytes is too long: at most {limit} are carried")]
    TooLong {
        /// Length of the message.
        length: usize,
        /// Maximum length of a message.
        limit: usize,
    },
    /// The message is empty, and the transport has no messages without data.
    #[error("a message without data cannot be sent")]
    Empty,
    /// The payload protocol identifier of ASAP is reserved for the control channel, and must not be
    /// used for data (RFC 5352 section 5).
    #[error("data cannot be sent as ASAP messages")]
    Reserved,
    /// The connection has no such stream.
    #[error("there is no stream {stream}: the connection has {streams}")]
    NoStream {
        /// The stream that was requested.
        stream: u16,
        /// Number of streams, the first of which is 0.
        streams: u16,
    },
    /// Too much data waits to be written: the peer does not read fast enough.
    #[error("too much is waiting to be written")]
    Full,
    /// The connection is not established, or is over.
    #[error("not connected")]
    NotConnected,
}
