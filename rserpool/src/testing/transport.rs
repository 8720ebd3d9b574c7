//! A transport of which one server can be cut off.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use futures::task::AtomicWaker;
use rserpool_proto::wire::{TransportAddress, TransportProtocol, UserMessage};

use super::gate::{Breakable, Gate};
use crate::runtime::Runtime;
use crate::transport::{Connection, Endpoint, Event, Memory, Purpose, SendError, Transport};

/// Maximum number of messages that a connection keeps while it is cut off.
const MAX_HELD: usize = 64;

#[derive(Debug)]
pub(super) struct GatedTransport {
    inner: Arc<Memory>,
    gate: Arc<Gate>,
}

impl GatedTransport {
    pub(super) fn new(inner: Arc<Memory>, gate: Arc<Gate>) -> Self {
        Self { inner, gate }
    }
}

impl Transport for GatedTransport {
    fn protocol(&self) -> TransportProtocol {
        self.inner.protocol()
    }

    fn open(
        &self,
        runtime: &Arc<dyn Runtime>,
        purpose: Purpose,
        listen: Option<&TransportAddress>,
    ) -> io::Result<Box<dyn Endpoint>> {
        let inner = self.inner.open(runtime, purpose, listen)?;
        let (gate, waker) = (Arc::clone(&self.gate), self.gate.waker());
        Ok(Box::new(GatedEndpoint { inner, gate, waker }))
    }
}

#[derive(Debug)]
struct GatedEndpoint {
    inner: Box<dyn Endpoint>,
    gate: Arc<Gate>,
    waker: Arc<AtomicWaker>,
}

impl GatedEndpoint {
    fn wrap(&self, inner: Box<dyn Connection>) -> Box<dyn Connection> {
        let (gate, waker) = (Arc::clone(&self.gate), self.gate.waker());
        let peer = inner.peer().clone();
        let inner = gate.breakable(inner);
        Box::new(GatedConnection { inner, peer, gate, waker, held: VecDeque::new() })
    }
}

impl Endpoint for GatedEndpoint {
    fn local(&self) -> Option<&TransportAddress> {
        self.inner.local()
    }

    fn connect(&mut self, to: &TransportAddress) -> Box<dyn Connection> {
        let connection = self.inner.connect(to);
        self.wrap(connection)
    }

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Box<dyn Connection>>> {
        self.waker.register(cx.waker());
        if self.gate.is_cut_off() {
            return Poll::Pending;
        }
        self.inner.poll_accept(cx).map_ok(|connection| self.wrap(connection))
    }
}

#[derive(Debug)]
struct GatedConnection {
    inner: Arc<Breakable>,
    peer: TransportAddress,
    gate: Arc<Gate>,
    waker: Arc<AtomicWaker>,
    /// The messages sent while the server was cut off.
    held: VecDeque<UserMessage>,
}

impl GatedConnection {
    fn inner(&self) -> MutexGuard<'_, Option<Box<dyn Connection>>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends the held messages. Ready once the server is neither paused nor cut off and no message is
    /// held.
    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.waker.register(cx.waker());
        if self.gate.holds_connections() {
            return Poll::Pending;
        }
        let inner = Arc::clone(&self.inner);
        let mut inner = inner.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(inner) = &mut *inner else { return Poll::Ready(()) };
        while !self.held.is_empty() && inner.poll_ready(cx).is_ready() {
            if let Some(message) = self.held.pop_front() {
                // If the connection is lost, the next event reports that.
                let _ = inner.send(message);
            }
        }
        if self.held.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Connection for GatedConnection {
    fn peer(&self) -> &TransportAddress {
        &self.peer
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        if self.poll_open(cx).is_pending() && self.gate.holds_connections() {
            return Poll::Pending;
        }
        let event = match &mut *self.inner() {
            Some(inner) => ready!(inner.poll_event(cx)),
            None => Event::Lost(io::ErrorKind::ConnectionReset.into()),
        };
        if let Event::Established { peer, .. } = &event {
            self.peer = peer.clone();
        }
        Poll::Ready(event)
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        ready!(self.poll_open(cx));
        self.inner().as_mut().map_or(Poll::Ready(()), |inner| inner.poll_ready(cx))
    }

    fn send(&mut self, message: UserMessage) -> Result<(), SendError> {
        if !self.gate.holds_connections() && self.held.is_empty() {
            return match &mut *self.inner() {
                Some(inner) => inner.send(message),
                None => Err(SendError::NotConnected),
            };
        }
        if self.held.len() >= MAX_HELD {
            return Err(SendError::Full);
        }
        self.held.push_back(message);
        Ok(())
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        ready!(self.poll_open(cx));
        self.inner().as_mut().map_or(Poll::Ready(()), |inner| inner.poll_close(cx))
    }

    fn max_message_size(&mut self) -> usize {
        self.inner().as_mut().map_or(usize::MAX, |inner| inner.max_message_size())
    }
}
