//! Connections that could not even be begun.

use std::io;
use std::task::{Context, Poll};

use rserpool_proto::wire::{TransportAddress, UserMessage};

use super::{Connection, Event, SendError};

/// A connection whose only event is its loss.
#[derive(Debug)]
pub(super) struct Failed {
    peer: TransportAddress,
    error: Option<io::Error>,
}

impl Failed {
    pub(super) fn new(peer: TransportAddress, error: io::Error) -> Self {
        Self { peer, error: Some(error) }
    }
}

impl Connection for Failed {
    fn peer(&self) -> &TransportAddress {
        &self.peer
    }

    fn poll_event(&mut self, _: &mut Context<'_>) -> Poll<Event> {
        let error = self.error.take().unwrap_or_else(|| io::ErrorKind::NotConnected.into());
        Poll::Ready(Event::Lost(error))
    }

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }

    fn send(&mut self, _: UserMessage) -> Result<(), SendError> {
        Err(SendError::NotConnected)
    }

    fn poll_close(&mut self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }
}
