//! One SCTP association on a socket of its own.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rserpool_proto::Identity;
use rserpool_proto::wire::{Ppid, TransportAddress, UserMessage};
use socket2::{MsgHdr, Socket};

use super::Sctp;
use super::control::{self, MessageInfo};
use super::dial::Dial;
use super::notification::{Notification, PathChange};
use super::options;
use super::receiver::{Piece, Receiver};
use crate::runtime::{self, Interest, RegisteredSocket, Runtime};
use crate::sys::AssociationId;
use crate::transport::{Connection, Event, Paths, Purpose, SendError};

/// High-water mark: a connection is not ready for more messages while this number of bytes is
/// unsent.
const HIGH_WATER: usize = 128 * 1024;

/// Maximum number of unsent bytes. Beyond it, a message that is sent without waiting for readiness
/// is refused.
const WRITE_LIMIT: usize = 2 * HIGH_WATER;

/// Announces that a session closes in good order: an ASAP message of an unassigned type, whose two
/// high bits tell others to discard it (RFC 5354 section 4).
const END_OF_SESSION: &[u8] = &[0x3f, 0, 0, 4];

/// Kind of the socket.
#[derive(Debug, Clone, Copy)]
pub(super) enum Style {
    OneToOne,
    PeeledOff(AssociationId),
}

impl Style {
    fn association(self) -> AssociationId {
        match self {
            Self::OneToOne => 0,
            Self::PeeledOff(association) => association,
        }
    }
}

#[derive(Debug)]
pub(super) struct SctpConnection {
    state: State,
    purpose: Purpose,
    peer: TransportAddress,
    sctp: Sctp,
    /// The authenticated identity of the peer of an established association.
    identity: Option<Identity>,
    /// The maximum size of a message and the number of streams, once they are known.
    send_limits: Option<(usize, u16)>,
    /// The message that is being received.
    incoming: BytesMut,
    incoming_info: MessageInfo,
    receiver: Receiver,
    /// Messages that are not sent yet, and their length in bytes.
    outgoing: VecDeque<UserMessage>,
    outgoing_bytes: usize,
    end: End,
}

#[derive(Debug)]
enum State {
    /// The endpoint establishes the association for this connection.
    Dialling(Arc<Dial>, Arc<dyn Runtime>),
    /// The kernel establishes the association on this connection's own socket.
    Connecting(Box<dyn RegisteredSocket>),
    Open(Box<dyn RegisteredSocket>, Style),
    Over(Option<io::Error>),
}

/// State of closing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    No,
    /// The close is announced, and no more messages are accepted.
    Announced,
    /// The kernel was told to shut the association down.
    Shutdown,
}

/// Outcome of a read.
#[derive(Debug)]
enum Read {
    Notification(Option<Notification>),
    Message(UserMessage),
    /// A part of a message, or a message that was too long and is dropped.
    Part,
    End,
}

impl SctpConnection {
    fn new(state: State, purpose: Purpose, peer: TransportAddress, sctp: &Sctp) -> Self {
        Self {
            state,
            purpose,
            peer,
            sctp: sctp.clone(),
            identity: None,
            incoming: BytesMut::new(),
            incoming_info: MessageInfo::default(),
            receiver: Receiver::new(),
            send_limits: None,
            outgoing: VecDeque::new(),
            outgoing_bytes: 0,
            end: End::No,
        }
    }

    pub(super) fn dialling(
        dial: Arc<Dial>,
        runtime: Arc<dyn Runtime>,
        purpose: Purpose,
        peer: TransportAddress,
        sctp: &Sctp,
    ) -> Self {
        Self::new(State::Dialling(dial, runtime), purpose, peer, sctp)
    }

    pub(super) fn connecting(
        io: Box<dyn RegisteredSocket>,
        purpose: Purpose,
        peer: TransportAddress,
        sctp: &Sctp,
    ) -> Self {
        Self::new(State::Connecting(io), purpose, peer, sctp)
    }

