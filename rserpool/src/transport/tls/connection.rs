//! Connections.

use std::fmt;
use std::io::{self, Read};
use std::net::IpAddr;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use rserpool_proto::Identity;
use rserpool_proto::wire::{Ppid, TransportAddress, TransportProtocol, UserMessage};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, HandshakeKind, ServerConfig, ServerConnection};

use super::End;
use super::failure::{self, NotTls};
use super::verifier::{PeerVerifier, identity};
use crate::runtime::Runtime;
use crate::timer::LazyTimer;
use crate::transport::tcp::framing::Framing;
use crate::transport::tcp::outgoing::Outgoing;
use crate::transport::{Connection, Event, Paths, SendError};

/// Maximum time for a handshake. Not from the RFCs: twice the time that sessions give to a server.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Length of a record's header, which ends with the length of what follows.
const RECORD_HEADER: usize = 5;

/// First byte of the first record of an end: a handshake or an alert (RFC 8446 section 5.1).
const FIRST_RECORD: [u8; 2] = [22, 21];

/// A connection over which TLS runs.
pub(super) struct TlsConnection {
    runtime: Arc<dyn Runtime>,
    inner: Box<dyn Connection>,
    tls: rustls::Connection,
    verifier: PeerVerifier,
    state: State,
    framing: Framing,
    /// Decrypted bytes that are not a whole message yet.
    incoming: BytesMut,
    /// Bytes that are not encrypted yet.
    outgoing: Outgoing,
    /// Records that the connection below has not accepted yet.
    encrypted: Bytes,
    /// The error that ended the receiving direction. What was decrypted before is delivered first.
    failure: Option<io::Error>,
    /// True if the connection below accepts no more.
    broken: bool,
    /// True once the first bytes of the peer were recognized as TLS.
    is_tls: bool,
    peer_closed: bool,
    end_sent: bool,
    notified: bool,
}

enum State {
    /// The connection below is not established.
    Connecting,
    Handshaking {
        deadline: Instant,
        timer: LazyTimer,
        /// The addresses of a dialled connection, for its first event.
        ends: Option<(TransportAddress, TransportAddress)>,
    },
    Open,
    Over,
}

impl fmt::Debug for TlsConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsConnection").field("inner", &self.inner).finish_non_exhaustive()
    }
}

/// Returns the name under which sessions with a server are kept for resumption. It is not sent.
fn session_name(peer: &TransportAddress) -> Result<ServerName<'static>, rustls::Error> {
    let host = match peer.host() {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    };
    let name = format!("h{host:x}.p{}.rserpool", peer.port);
    ServerName::try_from(name).map_err(|_| rustls::Error::General("not a name".to_owned()))
}

impl TlsConnection {
    /// Returns a connection that performs the client's handshake once `inner` is established.
    pub(super) fn dialled(
        runtime: Arc<dyn Runtime>,
        end: End<ClientConfig>,
        framing: Framing,
        inner: Box<dyn Connection>,
    ) -> io::Result<Self> {
        let name = session_name(inner.peer()).map_err(io::Error::other)?;
        let tls = ClientConnection::new(end.config, name).map_err(io::Error::other)?;
        Ok(Self::new(runtime, tls.into(), end.verifier, State::Connecting, framing, inner))
    }

    /// Returns a connection that performs the server's handshake over `inner`, which is
    /// established.
    pub(super) fn accepted(
        runtime: Arc<dyn Runtime>,
        end: End<ServerConfig>,
        framing: Framing,
        inner: Box<dyn Connection>,
    ) -> io::Result<Self> {
        let tls = ServerConnection::new(end.config).map_err(io::Error::other)?;
        let state = State::handshaking(&*runtime, None);
        Ok(Self::new(runtime, tls.into(), end.verifier, state, framing, inner))
    }

    fn new(
        runtime: Arc<dyn Runtime>,
        tls: rustls::Connection,
        verifier: PeerVerifier,
        state: State,
        framing: Framing,
        inner: Box<dyn Connection>,
    ) -> Self {
        Self {
            runtime,
            inner,
            tls,
            verifier,
            state,
            framing,
            incoming: BytesMut::new(),
            outgoing: Outgoing::default(),
            encrypted: Bytes::new(),
            failure: None,
            broken: false,
            is_tls: false,
            peer_closed: false,
            end_sent: false,
            notified: false,
        }
    }

    fn lost(&mut self, error: io::Error) -> Event {
        self.state = State::Over;
        Event::Lost(error)
    }

    /// Logs a failure of TLS, and sends the alert that the peer is to receive.
    fn failed(&mut self, cx: &mut Context<'_>, error: io::Error) -> io::Error {
        let _ = self.poll_records(cx);
        let _ = self.inner.poll_ready(cx);
        failure::log(self.runtime.now(), self.inner.peer(), &error);
        error
    }

