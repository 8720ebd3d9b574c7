//! Message-oriented transports: endpoints and connections, shaped like those of SCTP.
//!
//! A [`Transport`] opens [`Endpoint`]s. An endpoint is one bound port that dials and accepts,
//! because a registrar that looks after a pool element has to connect to where the element
//! came from. A [`Connection`] is an SCTP association or a TCP connection; it carries
//! [`UserMessage`]s.

pub(crate) mod interfaces;
pub mod memory;
pub mod multicast;
#[cfg(target_os = "linux")]
pub mod sctp;
pub mod tcp;

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rserpool_proto::wire::{Ppid, TransportAddress, TransportProtocol, UserMessage};

use crate::runtime::Runtime;

pub use memory::Memory;
#[cfg(target_os = "linux")]
pub use sctp::Sctp;
pub use tcp::Tcp;

/// A transport protocol that is available here.
pub trait Transport: fmt::Debug + Send + Sync + 'static {
    /// Returns the transport protocol.
    fn protocol(&self) -> TransportProtocol;

    /// Opens an endpoint that accepts connections at `listen`, or dials only.
    ///
    /// # Errors
    ///
    /// When the address cannot be had; nothing is open then.
    fn open(
        &self,
        runtime: &Arc<dyn Runtime>,
        purpose: Purpose,
        listen: Option<&TransportAddress>,
    ) -> io::Result<Box<dyn Endpoint>>;
}

/// Use of an endpoint's connections. Transports with message boundaries and payload protocol
/// identifiers may ignore it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Purpose {
    /// Messages of one protocol, each with its length: ASAP or ENRP.
    Protocol(Ppid),
    /// A session: the application's data, and ASAP as its control channel.
    Session,
}

/// Returns whether an operation failed for want of descriptors or memory, and may not fail later.
pub(crate) fn is_shortage(error: &io::Error) -> bool {
    #[cfg(unix)]
    if let Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS) = error.raw_os_error() {
        return true;
    }
    error.kind() == io::ErrorKind::OutOfMemory
}

/// One bound port.
pub trait Endpoint: fmt::Debug + Send + Sync {
    /// Returns the address on which it accepts connections; `None` if it does not.
    fn local(&self) -> Option<&TransportAddress>;

    /// Begins to connect. The connection's first event tells what became of it.
    fn connect(&mut self, to: &TransportAddress) -> Box<dyn Connection>;

    /// The next connection from outside, which is established already. Never ready where the
    /// endpoint does not accept.
    ///
    /// # Errors
    ///
    /// When a connection could not be accepted, for want of descriptors or memory for instance.
    /// Others may follow.
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Box<dyn Connection>>>;
}

/// An association or a connection. Dropping it aborts it.
pub trait Connection: fmt::Debug + Send + Sync {
    /// The other end: where it was dialled, or where it came from.
    fn peer(&self) -> &TransportAddress;

    /// Polls for the next event, and writes pending data. Cancel safety: nothing is lost if it is
    /// not called again. Must not be called after [`Event::Closed`] or [`Event::Lost`].
    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Event>;

    /// Ready when [`Self::send`] has room for a message. Writes what is still to be written.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()>;

    /// Ready when all that [`Self::send`] took is written, or never will be. By default, where
    /// [`Self::poll_ready`] is, which suits transports that write at once.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_ready(cx)
    }

    /// Takes a message to send. It is written by the other methods.
    ///
    /// # Errors
    ///
    /// When it is not taken, see there.
    fn send(&mut self, message: UserMessage) -> Result<(), SendError>;

    /// Writes what is still to be written, tells the peer that this is all, and waits until it
    /// has nothing more to say either. The caller sets the limit to that.
    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<()>;

    /// Has the transport make sure that the peer is there whenever it was not heard of for
    /// `interval`. One that stays silent for a few of them is lost. Transports that notice
    /// without asking need not do anything.
    ///
    /// # Errors
    ///
    /// When the connection is not there, or the transport does not do it as often or as seldom.
    fn set_heartbeat(&mut self, interval: Duration) -> io::Result<()> {
        let _ = interval;
        Ok(())
    }

    /// Its paths, where the transport is one that has several, and the connection is there.
    fn paths(&mut self) -> Option<&mut dyn Paths> {
        None
    }
}