    pub(super) fn accepted(
        io: Box<dyn RegisteredSocket>,
        style: Style,
        purpose: Purpose,
        sctp: &Sctp,
    ) -> io::Result<Self> {
        let peer = options::peer_addresses(io.socket().get(), style.association())?;
        let mut accepted = Self::new(State::Open(io, style), purpose, peer, sctp);
        accepted.identify()?;
        accepted.note_peer()?;
        Ok(accepted)
    }

    pub(super) fn failed(
        error: io::Error,
        purpose: Purpose,
        peer: TransportAddress,
        sctp: &Sctp,
    ) -> Self {
        Self::new(State::Over(Some(error)), purpose, peer, sctp)
    }

    /// Returns the socket, and the identifier of this association on it.
    pub(super) fn socket(&self) -> io::Result<(&Socket, AssociationId)> {
        let State::Open(io, style) = &self.state else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        Ok((io.socket().get(), style.association()))
    }

    fn lost(&mut self, error: io::Error) -> Event {
        self.state = State::Over(None);
        Event::Lost(error)
    }

    /// Handles the shutdown of the association by the peer. In a session, that is an orderly close
    /// only if the peer announced it: a process that crashes may shut the association down, too.
    fn ended(&mut self) -> Event {
        self.state = State::Over(None);
        match self.purpose {
            Purpose::Protocol(_) | Purpose::Bytes => Event::Closed,
            Purpose::Session => Event::Lost(io::ErrorKind::ConnectionReset.into()),
        }
    }

    fn poll_established(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Event>> {
        match &mut self.state {
            State::Dialling(dial, runtime) => {
                let (socket, association) = ready!(dial.poll(cx))?;
                let io = runtime.register(runtime::Socket::new(socket))?;
                self.state = State::Open(io, Style::PeeledOff(association));
            }
            State::Connecting(_) => loop {
                match ready!(self.poll_read(cx))? {
                    Read::Notification(Some(Notification::Up(_))) => break self.opened(),
                    Read::Notification(Some(Notification::CannotStart(_) | Notification::Lost))
                    | Read::End => {
                        return Poll::Ready(Err(io::ErrorKind::ConnectionRefused.into()));
                    }
                    Read::Notification(_) | Read::Message(_) | Read::Part => {}
                }
            },
            State::Open(..) | State::Over(_) => {
                return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
            }
        }
        self.identify()?;
        self.note_peer()?;
        let (local, peer) = (Paths::local(self)?, self.peer.clone());
        Poll::Ready(Ok(Event::Established { local, peer }))
    }

    /// Authenticates the peer, if this end has keys.
    fn identify(&mut self) -> io::Result<()> {
        if let Some(keys) = &self.sctp.keys {
            let (socket, association) = self.socket()?;
            self.identity = Some(keys.identify(socket, association)?);
        }
        Ok(())
    }

    /// Updates the stored addresses of the peer from the kernel.
    fn note_peer(&mut self) -> io::Result<()> {
        self.peer = Paths::peer(self)?;
        let (socket, association) = self.socket()?;
        let paths = self.peer.addresses.len();
        if let Err(error) = options::budget_for_paths(socket, association, &self.sctp, paths) {
            tracing::debug!(%error, "cannot change the retransmission limit");
        }
        Ok(())
    }

    fn opened(&mut self) {
        if let State::Connecting(io) = std::mem::replace(&mut self.state, State::Over(None)) {
            self.state = State::Open(io, Style::OneToOne);
        }
    }

    /// Reads once.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Read>> {
        let (State::Open(io, _) | State::Connecting(io)) = &mut self.state else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        let (bytes, end_of_record) = match ready!(self.receiver.poll(cx, &mut **io))? {
            Piece::Notification(notification) => {
                return Poll::Ready(Ok(Read::Notification(notification)));
            }
            Piece::End => return Poll::Ready(Ok(Read::End)),
            Piece::Data { bytes, info, end_of_record } => {
                self.incoming_info = info.unwrap_or(self.incoming_info);
                (bytes, end_of_record)
            }
        };
        let limit = self.sctp.max_message_size;
        if self.incoming.len() + bytes.len() > limit {
            let text = format!("a message is longer than {limit} bytes");
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, text)));
        }
        self.incoming.unsplit(bytes);
        if !end_of_record {
            return Poll::Ready(Ok(Read::Part));
        }
        let MessageInfo { stream, unordered, ppid } = self.incoming_info;
        let payload = std::mem::take(&mut self.incoming).freeze();
        let message = UserMessage { stream, unordered, ..UserMessage::new(ppid, payload) };
        Poll::Ready(Ok(Read::Message(message)))
    }

    /// Sends messages until the socket is full. Pending while messages are left.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let State::Open(io, style) = &mut self.state else { return Poll::Ready(()) };
        while let Some(message) = self.outgoing.front() {
            let control = control::of_message(message, style.association());
            let slices = [IoSlice::new(&message.payload)];
            let header = MsgHdr::new().with_buffers(&slices).with_control(&control);
            let result = ready!(io.poll_io(cx, Interest::Writable, &mut |socket| {
                socket.get().sendmsg(&header, libc::MSG_NOSIGNAL).map(drop)
            }));
            if let Err(error) = result {
                // The next read reports the state of the association.
                tracing::debug!(%error, "not sent");
                self.outgoing.clear();
                self.outgoing_bytes = 0;
                break;
            }
            self.outgoing_bytes -= message.payload.len();
            self.outgoing.pop_front();
        }
        Poll::Ready(())
    }

    /// Tells the kernel to shut the association down after the data sent so far.
    fn shut_down(&mut self) {
        let State::Open(io, style) = &self.state else { return };
        match style {
            Style::OneToOne => {
                let _ = io.socket().get().shutdown(Shutdown::Write);
            }
            Style::PeeledOff(association) => {
                let control = control::of_end(control::END, *association);
                let nothing = [IoSlice::new(&[])];
                let header = MsgHdr::new().with_buffers(&nothing).with_control(&control);
                let _ = io.socket().get().sendmsg(&header, libc::MSG_NOSIGNAL);
            }
        }
    }
}

