//! Announcements of registrars over UDP multicast (RFC 5352 section 3.6).
//!
//! They carry no transport parameters: the source of the datagram is the registrar's ASAP
//! endpoint, which is how rsplib has it. RFC 5352 would have the source address and port 3863,
//! which is the same for a registrar at its usual port.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::runtime::{Interest, RegisteredSocket, Runtime};

/// Where registrars announce themselves: IANA's group (RFC 5352 section 8.4), and rsplib's.
pub const GROUPS: [SocketAddrV4; 2] = [
    SocketAddrV4::new(Ipv4Addr::new(224, 0, 1, 185), 3863),
    SocketAddrV4::new(Ipv4Addr::new(239, 0, 0, 50), 3863),
];

/// How far announcements go: as far as rsplib's.
const TIME_TO_LIVE: u32 = 30;

/// More than any announcement.
const DATAGRAM_SIZE: usize = 2048;

/// Listens for announcements, and sends them where it has a port to do so from.
#[derive(Debug)]
pub struct Announcements {
    listener: Box<dyn RegisteredSocket>,
    /// The same socket, of a type that receives into plain bytes.
    receiver: UdpSocket,
    sender: Option<Socket>,
}

fn udp_socket(port: u16) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    // Everyone on this host listens at the same port.
    socket.set_reuse_address(true)?;
    #[cfg(all(unix, not(target_os = "linux"), not(target_os = "solaris")))]
    socket.set_reuse_port(true)?;
    socket.bind(&SockAddr::from(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))))?;
    Ok(socket)
}

/// The addresses of the interfaces that may have others behind them.
fn interfaces() -> Vec<Ipv4Addr> {
    let found = if_addrs::get_if_addrs().unwrap_or_default();
    found
        .iter()
        .filter_map(|interface| match interface.ip() {
            IpAddr::V4(address) if !address.is_loopback() => Some(address),
            IpAddr::V4(_) | IpAddr::V6(_) => None,
        })
        .collect()
}

impl Announcements {
    /// Joins the groups on all interfaces. With `send_from`, a registrar's ASAP port,
    /// announcements can be sent.
    ///
    /// # Errors
    ///
    /// When the ports cannot be had.
    pub fn open(runtime: &Arc<dyn Runtime>, send_from: Option<u16>) -> io::Result<Self> {
        let listener = udp_socket(GROUPS[0].port())?;
        for group in GROUPS {
            for interface in interfaces() {
                // An interface without multicast is one where there are no announcements.
                let _ = listener.join_multicast_v4(group.ip(), &interface);
            }
        }
        let sender = match send_from {
            Some(port) => {
                let sender = udp_socket(port)?;
                sender.set_multicast_ttl_v4(TIME_TO_LIVE)?;
                Some(sender)
            }
            None => None,
        };
        let receiver = UdpSocket::from(listener.try_clone()?);
        Ok(Self { listener: runtime.register(listener)?, receiver, sender })
    }

    /// Sends an announcement to all groups on all interfaces. What cannot be sent now will be
    /// sent with the next one.
    pub fn send(&self, payload: &[u8]) {
        let Some(sender) = &self.sender else { return };
        for interface in interfaces() {
            if sender.set_multicast_if_v4(&interface).is_ok() {
                for group in GROUPS {
                    let _ = sender.send_to(payload, &SockAddr::from(group));
                }
            }
        }
    }

    /// The next datagram, and where it came from.
    ///
    /// # Errors
    ///
    /// What the socket says; others may follow.
    pub fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(SocketAddr, Bytes)>> {
        let mut buffer = [0; DATAGRAM_SIZE];
        let mut received = None;
        ready!(self.listener.poll_io(cx, Interest::Readable, &mut |_| {
            received = Some(self.receiver.recv_from(&mut buffer)?);
            Ok(())
        }))?;
        let (length, source) = received.expect("set when the operation succeeds");
        Poll::Ready(Ok((source, Bytes::copy_from_slice(&buffer[..length]))))
    }
}