    /// Performs the handshake. Returns the addresses of a dialled connection.
    pub(super) fn poll_handshake(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Option<(TransportAddress, TransportAddress)>>> {
        loop {
            let _ = self.poll_records(cx);
            let _ = self.inner.poll_ready(cx);
            let State::Handshaking { deadline, timer, ends } = &mut self.state else {
                return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
            };
            if !self.tls.is_handshaking() {
                let ends = ends.take();
                if let Err(error) = self.verify_again() {
                    self.state = State::Over;
                    return Poll::Ready(Err(self.failed(cx, error)));
                }
                self.state = State::Open;
                return Poll::Ready(Ok(ends));
            }
            let received = match self.inner.poll_event(cx) {
                Poll::Ready(Event::Message(message)) => self.decrypt(&message.payload),
                Poll::Ready(Event::Lost(error)) => Err(error),
                Poll::Ready(Event::Closed) => Err(io::ErrorKind::UnexpectedEof.into()),
                Poll::Ready(
                    Event::Established { .. }
                    | Event::Path { .. }
                    | Event::Addresses { .. }
                    | Event::SendFailed(_),
                ) => Ok(()),
                Poll::Pending => {
                    ready!(timer.poll(cx, &self.runtime, Some(*deadline)));
                    Err(io::ErrorKind::TimedOut.into())
                }
            };
            if let Err(error) = received {
                self.state = State::Over;
                return Poll::Ready(Err(self.failed(cx, error)));
            }
        }
    }

    /// Verifies the peer's certificates if the handshake resumed a session, without them.
    fn verify_again(&self) -> io::Result<()> {
        if self.tls.handshake_kind() != Some(HandshakeKind::Resumed) {
            return Ok(());
        }
        let verified = self.verifier.verify(self.tls.peer_certificates());
        verified.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }

    /// Decrypts bytes that were received.
    fn decrypt(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        if !std::mem::replace(&mut self.is_tls, true)
            && bytes.first().is_some_and(|first| !FIRST_RECORD.contains(first))
        {
            return Err(io::Error::new(io::ErrorKind::InvalidData, NotTls));
        }
        while !bytes.is_empty() && !self.peer_closed {
            if self.tls.read_tls(&mut bytes)? == 0 {
                break;
            }
            let state = match self.tls.process_new_packets() {
                Ok(state) => state,
                Err(error) => {
                    // The records before the bad one.
                    let mut intact = Vec::new();
                    let _ = self.tls.reader().read_to_end(&mut intact);
                    self.incoming.extend_from_slice(&intact);
                    return Err(io::Error::new(io::ErrorKind::InvalidData, error));
                }
            };
            self.peer_closed = state.peer_has_closed();
            let (start, length) = (self.incoming.len(), state.plaintext_bytes_to_read());
            if length > 0 {
                self.incoming.resize(start + length, 0);
                self.tls.reader().read_exact(&mut self.incoming[start..])?;
            }
        }
        Ok(())
    }

    /// Passes the records that TLS has produced to the connection below. Pending while records are
    /// left.
    fn poll_records(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // Only SCTP keeps the boundaries of records.
        let whole = self.inner.peer().protocol != TransportProtocol::Sctp;
        loop {
            if self.broken {
                self.encrypted.clear();
                return Poll::Ready(());
            }
            if self.encrypted.is_empty() {
                let mut records = Vec::new();
                while self.tls.wants_write() {
                    // Writing to a vector does not fail.
                    let _ = self.tls.write_tls(&mut records);
                }
                if records.is_empty() {
                    return Poll::Ready(());
                }
                self.encrypted = records.into();
            }
            ready!(self.inner.poll_ready(cx));
            let length = self.encrypted.len();
            let record = match self.encrypted.get(3..RECORD_HEADER) {
                Some(&[high, low]) if !whole => {
                    length.min(RECORD_HEADER + usize::from(u16::from_be_bytes([high, low])))
                }
                _ => length,
            };
            let record = self.encrypted.split_to(record);
            self.broken = self.inner.send(UserMessage::new(Ppid::NONE, record)).is_err();
        }
    }

    /// Encrypts and writes the bytes to be sent. Pending while bytes are left.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.poll_records(cx));
            if self.outgoing.is_empty() || !matches!(self.state, State::Open) || self.broken {
                // Write what the connection below has accepted.
                let _ = self.inner.poll_ready(cx);
                return Poll::Ready(());
            }
            let mut writer = self.tls.writer();
            // All records were taken, so TLS has room.
            let write = |slices: &[io::IoSlice<'_>]| {
                Poll::Ready(io::Write::write_vectored(&mut writer, slices))
            };
            let written = self.outgoing.poll_write_with(write);
            self.broken |= matches!(written, Poll::Ready(Err(_)));
        }
    }

    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        let _ = self.poll_write(cx);
        loop {
            match self.framing.event(&mut self.incoming) {
                Ok(Some(event)) => return Poll::Ready(event),
                Ok(None) => {}
                Err(error) => return Poll::Ready(self.lost(error)),
            }
            if let Some(error) = self.failure.take() {
                return Poll::Ready(self.lost(error));
            }
            if self.peer_closed {
                let end = self.framing.end_of_stream(&mut self.incoming);
                return Poll::Ready(end.unwrap_or_else(|error| self.lost(error)));
            }
            if self.incoming.is_empty() {
                // An idle connection does not hold a buffer.
                self.incoming = BytesMut::new();
            }
            match ready!(self.inner.poll_event(cx)) {
                Event::Message(message) => {
                    if let Err(error) = self.decrypt(&message.payload) {
                        self.failure = Some(self.failed(cx, error));
                    }
                    if self.tls.wants_write() {
                        let _ = self.poll_write(cx);
                    }
                }
                // Without the closing alert, the stream may have been cut off by anybody.
                Event::Closed => {
                    return Poll::Ready(self.lost(io::ErrorKind::UnexpectedEof.into()));
                }
                Event::Lost(error) => return Poll::Ready(self.lost(error)),
                event @ (Event::Path { .. } | Event::Addresses { .. }) => {
                    return Poll::Ready(event);
                }
                Event::Established { .. } | Event::SendFailed(_) => {}
            }
        }
    }
}