impl Connection for SctpConnection {
    fn peer(&self) -> &TransportAddress {
        &self.peer
    }

    fn identity(&self) -> Option<Identity> {
        self.identity.clone()
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        match &mut self.state {
            State::Over(error) => {
                let error = error.take().unwrap_or_else(|| io::ErrorKind::NotConnected.into());
                return Poll::Ready(Event::Lost(error));
            }
            State::Dialling(..) | State::Connecting(_) => {
                let result = ready!(self.poll_established(cx));
                return Poll::Ready(result.unwrap_or_else(|error| self.lost(error)));
            }
            State::Open(..) => {}
        }
        let _ = self.poll_write(cx);
        loop {
            let read = match ready!(self.poll_read(cx)) {
                Ok(read) => read,
                Err(error) => return Poll::Ready(self.lost(error)),
            };
            match read {
                Read::Message(message) => {
                    let session = self.purpose == Purpose::Session;
                    if session && message.ppid == Ppid::ASAP && message.payload == END_OF_SESSION {
                        self.state = State::Over(None);
                        return Poll::Ready(Event::Closed);
                    }
                    return Poll::Ready(Event::Message(message));
                }
                Read::Part => {}
                Read::End => return Poll::Ready(self.ended()),
                Read::Notification(notification) => match notification {
                    Some(Notification::Lost | Notification::CannotStart(_)) => {
                        return Poll::Ready(self.lost(io::ErrorKind::ConnectionAborted.into()));
                    }
                    // A peer that restarted has lost the state of the connection, so the connection
                    // counts as lost.
                    Some(Notification::Restart) => {
                        return Poll::Ready(self.lost(io::ErrorKind::ConnectionReset.into()));
                    }
                    Some(Notification::ShutdownComplete) => return Poll::Ready(self.ended()),
                    Some(Notification::PartialDeliveryAborted) => self.incoming = BytesMut::new(),
                    Some(Notification::Path { address, change: PathChange::Available }) => {
                        return Poll::Ready(Event::Path { address, up: true });
                    }
                    Some(Notification::Path { address, change: PathChange::Unreachable }) => {
                        return Poll::Ready(Event::Path { address, up: false });
                    }
                    Some(Notification::Path { change: PathChange::AddedOrRemoved, .. }) => {
                        match self.note_peer().and_then(|()| Paths::local(self)) {
                            Ok(local) => {
                                let peer = self.peer.clone();
                                return Poll::Ready(Event::Addresses { local, peer });
                            }
                            // The association is over, which a later read reports.
                            Err(error) => tracing::debug!(%error, "addresses not known"),
                        }
                    }
                    Some(Notification::SendFailed(message)) => {
                        return Poll::Ready(Event::SendFailed(message));
                    }
                    Some(_) | None => {}
                },
            }
        }
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.poll_write(cx).is_pending() && self.outgoing_bytes >= HIGH_WATER {
            return Poll::Pending;
        }
        Poll::Ready(())
    }

