//! Data that waits to be written to a stream.

use std::io::{self, IoSlice};
use std::task::{Poll, ready};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use socket2::Socket;

/// Minimum length of a payload that is written in place instead of copied first.
const LARGE: usize = 4096;

/// High-water mark: a connection is not ready for more messages while this number of bytes is
/// unsent.
const HIGH_WATER: usize = 128 * 1024;

/// Maximum number of unsent bytes. Beyond it, a message that is sent without waiting for readiness
/// is refused.
const WRITE_LIMIT: usize = 2 * HIGH_WATER;

/// Bytes in the order in which they were added; the last payload is kept by reference if it is
/// large.
#[derive(Debug, Default)]
pub(in crate::transport) struct Outgoing {
    bytes: BytesMut,
    /// The payload to be written after `bytes`.
    payload: Bytes,
}

impl Outgoing {
    pub(in crate::transport) fn len(&self) -> usize {
        self.bytes.len() + self.payload.len()
    }

    /// Returns whether the connection is not ready for more messages.
    pub(in crate::transport) fn is_high(&self) -> bool {
        self.len() >= HIGH_WATER
    }

    /// Returns whether further messages are refused.
    pub(in crate::transport) fn is_full(&self) -> bool {
        self.len() >= WRITE_LIMIT
    }

    pub(in crate::transport) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the buffer to which small data is appended.
    pub(in crate::transport) fn end(&mut self) -> &mut BytesMut {
        if !self.payload.is_empty() {
            self.bytes.put(std::mem::take(&mut self.payload));
        }
        &mut self.bytes
    }

    pub(in crate::transport) fn put_payload(&mut self, payload: &Bytes) {
        if payload.len() >= LARGE && self.payload.is_empty() {
            self.payload = payload.clone();
        } else {
            self.end().put_slice(payload);
        }
    }

    /// Writes until the socket is full.
    ///
    /// # Errors
    ///
    /// Returns the socket's error.
    pub(in crate::transport) fn write_to(&mut self, socket: &Socket) -> io::Result<()> {
        let written = if self.payload.is_empty() {
            socket.send(&self.bytes)?
        } else {
            socket.send_vectored(&[IoSlice::new(&self.bytes), IoSlice::new(&self.payload)])?
        };
        self.remove(written)
    }

    /// Writes once, by `write`.
    ///
    /// # Errors
    ///
    /// Returns the error of `write`.
    pub(in crate::transport) fn poll_write_with(
        &mut self,
        write: impl FnOnce(&[IoSlice<'_>]) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<()>> {
        let slices = [IoSlice::new(&self.bytes), IoSlice::new(&self.payload)];
        let written = ready!(write(&slices))?;
        Poll::Ready(self.remove(written))
    }

    fn remove(&mut self, written: usize) -> io::Result<()> {
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        let first = written.min(self.bytes.len());
        self.bytes.advance(first);
        self.payload.advance(written - first);
        if self.is_empty() {
            // An idle connection does not keep a buffer.
            *self = Self::default();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_keep_their_order_whatever_their_size() {
        let large = Bytes::from(vec![2; LARGE]);
        let mut outgoing = Outgoing::default();
        outgoing.end().put_u8(1);
        outgoing.put_payload(&large);
        assert_eq!(outgoing.payload.as_ptr(), large.as_ptr(), "not copied");
        outgoing.put_payload(&large);
        outgoing.put_payload(&Bytes::from_static(&[3]));
        assert_eq!(outgoing.len(), 2 * LARGE + 2);
        let all = [&[1][..], &large, &large, &[3]].concat();
        assert_eq!(outgoing.end()[..], all[..]);
    }
}
