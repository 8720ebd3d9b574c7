//! Receives from a socket, several pieces at a time.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::task::{Context, Poll};

use bytes::BytesMut;

use super::control::{self, MessageInfo};
use super::notification::{self, Notification};
use crate::runtime::{Interest, RegisteredSocket};
use crate::sys::{self, ReceiveBuffers};

thread_local! {
    /// Buffers shared by all connections of a thread, so that idle connections do not keep any.
    static BUFFERS: RefCell<ReceiveBuffers> = RefCell::new(ReceiveBuffers::new());
}

/// A received piece.
#[derive(Debug)]
pub(super) enum Piece {
    /// A notification; `None` if it could not be parsed.
    Notification(Option<Notification>),
    /// A message, or a part of it.
    Data { bytes: BytesMut, info: Option<MessageInfo>, end_of_record: bool },
    /// The end of the stream.
    End,
}

/// Reads from a socket.
#[derive(Debug)]
pub(super) struct Receiver {
    /// Maximum number of pieces (messages, parts of them, or notifications) read at a time.
    batch: usize,
    pieces: VecDeque<Piece>,
    /// True if the last piece was the first part of a notification that is longer than one piece.
    in_notification: bool,
    /// The kernel's error, reported after all data has been read.
    error: Option<io::Error>,
}

impl Receiver {
    /// Creates a receiver for the socket of one association.
    pub(super) fn new() -> Self {
        Self { batch: sys::BATCH, pieces: VecDeque::new(), in_notification: false, error: None }
    }

    /// Creates a receiver for a one-to-many socket, which reads one piece at a time. Data that
    /// follows the notification of a new association then stays in the socket, and moves to the new
    /// socket when the association is peeled off.
    pub(super) fn one_by_one() -> Self {
        Self { batch: 1, ..Self::new() }
    }

    /// Polls for the next piece.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut dyn RegisteredSocket,
    ) -> Poll<io::Result<Piece>> {
        if let Some(piece) = self.pieces.pop_front() {
            return Poll::Ready(Ok(piece));
        }
        let polled = io.poll_io(cx, Interest::Readable, &mut |socket| {
            let socket = socket.get();
            BUFFERS.with_borrow_mut(|buffers| {
                let mut received = sys::receive(socket, buffers, self.batch);
                if let Err(error) = &received
                    && error.kind() != io::ErrorKind::WouldBlock
                    && self.error.is_none()
                {
                    // The kernel reports the error before the data received until then.
                    self.error = received.err();
                    received = sys::receive(socket, buffers, self.batch);
                }
                let count = received.map_err(|error| self.error.take().unwrap_or(error))?;
                for index in 0..count {
                    self.take(buffers, index);
                }
                // The buffers are not full, so another call would find nothing.
                let drained = count < self.batch && self.error.is_none();
                if drained { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
            })
        });
        match (self.pieces.pop_front(), polled) {
            (Some(piece), _) => Poll::Ready(Ok(piece)),
            (None, Poll::Ready(Ok(()))) => {
                // Only the remaining parts of long notifications were read, so poll again.
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            (None, Poll::Ready(Err(error))) => Poll::Ready(Err(error)),
            (None, Poll::Pending) => Poll::Pending,
        }
    }

    fn take(&mut self, buffers: &ReceiveBuffers, index: usize) {
        let received = buffers.received[index];
        let data = &buffers.data[index][..received.length];
        if received.notification {
            // A long notification contains a message; its remaining pieces are not notifications of
            // their own.
            let rest = std::mem::replace(&mut self.in_notification, !received.end_of_record);
            if !rest {
                self.pieces.push_back(Piece::Notification(notification::parse(data)));
            }
        } else if data.is_empty() {
            self.pieces.push_back(Piece::End);
        } else {
            let info = control::parse(&buffers.control[index].0[..received.control]);
            let end_of_record = received.end_of_record;
            self.pieces.push_back(Piece::Data { bytes: BytesMut::from(data), info, end_of_record });
        }
    }
}
