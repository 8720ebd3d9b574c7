//! SCTP of the Linux kernel.
//!
//! A listening endpoint is a one-to-many socket. It dials and accepts on one port, and each
//! established association is peeled off to a socket of its own. An endpoint that only dials has a
//! one-to-one socket for each association.
//!
//! When a process exits without closing its sockets, the kernel aborts their associations. So the
//! peer notices a crash at once, and can tell it from an orderly close. A session's orderly close
//! is also announced by an ASAP message of a type that other implementations discard. If a peer
//! closes without this message, it is taken to have crashed. rsplib treats every end of a session
//! like a crash.

mod address;
mod auth;
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
pub use auth::AuthKeys;
use endpoint::SctpEndpoint;
use options::Timing;
use rserpool_proto::wire::{TransportAddress, TransportProtocol};

/// Maximum number of associations that wait to be accepted.
const BACKLOG: i32 = 1024;
/// Size of an association's send buffer in bytes; the kernel may allow less.
const SEND_BUFFER: usize = 1024 * 1024;

/// SCTP transport.
#[derive(Debug, Clone)]
pub struct Sctp {
    timing: Timing,
    streams: u16,
    max_message_size: usize,
    keys: Option<AuthKeys>,
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
            keys: None,
        }
    }
}

impl Sctp {
    /// Returns SCTP with the default settings.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Checks that the kernel supports SCTP.
    ///
    /// # Errors
    ///
    /// Returns the kernel's error if SCTP is not available.
    pub fn check_available() -> io::Result<()> {
        new_socket(Domain::IPV4, Type::SEQPACKET).map(drop)
    }

    /// Sets the initial, minimum and maximum retransmission timeout. Default: 500 ms, 250 ms and
    /// 800 ms. Not from the RFCs: RFC 9260 section 16 has 1 s, 1 s and 60 s. With the defaults, an
    /// association whose data is not acknowledged fails after about 2.4 s.
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

    /// Sets the number of consecutive retransmissions after which a path and an association fail.
    /// Default: 2 and 3. Not from the RFCs: RFC 9260 section 16 has 5 and 10. For each further
    /// path, `association` grows by `path`, so that a silent path does not end an association with
    /// another path that works.
    #[must_use]
    pub fn max_retransmissions(mut self, path: u16, association: u16) -> Self {
        self.timing.path_max_retransmissions = path;
        self.timing.association_max_retransmissions = association;
        self
    }

    /// Sets the interval at which an idle path is probed, to which the retransmission timeout is
    /// added. Default: 1 s, where RFC 9260 section 16 has 30 s, so that a dead path is noticed in
    /// seconds.
    #[must_use]
    pub fn heartbeat(mut self, interval: Duration) -> Self {
        self.timing.heartbeat = interval;
        self
    }

    /// Sets the number of streams to request. Default: 16. Not from the RFCs.
    #[must_use]
    pub fn streams(mut self, streams: u16) -> Self {
        self.streams = streams;
        self
    }

    /// Sets the maximum size of a message, sent or received. Default: 1 MiB. Not from the RFCs. The
    /// kernel limits a sent message to the size of its send buffer (`net.core.wmem_max`).
    #[must_use]
    pub fn max_message_size(mut self, bytes: usize) -> Self {
        self.max_message_size = bytes;
        self
    }

    /// Authenticates associations by shared keys (SCTP-AUTH, RFC 4895). Nothing is received from a peer
    /// without one of the keys, nor from an attacker on the way. Nothing is encrypted. Default:
    /// associations are not authenticated.
    ///
    /// The identity of all peers is the name `sctp-auth`. An attacker on the way can still end an
    /// association, which then may seem to have ended in good order.
    /// This end does not connect to a peer without a
    /// key. An association that such a peer makes is lost after a few seconds, when the peer has not
    /// answered a probe: it counts as established until then, but no message arrives over it.
    #[must_use]
    pub fn auth_keys(mut self, keys: AuthKeys) -> Self {
        self.keys = Some(keys);
        self
    }

    pub(crate) fn socket(&self, domain: Domain, kind: Type) -> io::Result<Socket> {
        let socket = new_socket(domain, kind)?;
        socket.set_nonblocking(true)?;
        if domain == Domain::IPV6 {
            socket.set_only_v6(false)?;
        }
        let _ = socket.set_send_buffer_size(SEND_BUFFER);
        options::configure(&socket, &self.timing, self.streams)?;
        if let Some(keys) = &self.keys {
            keys.require(&socket)?;
        }
        // A socket that is dropped without having been closed aborts its associations.
        socket.set_linger(Some(Duration::ZERO))?;
        Ok(socket)
    }
}

fn new_socket(domain: Domain, kind: Type) -> io::Result<Socket> {
    Socket::new(domain, kind, Some(Protocol::from(sys::IPPROTO_SCTP)))
}

/// Returns the address family that fits all addresses.
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
                Some((runtime.register(crate::runtime::Socket::new(socket))?, local))
            }
        };
        Ok(Box::new(SctpEndpoint::new(self.clone(), Arc::clone(runtime), purpose, listener)))
    }
}

/// Parses `bytes` as ancillary data and as notifications of the kernel. For the fuzzers.
#[cfg(fuzzing)]
#[doc(hidden)]
pub fn parse_what_the_kernel_says(bytes: &[u8]) {
    let _ = notification::parse(bytes);
    let _ = control::parse(bytes);
    let (addresses, _) = address::unpack(bytes, 64);
    let packed = address::pack(&addresses, 1);
    assert_eq!(address::unpack(&packed, 64).0, addresses);
}