/// The paths of a connection between two hosts that may have several addresses each. Its first
/// addresses are those that the endpoint was bound to and the peer was dialled at.
pub trait Paths {
    /// Our addresses.
    ///
    /// # Errors
    ///
    /// When the connection is over.
    fn local(&self) -> io::Result<TransportAddress>;

    /// The peer's addresses.
    ///
    /// # Errors
    ///
    /// When the connection is over.
    fn peer(&self) -> io::Result<TransportAddress>;

    /// The peer's address to which data go.
    ///
    /// # Errors
    ///
    /// When the connection is over.
    fn primary(&self) -> io::Result<IpAddr>;

    /// Has data go to this address of the peer, as long as it is reached there.
    ///
    /// # Errors
    ///
    /// When the peer does not have the address.
    fn set_primary(&mut self, address: IpAddr) -> io::Result<()>;

    /// Returns the smoothed round-trip time of the primary path (RFC 9260 section 6.3.1), as
    /// exactly as the transport knows it.
    ///
    /// # Errors
    ///
    /// When the connection is over.
    fn round_trip_time(&self) -> io::Result<Duration>;

    /// Adds an address of ours to the live connection, and tells the peer (RFC 5061). It counts
    /// once [`Self::local`] has it, after a round trip.
    ///
    /// # Errors
    ///
    /// When the host does not have the address, or the peer does not know how to add one.
    fn add_local(&mut self, address: IpAddr) -> io::Result<()>;

    /// Takes an address of ours off the live connection, and tells the peer (RFC 5061).
    ///
    /// # Errors
    ///
    /// When the connection does not have the address, or no other.
    fn remove_local(&mut self, address: IpAddr) -> io::Result<()>;
}

/// Event of a connection.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// The connection that was dialled is there. Always the first event of such a one.
    Established {
        /// Our end.
        local: TransportAddress,
        /// The other end.
        peer: TransportAddress,
    },
    /// A message came.
    Message(UserMessage),
    /// A path of a multi-homed connection failed, or works again. The connection goes on.
    Path {
        /// The peer's address on it.
        address: IpAddr,
        /// True if it works.
        up: bool,
    },
    /// Addresses of the live connection changed, or its peer's (RFC 5061). What only we changed may
    /// not be told: [`Paths::local`] knows.
    Addresses {
        /// Our end.
        local: TransportAddress,
        /// The other end.
        peer: TransportAddress,
    },
    /// A message was given up: its [`Reliability`](rserpool_proto::wire::Reliability) had an end, or the
    /// connection has. The bytes are those that the transport still had.
    SendFailed(UserMessage),
    /// The peer closed in good order. The last event.
    Closed,
    /// The connection broke or could not be made. The last event.
    Lost(io::Error),
}

/// Why a message was not taken. The connection is as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The message is longer than the transport carries.
    #[error("a message of {length} bytes is too long: at most {limit} are carried")]
    TooLong {
        /// Length of the message.
        length: usize,
        /// The longest that it may be.
        limit: usize,
    },
    /// The transport has no messages without data.
    #[error("a message without data cannot be sent")]
    Empty,
    /// The payload protocol identifier of ASAP is the control channel's, and data never have it
    /// (RFC 5352 section 5).
    #[error("data cannot be sent as ASAP messages")]
    Reserved,
    /// The connection has no such stream.
    #[error("there is no stream {stream}: the connection has {streams}")]
    NoStream {
        /// The stream.
        stream: u16,
        /// Number of streams, the first of which is 0.
        streams: u16,
    },
    /// Too much is waiting to be written: the peer does not read fast enough.
    #[error("too much is waiting to be written")]
    Full,
    /// There is no connection, yet or any more.
    #[error("not connected")]
    NotConnected,
}
