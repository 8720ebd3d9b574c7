//! TCP, for systems without SCTP ("the TCP profile").
//!
//! ASAP and ENRP messages are delimited by their length fields. Sessions use frames, see
//! [`framing`].

pub mod framing;
pub(super) mod outgoing;

use std::cell::RefCell;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::BytesMut;
use socket2::{Domain, Protocol, SockAddr, Socket, TcpKeepalive, Type};

use super::{Connection, Endpoint, Event, Purpose, SendError, Transport};
use crate::runtime::{self, Interest, RegisteredSocket, Runtime};
use framing::Framing;
use outgoing::Outgoing;
use rserpool_proto::wire::{TransportAddress, TransportProtocol, UserMessage};

/// Maximum number of bytes read at a time.
const READ_SIZE: usize = 64 * 1024;
/// Minimum expected length from which data is read directly into the connection's buffer, instead
/// of through the buffer that all connections share.
const LARGE: usize = 4096;
/// Room in the read buffer beyond the length of the last read, in bytes.
const HEADROOM: usize = 64;
/// Maximum number of reads of a closing connection before other connections are polled.
pub(super) const MAX_DRAIN: usize = 16;
/// Number of bytes of unread input from which most of it is handled before answers are written.
const MUCH: usize = 512;
/// Number of bytes from which answers are written although further messages were received.
const BATCH: usize = 32 * 1024;
/// Maximum number of connections that wait to be accepted.
const BACKLOG: i32 = 1024;

/// TCP transport.
#[derive(Debug, Clone, Copy)]
pub struct Tcp {
    max_message_size: usize,
}

impl Default for Tcp {
    fn default() -> Self {
        Self { max_message_size: 1024 * 1024 }
    }
}

impl Tcp {
    /// Returns TCP with the default settings.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the maximum size of a session's message, sent or received. Default: 1 MiB. Not from the
    /// RFCs: bounds the memory that a peer can take.
    #[must_use]
    pub fn max_message_size(mut self, bytes: usize) -> Self {
        self.max_message_size = bytes;
        self
    }
}

impl Transport for Tcp {
    fn protocol(&self) -> TransportProtocol {
        TransportProtocol::Tcp
    }

    fn open(
        &self,
        runtime: &Arc<dyn Runtime>,
        purpose: Purpose,
        listen: Option<&TransportAddress>,
    ) -> io::Result<Box<dyn Endpoint>> {
        let listener = match listen {
            None => None,
            Some(address) => {
                let address = only_address(address)?;
                let socket = new_socket(address)?;
                // Allows binding a port in TIME_WAIT. Not on Windows, where the option would let
                // two sockets listen at once.
                #[cfg(not(windows))]
                socket.set_reuse_address(true)?;
                socket.bind(&SockAddr::from(address))?;
                socket.listen(BACKLOG)?;
                let local = local_address(&socket)?;
                Some((runtime.register(runtime::Socket::new(socket))?, local))
            }
        };
        let framing = Framing::new(purpose, self.max_message_size);
        Ok(Box::new(TcpEndpoint { runtime: Arc::clone(runtime), framing, listener }))
    }
}

fn only_address(address: &TransportAddress) -> io::Result<SocketAddr> {
    let mut addresses = address.socket_addresses();
    match (address.protocol, addresses.next(), addresses.next()) {
        (TransportProtocol::Tcp, Some(only), None) => Ok(only),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{address} is not the address of a TCP port"),
        )),
    }
}

fn new_socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    Ok(socket)
}

fn local_address(socket: &Socket) -> io::Result<TransportAddress> {
    internet_address(socket.local_addr()?)
}

fn internet_address(address: SockAddr) -> io::Result<TransportAddress> {
    // An IPv6 socket reports IPv4 addresses as IPv4-mapped IPv6 addresses.
    address
        .as_socket()
        .map(|address| SocketAddr::new(address.ip().to_canonical(), address.port()))
        .map(TransportAddress::tcp)
        .ok_or_else(|| io::Error::other("not an Internet address"))
}

