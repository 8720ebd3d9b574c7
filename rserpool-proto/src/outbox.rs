//! The queue of a state machine's outputs.

use std::collections::VecDeque;

use bytes::Bytes;

use super::{Compatibility, ConnectionId, Output};
use crate::wire::{EncodeError, Ppid, TransportAddress, UserMessage, asap, enrp};

/// The largest capacity, in outputs, that an empty queue keeps. When a connection breaks that
/// served many elements, the queue holds one output for each of them.
const MAX_IDLE_CAPACITY: usize = 1024;

/// The only queue of a machine's outputs, so that their order is kept. Its owner drains it after
/// each change, which bounds its length.
#[derive(Debug)]
pub(crate) struct Outbox<E> {
    queue: VecDeque<Output<E>>,
    connections: u64,
    profile: Compatibility,
}

impl<E> Outbox<E> {
    pub(crate) fn new(profile: Compatibility) -> Self {
        Self { queue: VecDeque::new(), connections: 0, profile }
    }

    /// Begins the handling of an input. Each `handle_*` method calls it first.
    pub(crate) fn begin(&mut self) {
        debug_assert!(self.queue.is_empty(), "outputs were not drained before the next input");
        if self.queue.capacity() > MAX_IDLE_CAPACITY {
            self.queue.shrink_to(MAX_IDLE_CAPACITY);
        }
    }

    pub(crate) fn name_connection(&mut self) -> ConnectionId {
        self.connections += 1;
        ConnectionId(self.connections)
    }

    pub(crate) fn connect(&mut self, protocol: Ppid, to: TransportAddress) -> ConnectionId {
        let connection = self.name_connection();
        self.queue.push_back(Output::Connect { connection, protocol, to });
        connection
    }

    /// Sends a message that is short by construction.
    pub(crate) fn send(&mut self, connection: ConnectionId, message: impl Into<asap::Message>) {
        let sent = self.try_send(connection, message);
        debug_assert_eq!(sent, Ok(()), "the message fits by construction");
    }

    /// Sends a message that may be too long.
    pub(crate) fn try_send(
        &mut self,
        connection: ConnectionId,
        message: impl Into<asap::Message>,
    ) -> Result<(), EncodeError> {
        let message = message.into().counting_padding(self.profile.counts_last_padding());
        self.send_encoded(connection, Ppid::ASAP, message.encode()?);
        Ok(())
    }

    pub(crate) fn send_encoded(&mut self, connection: ConnectionId, ppid: Ppid, message: Bytes) {
        let message = UserMessage::new(ppid, message);
        self.queue.push_back(Output::Send { connection, message });
    }

    /// Sends a message that is short by construction.
    pub(crate) fn send_enrp(
        &mut self,
        connection: ConnectionId,
        message: impl Into<enrp::Message>,
    ) {
        let sent = self.try_send_enrp(connection, message);
        debug_assert_eq!(sent, Ok(()), "the message fits by construction");
    }

    /// Sends a message that may be too long.
    pub(crate) fn try_send_enrp(
        &mut self,
        connection: ConnectionId,
        message: impl Into<enrp::Message>,
    ) -> Result<(), EncodeError> {
        let message = message.into().counting_padding(self.profile.counts_last_padding());
        self.send_encoded(connection, Ppid::ENRP, message.encode()?);
        Ok(())
    }

    pub(crate) fn measure(&mut self, connection: ConnectionId) {
        self.queue.push_back(Output::Measure(connection));
    }

    pub(crate) fn ask_addresses(&mut self, connection: ConnectionId) {
        self.queue.push_back(Output::Addresses(connection));
    }

    pub(crate) fn announce(&mut self, message: UserMessage) {
        self.queue.push_back(Output::Announce(message));
    }

    pub(crate) fn close(&mut self, connection: ConnectionId) {
        self.queue.push_back(Output::Close { connection, abort: false });
    }

    pub(crate) fn abort(&mut self, connection: ConnectionId) {
        self.queue.push_back(Output::Close { connection, abort: true });
    }

    pub(crate) fn event(&mut self, event: E) {
        self.queue.push_back(Output::Event(event));
    }

    pub(crate) fn poll(&mut self) -> Option<Output<E>> {
        self.queue.pop_front()
    }
}
