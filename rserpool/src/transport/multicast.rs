//! UDP multicast: announcements of registrars (RFC 5352 section 3.6), and presence messages between
//! them (RFC 5353 section 3.1).

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use rserpool_proto::wire::{Ppid, TransportAddress, UserMessage};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::interfaces;
use crate::runtime::{self, Interest, RegisteredSocket, Runtime};

/// Time to live of multicast messages, as in rsplib.
const TIME_TO_LIVE: u32 = 30;

/// Room for a datagram: larger than any multicast message.
const DATAGRAM_SIZE: usize = 2048;

/// Receives the messages of one protocol's groups, and sends to them if it has a socket to send
/// from.
#[derive(Debug)]
pub(crate) struct Multicast {
    protocol: Ppid,
    groups: Vec<SocketAddrV4>,
    listener: Box<dyn RegisteredSocket>,
    /// The listener's socket again, as a [`UdpSocket`], which can receive into initialized buffers.
    receiver: UdpSocket,
    sender: Option<Socket>,
    /// The local addresses to send from; all if empty.
    sources: Vec<IpAddr>,
}

fn udp_socket(port: u16) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    // Several programs on a host listen on the same port.
    socket.set_reuse_address(true)?;
    #[cfg(all(unix, not(target_os = "linux"), not(target_os = "solaris")))]
    socket.set_reuse_port(true)?;
    socket.bind(&SockAddr::from(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))))?;
    Ok(socket)
}

impl Multicast {
    /// Joins the multicast groups of `protocol`, which share a port, on all interfaces. Messages
    /// can be sent only if `send_from` is given: the address at which the protocol is offered. They
    /// are sent from there, since receivers may take the source for the sender's address.
    ///
    /// # Errors
    ///
    /// Returns an error if the port cannot be bound, or `groups` is empty.
    pub(crate) fn open(
        runtime: &Arc<dyn Runtime>,
        protocol: Ppid,
        groups: Vec<SocketAddrV4>,
        send_from: Option<&TransportAddress>,
    ) -> io::Result<Self> {
        let port = groups.first().ok_or(io::ErrorKind::InvalidInput)?.port();
        let listener = udp_socket(port)?;
        for group in &groups {
            for interface in interfaces::version_4() {
                // Ignore the error of an interface without multicast: it carries no announcements.
                let _ = listener.join_multicast_v4(group.ip(), &interface);
            }
        }
        let sender = match send_from {
            Some(address) => {
                let sender = udp_socket(address.port)?;
                sender.set_multicast_ttl_v4(TIME_TO_LIVE)?;
                Some(sender)
            }
            None => None,
        };
        let sources = match send_from {
            Some(address) if !address.addresses.iter().any(IpAddr::is_unspecified) => {
                address.addresses.to_vec()
            }
            _ => Vec::new(),
        };
        let receiver = UdpSocket::from(listener.try_clone()?);
        let listener = runtime.register(runtime::Socket::new(listener))?;
        Ok(Self { protocol, groups, listener, receiver, sender, sources })
    }

    /// Returns the protocol of the messages.
    #[must_use]
    pub(crate) fn protocol(&self) -> Ppid {
        self.protocol
    }

    /// Sends a message to all groups, on each interface whose address is among the sources. Errors
    /// are ignored, since any datagram may be lost.
    pub(crate) fn send(&self, payload: &[u8]) {
        let Some(sender) = &self.sender else { return };
        for interface in interfaces::version_4() {
            if !self.sources.is_empty() && !self.sources.contains(&interface.into()) {
                continue;
            }
            if sender.set_multicast_if_v4(&interface).is_ok() {
                for group in &self.groups {
                    let _ = sender.send_to(payload, &SockAddr::from(*group));
                }
            }
        }
    }

    /// Polls for the next message. Returns it with its source address.
    ///
    /// # Errors
    ///
    /// Returns the socket's error; further messages may follow.
    pub(crate) fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<(SocketAddr, UserMessage)>> {
        let mut buffer = [0; DATAGRAM_SIZE];
        let mut received = None;
        ready!(self.listener.poll_io(cx, Interest::Readable, &mut |_| {
            received = Some(self.receiver.recv_from(&mut buffer)?);
            Ok(())
        }))?;
        let (length, source) = received.expect("set when the operation succeeds");
        let payload = Bytes::copy_from_slice(&buffer[..length]);
        Poll::Ready(Ok((source, UserMessage::new(self.protocol, payload))))
    }
}
