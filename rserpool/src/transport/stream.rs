//! Connections over any byte stream.

use std::fmt;
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use futures::io::{AsyncRead, AsyncWrite};
use rserpool_proto::wire::{TransportAddress, UserMessage};

use super::tcp::MAX_DRAIN;
use super::tcp::framing::Framing;
use super::tcp::outgoing::Outgoing;
use super::{Connection, Event, Purpose, SendError};
use crate::runtime::BoxFuture;

/// Maximum number of bytes read at a time.
const READ_SIZE: usize = 16 * 1024;

/// Maximum size of a session's message in bytes. Not from the RFCs.
const MAX_MESSAGE_SIZE: usize = 1024 * 1024;

/// A connection over a byte stream, such as a Unix socket or a pipe, for transports that
/// a program brings along. It frames messages as [`Tcp`](super::Tcp) does.
///
/// The stream's `poll_close` has to end its sending direction, so that the peer reads the end of the
/// stream.
pub struct StreamConnection<S> {
    state: State<S>,
    framing: Framing,
    peer: TransportAddress,
    incoming: BytesMut,
    outgoing: Outgoing,
    /// An error of writing, reported when there is nothing left to read.
    write_error: Option<io::Error>,
    end_sent: bool,
}

enum State<S> {
    Connecting {
        /// In a mutex, since futures need not be `Sync`.
        connect: Mutex<BoxFuture<'static, io::Result<S>>>,
        local: TransportAddress,
    },
    Open(S),
    Over(Option<io::Error>),
}

impl<S> fmt::Debug for StreamConnection<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamConnection").field("peer", &self.peer).finish_non_exhaustive()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> StreamConnection<S> {
    /// Returns the connection that `connect` establishes with `peer`, as
    /// [`Endpoint::connect`](super::Endpoint::connect) has to.
    pub fn connecting(
        purpose: Purpose,
        local: TransportAddress,
        peer: TransportAddress,
        connect: impl Future<Output = io::Result<S>> + Send + 'static,
    ) -> Self {
        let connect: BoxFuture<'static, io::Result<S>> = Box::pin(connect);
        Self::new(purpose, peer, State::Connecting { connect: Mutex::new(connect), local })
    }

    /// Returns a connection over an established stream, as
    /// [`Endpoint::poll_accept`](super::Endpoint::poll_accept) has to.
    pub fn accepted(purpose: Purpose, peer: TransportAddress, stream: S) -> Self {
        Self::new(purpose, peer, State::Open(stream))
    }

    fn new(purpose: Purpose, peer: TransportAddress, state: State<S>) -> Self {
        Self {
            state,
            framing: Framing::new(purpose, MAX_MESSAGE_SIZE),
            peer,
            incoming: BytesMut::new(),
            outgoing: Outgoing::default(),
            write_error: None,
            end_sent: false,
        }
    }

    fn lost(&mut self, error: io::Error) -> Event {
        self.state = State::Over(None);
        Event::Lost(error)
    }

    /// Writes until the stream takes no more. Pending while data is left.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let State::Open(stream) = &mut self.state else { return Poll::Ready(()) };
        while !self.outgoing.is_empty() && self.write_error.is_none() {
            let write =
                |slices: &[IoSlice<'_>]| Pin::new(&mut *stream).poll_write_vectored(cx, slices);
            self.write_error = ready!(self.outgoing.poll_write_with(write)).err();
        }
        if self.write_error.is_none() {
            self.write_error = ready!(Pin::new(stream).poll_flush(cx)).err();
        }
        Poll::Ready(())
    }

    /// Reads from the stream. Returns the number of bytes, 0 at the end of the stream.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let State::Open(stream) = &mut self.state else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        let mut buffer = [0; READ_SIZE];
        let read = ready!(Pin::new(stream).poll_read(cx, &mut buffer))?;
        self.incoming.extend_from_slice(&buffer[..read]);
        Poll::Ready(Ok(read))
    }
}

impl<S> Connection for StreamConnection<S>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + Sync + 'static,
{
    fn peer(&self) -> &TransportAddress {
        &self.peer
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        match &mut self.state {
            State::Over(error) => {
                let error = error.take().unwrap_or_else(|| io::ErrorKind::NotConnected.into());
                return Poll::Ready(Event::Lost(error));
            }
            State::Connecting { connect, local } => {
                let connect = connect.get_mut().unwrap_or_else(PoisonError::into_inner);
                let connected = ready!(connect.as_mut().poll(cx));
                let (local, peer) = (local.clone(), self.peer.clone());
                return Poll::Ready(match connected {
                    Ok(stream) => {
                        self.state = State::Open(stream);
                        Event::Established { local, peer }
                    }
                    Err(error) => self.lost(error),
                });
            }
            State::Open(_) => {}
        }
        let _ = self.poll_write(cx);
        loop {
            match self.framing.event(&mut self.incoming) {
                Ok(Some(event)) => return Poll::Ready(event),
                Ok(None) => {}
                Err(error) => return Poll::Ready(self.lost(error)),
            }
            let read = self.poll_read(cx);
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
        if self.poll_write(cx).is_pending() && self.outgoing.is_high() {
            return Poll::Pending;
        }
        Poll::Ready(())
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

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !std::mem::replace(&mut self.end_sent, true) {
            self.framing.encode_end(&mut self.outgoing);
        }
        ready!(self.poll_write(cx));
        if let State::Open(stream) = &mut self.state {
            let _ = ready!(Pin::new(stream).poll_close(cx));
        }
        // Read the remaining data first, since closing a socket with unread data may reset it, and data
        // just written may be lost with it.
        for _ in 0..MAX_DRAIN {
            match ready!(self.poll_read(cx)) {
                Ok(0) | Err(_) => {
                    self.state = State::Over(None);
                    return Poll::Ready(());
                }
                Ok(_) => self.incoming.clear(),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}
