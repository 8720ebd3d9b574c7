//! SCTP by the Linux kernel.
//!
//! An endpoint that listens is a one-to-many socket. It dials and accepts on one port, and each
//! association that comes to be is peeled off into a socket of its own. An endpoint that only
//! dials has a one-to-one socket for each association.
//!
//! When a process ends without closing its sockets, the kernel aborts their associations: so the
//! peer is told at once, and knows it from a good end. In sessions an end in good order is
//! announced besides, by an ASAP message of a type that others discard: implementations that do
//! not know it are taken to have died, which is what rsplib takes each end of a session for.

mod address;
mod connection;
mod control;
mod dial;
mod endpoint;
mod notification;
mod options;
mod paths;
mod receiver;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::{Endpoint, Purpose, Transport};
use crate::runtime::Runtime;
use crate::sys;
use endpoint::SctpEndpoint;
use options::Timing;
use rserpool_proto::wire::{TransportAddress, TransportProtocol};

/// The number of associations that wait to be accepted.
const BACKLOG: i32 = 1024;
/// Send buffer of an association; the kernel may allow less.
const SEND_BUFFER: usize = 1024 * 1024;

/// SCTP as a transport.
#[derive(Debug, Clone)]
pub struct Sctp {
    timing: Timing,
    streams: u16,
    max_message_size: usize,
}

impl Default for Sctp {
    fn default() -> Self {
        Self {
            timing: Timing {
                rto_initial: Duration::from_millis(500),
                rto_min: Duration::from_millis(250),
                rto_max: Duration::from_millis(800),
                association_max_retransmissions: 3,
                path_max_retransmissions: 2,
                heartbeat: Duration::from_millis(1000),
            },
            streams: 16,
            max_message_size: 1024 * 1024,
        }
    }
}

impl Sctp {
    /// SCTP with the defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns whether the kernel has SCTP.
    ///
    /// # Errors
    ///
    /// Why it has not, as the kernel says it.
    pub fn check_available() -> io::Result<()> {
        new_socket(Domain::IPV4, Type::SEQPACKET).map(drop)
    }

    /// The retransmission timeout in the beginning, at least and at most: 500 ms, 250 ms and
    /// 800 ms, ours, where RFC 9260 section 16 has 1 s, 1 s and 60 s. With these, an association
    /// on which something is to be acknowledged and nothing comes back is given up after about
    /// 2.4 s.
    #[must_use]
    pub fn retransmission_timeout(
        mut self,
        initial: Duration,
        min: Duration,
        max: Duration,
    ) -> Self {
        (self.timing.rto_initial, self.timing.rto_min, self.timing.rto_max) = (initial, min, max);
        self
    }

    /// After how many retransmissions in a row a path and an association are given up: 2 and 3,
    /// ours, where RFC 9260 section 16 has 5 and 10. For each further path, `association` grows by
    /// `path`: what a silent path uses up must not end an association whose other path works.
    #[must_use]
    pub fn max_retransmissions(mut self, path: u16, association: u16) -> Self {
        self.timing.path_max_retransmissions = path;
        self.timing.association_max_retransmissions = association;
        self
    }

    /// Sets the interval at which an idle path is probed, besides the retransmission timeout.
    /// Default: 1 s, where RFC 9260 section 16 has 30 s: a dead path is noticed in seconds.
    #[must_use]
    pub fn heartbeat(mut self, interval: Duration) -> Self {
        self.timing.heartbeat = interval;
        self
    }

    /// The number of streams to ask for: 16, ours.
    #[must_use]
    pub fn streams(mut self, streams: u16) -> Self {
        self.streams = streams;
        self
    }

    /// The longest message that is sent or accepted: 1 MiB, ours. The kernel sends no more than
    /// fits its send buffer (`net.core.wmem_max`).
    #[must_use]
    pub fn max_message_size(mut self, bytes: usize) -> Self {
        self.max_message_size = bytes;
        self
    }

    fn socket(&self, domain: Domain, kind: Type) -> io::Result<Socket> {
        let socket = new_socket(domain, kind)?;
        socket.set_nonblocking(true)?;
        if domain == Domain::IPV6 {
            socket.set_only_v6(false)?;
        }
        let _ = socket.set_send_buffer_size(SEND_BUFFER);
        options::configure(&socket, &self.timing, self.streams)?;
        // What ends without having been closed is aborted.
        socket.set_linger(Some(Duration::ZERO))?;
        Ok(socket)
    }
}

fn new_socket(domain: Domain, kind: Type) -> io::Result<Socket> {
    Socket::new(domain, kind, Some(Protocol::from(sys::IPPROTO_SCTP)))
}

/// The address family that all addresses fit.
fn domain(address: &TransportAddress) -> Domain {
    if address.addresses.iter().any(std::net::IpAddr::is_ipv6) {
        Domain::IPV6
    } else {
        Domain::IPV4
    }
}

impl Transport for Sctp {
    fn protocol(&self) -> TransportProtocol {
        TransportProtocol::Sctp
    }

    fn open(
        &self,
        runtime: &Arc<dyn Runtime>,
        purpose: Purpose,
        listen: Option<&TransportAddress>,
    ) -> io::Result<Box<dyn Endpoint>> {
        let listener = match listen {
            None => {
                Self::check_available()?;
                None
            }
            Some(address) => {
                let (first, more) =
                    address.addresses.split_first().ok_or(io::ErrorKind::InvalidInput)?;
                let socket = self.socket(domain(address), Type::SEQPACKET)?;
                socket.bind(&SockAddr::from(std::net::SocketAddr::new(*first, address.port)))?;
                let port =
                    socket.local_addr()?.as_socket().map_or(address.port, |local| local.port());
                if !more.is_empty() {
                    options::bind_more(&socket, &address::pack(more, port))?;
                }
                socket.listen(BACKLOG)?;
                let local = TransportAddress { port, ..address.clone() };
                Some((runtime.register(socket)?, local))
            }
        };
        Ok(Box::new(SctpEndpoint::new(self.clone(), Arc::clone(runtime), purpose, listener)))
    }
}

/// Parses ancillary data and notifications as the kernel passes them, for the fuzzers.
#[cfg(fuzzing)]
#[doc(hidden)]
pub fn parse_what_the_kernel_says(bytes: &[u8]) {
    let _ = notification::parse(bytes);
    let _ = control::parse(bytes);
    let (addresses, _) = address::unpack(bytes, 64);
    let packed = address::pack(&addresses, 1);
    assert_eq!(address::unpack(&packed, 64).0, addresses);
}