    fn send(&mut self, message: UserMessage) -> Result<(), SendError> {
        let State::Open(io, style) = &self.state else { return Err(SendError::NotConnected) };
        if self.end != End::No {
            return Err(SendError::NotConnected);
        }
        let length = message.payload.len();
        let max = self.sctp.max_message_size;
        let limits = || send_limits(io.socket().get(), style.association(), max);
        let (limit, streams) = *self.send_limits.get_or_insert_with(limits);
        if length > limit {
            return Err(SendError::TooLong { length, limit });
        }
        if message.stream >= streams {
            return Err(SendError::NoStream { stream: message.stream, streams });
        }
        if self.outgoing_bytes >= WRITE_LIMIT {
            return Err(SendError::Full);
        }
        // SCTP has no messages without data (RFC 9260 section 3.3.1).
        if length == 0 {
            return Err(SendError::Empty);
        }
        self.outgoing_bytes += length;
        self.outgoing.push_back(message);
        Ok(())
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.end == End::No {
            self.end = End::Announced;
            if self.purpose == Purpose::Session {
                let end = UserMessage::new(Ppid::ASAP, Bytes::from_static(END_OF_SESSION));
                self.outgoing_bytes += end.payload.len();
                self.outgoing.push_back(end);
            }
        }
        ready!(self.poll_write(cx));
        if self.end == End::Announced {
            self.end = End::Shutdown;
            self.shut_down();
        }
        loop {
            match ready!(self.poll_read(cx)) {
                Ok(Read::Message(_) | Read::Part) => self.incoming = BytesMut::new(),
                Ok(
                    Read::Notification(Some(Notification::Lost | Notification::ShutdownComplete))
                    | Read::End,
                )
                | Err(_) => {
                    self.state = State::Over(None);
                    return Poll::Ready(());
                }
                Ok(Read::Notification(_)) => {}
            }
        }
    }

    fn max_message_size(&mut self) -> usize {
        let max = self.sctp.max_message_size;
        let State::Open(io, style) = &self.state else { return max };
        let limits = || send_limits(io.socket().get(), style.association(), max);
        self.send_limits.get_or_insert_with(limits).0
    }

    fn set_heartbeat(&mut self, interval: Duration) -> io::Result<()> {
        let (socket, association) = self.socket()?;
        options::set_heartbeat(socket, association, interval)
    }

    fn paths(&mut self) -> Option<&mut dyn Paths> {
        match self.state {
            State::Open(..) => Some(self),
            State::Dialling(..) | State::Connecting(_) | State::Over(_) => None,
        }
    }
}

/// Returns the maximum length of a message, and the number of streams.
fn send_limits(socket: &Socket, association: AssociationId, max: usize) -> (usize, u16) {
    // The kernel takes a message as a whole, so it has to fit the send buffer. The reported buffer
    // size is twice the usable size.
    let longest = max.min(socket.send_buffer_size().unwrap_or(usize::MAX) / 2);
    (longest, options::streams(socket, association).unwrap_or(u16::MAX))
}