impl State {
    fn handshaking(
        runtime: &dyn Runtime,
        ends: Option<(TransportAddress, TransportAddress)>,
    ) -> Self {
        let deadline = runtime.now() + HANDSHAKE_TIMEOUT;
        Self::Handshaking { deadline, timer: LazyTimer::default(), ends }
    }
}

impl Connection for TlsConnection {
    fn peer(&self) -> &TransportAddress {
        self.inner.peer()
    }

    fn identity(&self) -> Option<Identity> {
        Some(identity(self.tls.peer_certificates()))
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        loop {
            match self.state {
                State::Over => {
                    return Poll::Ready(Event::Lost(io::ErrorKind::NotConnected.into()));
                }
                State::Connecting => match ready!(self.inner.poll_event(cx)) {
                    Event::Established { local, peer } => {
                        self.state = State::handshaking(&*self.runtime, Some((local, peer)));
                    }
                    Event::Lost(error) => return Poll::Ready(self.lost(error)),
                    Event::Closed => {
                        return Poll::Ready(self.lost(io::ErrorKind::UnexpectedEof.into()));
                    }
                    Event::Message(_)
                    | Event::Path { .. }
                    | Event::Addresses { .. }
                    | Event::SendFailed(_) => {}
                },
                State::Handshaking { .. } => match ready!(self.poll_handshake(cx)) {
                    Ok(Some((local, peer))) => {
                        return Poll::Ready(Event::Established { local, peer });
                    }
                    Ok(None) => {}
                    Err(error) => return Poll::Ready(self.lost(error)),
                },
                State::Open => return self.poll_open(cx),
            }
        }
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.poll_write(cx).is_pending() && self.outgoing.is_high() {
            return Poll::Pending;
        }
        Poll::Ready(())
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        ready!(self.poll_write(cx));
        self.inner.poll_flush(cx)
    }

    fn send(&mut self, message: UserMessage) -> Result<(), SendError> {
        if !matches!(self.state, State::Open) || self.end_sent || self.broken {
            return Err(SendError::NotConnected);
        }
        if self.outgoing.is_full() {
            return Err(SendError::Full);
        }
        self.framing.encode(&message, &mut self.outgoing)
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if matches!(self.state, State::Open) {
            if !std::mem::replace(&mut self.end_sent, true) {
                self.framing.encode_end(&mut self.outgoing);
            }
            ready!(self.poll_write(cx));
            if !std::mem::replace(&mut self.notified, true) {
                self.tls.send_close_notify();
            }
            ready!(self.poll_records(cx));
        }
        ready!(self.inner.poll_close(cx));
        self.state = State::Over;
        Poll::Ready(())
    }

    fn set_heartbeat(&mut self, interval: Duration) -> io::Result<()> {
        self.inner.set_heartbeat(interval)
    }

    fn max_message_size(&mut self) -> usize {
        self.framing.max_message_size()
    }

    fn paths(&mut self) -> Option<&mut dyn Paths> {
        self.inner.paths()
    }
}