/// Sets the options of every connection. Data is sent at once. A peer that vanishes silently is
/// noticed after half a minute; so is one that does not read for that long while there is data to
/// send to it.
fn configure(socket: &Socket) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    keep_alive(socket, Duration::from_secs(5), Duration::from_secs(2), Duration::from_secs(30))
}

/// Probes a peer that was silent for `idle`, once every `interval`, and closes the connection after
/// `timeout`.
fn keep_alive(
    socket: &Socket,
    idle: Duration,
    interval: Duration,
    timeout: Duration,
) -> io::Result<()> {
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(idle).with_interval(interval))?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(timeout))?;
    #[cfg(not(target_os = "linux"))]
    let _ = timeout;
    Ok(())
}

#[derive(Debug)]
struct TcpEndpoint {
    runtime: Arc<dyn Runtime>,
    framing: Framing,
    listener: Option<(Box<dyn RegisteredSocket>, TransportAddress)>,
}

impl TcpEndpoint {
    fn dial(&self, to: &TransportAddress) -> io::Result<Box<dyn RegisteredSocket>> {
        let address = only_address(to)?;
        let socket = new_socket(address)?;
        configure(&socket)?;
        match socket.connect(&SockAddr::from(address)) {
            Ok(()) => {}
            Err(error) if in_progress(&error) => {}
            Err(error) => return Err(error),
        }
        self.runtime.register(runtime::Socket::new(socket))
    }
}

fn in_progress(error: &io::Error) -> bool {
    #[cfg(unix)]
    let in_progress = error.raw_os_error() == Some(libc::EINPROGRESS);
    #[cfg(not(unix))]
    let in_progress = false;
    in_progress || error.kind() == io::ErrorKind::WouldBlock
}

impl Endpoint for TcpEndpoint {
    fn local(&self) -> Option<&TransportAddress> {
        self.listener.as_ref().map(|(_, local)| local)
    }

    fn connect(&mut self, to: &TransportAddress) -> Box<dyn Connection> {
        let state = match self.dial(to) {
            Ok(io) => State::Connecting(io),
            Err(error) => State::Failed(Some(error)),
        };
        Box::new(TcpConnection::new(state, self.framing, to.clone()))
    }

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Box<dyn Connection>>> {
        let Some((listener, _)) = &mut self.listener else { return Poll::Pending };
        let mut accepted = None;
        ready!(listener.poll_io(cx, Interest::Readable, &mut |socket| {
            accepted = Some(socket.get().accept()?);
            Ok(())
        }))?;
        let (socket, peer) = accepted.expect("set when the operation succeeds");
        socket.set_nonblocking(true)?;
        // Setting the options may fail if the connection was reset meanwhile. The first event
        // reports the reset.
        let _ = configure(&socket);
        let peer = internet_address(peer)?;
        let io = self.runtime.register(runtime::Socket::new(socket))?;
        Poll::Ready(Ok(Box::new(TcpConnection::new(State::Open(io), self.framing, peer))))
    }
}

/// Returns the length of unread input at which answers are written next. Messages that were received
/// together are answered by few writes, but not by one: the peer has some answers to work on while the
/// rest is handled.
fn next_write(unread: usize) -> usize {
    if unread >= MUCH { unread / 4 } else { unread / 2 }
}

thread_local! {
    /// Read buffer shared by all connections of a thread: most reads are small, but each needs room
    /// for a large one.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_SIZE].into());
}

#[derive(Debug)]
struct TcpConnection {
    state: State,
    framing: Framing,
    peer: TransportAddress,
    incoming: BytesMut,
    /// Number of bytes of the last read.
    last_read: usize,
    outgoing: Outgoing,
    /// The length of `incoming` at which `outgoing` is written next.
    write_at: usize,
    /// An error of writing, reported when there is nothing left to read.
    write_error: Option<io::Error>,
    end_sent: bool,
}

#[derive(Debug)]
enum State {
    Connecting(Box<dyn RegisteredSocket>),
    Open(Box<dyn RegisteredSocket>),
    /// Dialling failed, or the connection is over.
    Failed(Option<io::Error>),
}

impl TcpConnection {
    fn new(state: State, framing: Framing, peer: TransportAddress) -> Self {
        Self {
            state,
            framing,
            peer,
            incoming: BytesMut::new(),
            last_read: 0,
            outgoing: Outgoing::default(),
            write_at: 0,
            write_error: None,
            end_sent: false,
        }
    }

    fn lost(&mut self, error: io::Error) -> Event {
        self.state = State::Failed(None);
        Event::Lost(error)
    }

    /// Writes until the socket is full. Pending while data is left.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let State::Open(io) = &mut self.state else { return Poll::Ready(()) };
        while !self.outgoing.is_empty() && self.write_error.is_none() {
            let outgoing = &mut self.outgoing;
            let result = ready!(io.poll_io(cx, Interest::Writable, &mut |socket| {
                outgoing.write_to(socket.get())
            }));
            self.write_error = result.err();
        }
        Poll::Ready(())
    }

    /// Reads from the socket. Returns the number of bytes, 0 at the end of the stream.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let State::Open(io) = &mut self.state else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        let incoming = &mut self.incoming;
        if incoming.is_empty() {
            // An idle connection does not hold a buffer.
            *incoming = BytesMut::new();
        }
        // After a large message, expect the next one to be as long. If a read does not fill the
        // little room beyond that, there was no more data.
        let expected = (self.last_read + HEADROOM).min(READ_SIZE);
        let direct = incoming.is_empty() && expected >= LARGE;
        SCRATCH.with_borrow_mut(|scratch| {
            let before = incoming.len();
            let polled = io.poll_io(cx, Interest::Readable, &mut |socket| {
                let mut socket = socket.get();
                let (read, room) = if direct && incoming.is_empty() {
                    let mut buffer = BytesMut::zeroed(expected);
                    let read = socket.read(&mut buffer)?;
                    buffer.truncate(read);
                    // A short message must not keep a large buffer.
                    *incoming = match read < expected / 2 {
                        true => BytesMut::from(&buffer[..]),
                        false => buffer,
                    };
                    (read, expected)
                } else {
                    let read = socket.read(scratch)?;
                    incoming.extend_from_slice(&scratch[..read]);
                    (read, scratch.len())
                };
                // The buffer is not full, so another read would find nothing.
                let drained = read > 0 && read < room;
                if drained { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
            });
            match incoming.len() - before {
                0 => polled.map_ok(|()| 0),
                read => {
                    self.last_read = read;
                    Poll::Ready(Ok(read))
                }
            }
        })
    }

    fn poll_established(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Event>> {
        let State::Connecting(io) = &mut self.state else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        ready!(io.poll_io(
            cx,
            Interest::Writable,
            &mut |socket| match socket.get().take_error()? {
                Some(error) => Err(error),
                // The socket is writable and has no error, but is not connected: the wake-up was too
                // early.
                None => match socket.get().peer_addr() {
                    Err(error) if error.kind() == io::ErrorKind::NotConnected => {
                        Err(io::ErrorKind::WouldBlock.into())
                    }
                    result => result.map(drop),
                },
            }
        ))?;
        let local = local_address(io.socket().get())?;
        let peer = internet_address(io.socket().get().peer_addr()?)?;
        if let State::Connecting(io) = std::mem::replace(&mut self.state, State::Failed(None)) {
            self.state = State::Open(io);
        }
        Poll::Ready(Ok(Event::Established { local, peer }))
    }
}

impl Connection for TcpConnection {
    fn peer(&self) -> &TransportAddress {
        &self.peer
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        match &mut self.state {
            State::Failed(error) => {
                let error = error.take().unwrap_or_else(|| io::ErrorKind::NotConnected.into());
                return Poll::Ready(Event::Lost(error));
            }
            State::Connecting(_) => {
                let result = ready!(self.poll_established(cx));
                return Poll::Ready(result.unwrap_or_else(|error| self.lost(error)));
            }
            State::Open(_) => {}
        }
        if self.incoming.len() <= self.write_at || self.has_backlog() {
            let _ = self.poll_write(cx);
            self.write_at = next_write(self.incoming.len());
        }
        loop {
            let event = self.framing.event(&mut self.incoming);
            if let Ok(Some(event)) = event {
                return Poll::Ready(event);
            }
            let _ = self.poll_write(cx);
            if let Err(error) = event {
                return Poll::Ready(self.lost(error));
            }
            let read = self.poll_read(cx);
            self.write_at = next_write(self.incoming.len());
            if read.is_pending()
                && let Some(error) = self.write_error.take()
            {
                return Poll::Ready(self.lost(error));
            }
            match ready!(read) {
                Ok(0) => {
                    let end = self.framing.end_of_stream(&mut self.incoming);
                    return Poll::Ready(end.unwrap_or_else(|error| self.lost(error)));
                }
                Ok(_) => {}
                Err(error) => return Poll::Ready(self.lost(error)),
            }
        }
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if matches!(self.state, State::Connecting(_)) {
            return Poll::Ready(());
        }
        if self.poll_write(cx).is_pending() && self.outgoing.is_high() {
            return Poll::Pending;
        }
        Poll::Ready(())
    }

    fn has_backlog(&self) -> bool {
        self.outgoing.len() >= BATCH
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_write(cx)
    }

    fn send(&mut self, message: UserMessage) -> Result<(), SendError> {
        let over = self.end_sent || self.write_error.is_some();
        if !matches!(self.state, State::Open(_)) || over {
            return Err(SendError::NotConnected);
        }
        if self.outgoing.is_full() {
            return Err(SendError::Full);
        }
        self.framing.encode(&message, &mut self.outgoing)
    }

    fn max_message_size(&mut self) -> usize {
        self.framing.max_message_size()
    }

    /// Rounds the interval up to whole seconds. A peer that is silent for four intervals is lost;
    /// so is one that does not read for that long while there is data to send to it.
    fn set_heartbeat(&mut self, interval: Duration) -> io::Result<()> {
        let State::Open(io) = &self.state else { return Err(io::ErrorKind::NotConnected.into()) };
        let interval = Duration::from_secs(interval.as_millis().div_ceil(1000).max(1) as u64);
        keep_alive(io.socket().get(), interval, interval, 4 * interval)
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !std::mem::replace(&mut self.end_sent, true) {
            self.framing.encode_end(&mut self.outgoing);
        }
        ready!(self.poll_write(cx));
        if let State::Open(io) = &self.state {
            let _ = io.socket().get().shutdown(std::net::Shutdown::Write);
        }
        // Read the remaining data first: closing a socket with unread data resets the connection,
        // and data just written may be lost with it.
        for _ in 0..MAX_DRAIN {
            match ready!(self.poll_read(cx)) {
                Ok(0) | Err(_) => {
                    self.state = State::Failed(None);
                    return Poll::Ready(());
                }
                Ok(_) => self.incoming.clear(),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_heartbeat_is_that_of_one_connection() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = new_socket(listener.local_addr().unwrap()).unwrap();
        socket.set_nonblocking(false).unwrap();
        socket.connect(&listener.local_addr().unwrap().into()).unwrap();
        configure(&socket).unwrap();
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(Duration::from_secs(30)));
        let observer = socket.try_clone().unwrap();
        let mut connection = TcpConnection::new(
            State::Open(Box::new(Unregistered(runtime::Socket::new(socket)))),
            Framing::Session { max_message_size: 1 },
            TransportAddress::tcp(listener.local_addr().unwrap()),
        );
        connection.set_heartbeat(Duration::from_millis(1001)).unwrap();
        assert_eq!(observer.tcp_keepalive_time().unwrap(), Duration::from_secs(2));
        assert_eq!(observer.tcp_keepalive_interval().unwrap(), Duration::from_secs(2));
        assert_eq!(observer.tcp_user_timeout().unwrap(), Some(Duration::from_secs(8)));
        connection.state = State::Failed(None);
        assert!(connection.set_heartbeat(Duration::from_secs(1)).is_err());
    }

    /// Test socket whose operations are always pending.
    #[derive(Debug)]
    struct Unregistered(runtime::Socket);

    impl RegisteredSocket for Unregistered {
        fn socket(&self) -> &runtime::Socket {
            &self.0
        }

        fn poll_io(
            &mut self,
            _: &mut Context<'_>,
            _: Interest,
            _: &mut dyn FnMut(&runtime::Socket) -> io::Result<()>,
        ) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }
}
