//! The server's side of checkpoint and replay, for one session.

use std::collections::VecDeque;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::{Epoch, Frame, InvalidFrame, RefusalReason, RequestNumber};

/// The maximum number of replies that a server keeps because the client has not acknowledged them,
/// and the maximum of their total size in bytes. Not from the RFCs.
const MAX_REPLIES: usize = 4096;
const MAX_REPLIES_SIZE: usize = 1 << 20;

/// The server's side of a session with checkpoint and replay: its progress, and the replies that it
/// may have to repeat.
#[derive(Debug)]
pub struct Server {
    /// `None` before the first request.
    epoch: Option<Epoch>,
    /// The epoch that this server refused.
    refused: Option<Epoch>,
    /// The reason to refuse an epoch that began at another server.
    unknown: RefusalReason,
    /// The number of the last executed request.
    done: u64,
    /// The number of the last request up to which the client has received all replies.
    acknowledged: u64,
    /// The replies to the requests after `acknowledged`, up to `done`.
    replies: VecDeque<Bytes>,
    replies_size: usize,
    /// The number of requests executed since the last checkpoint.
    since_checkpoint: u32,
}

/// The epoch and the number of the last request that a checkpoint includes. This part of the
/// checkpoint is not encrypted, so that the client can read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reach {
    pub(super) epoch: Epoch,
    pub(super) number: RequestNumber,
}

impl Reach {
    fn encode(self) -> Bytes {
        let mut bytes = BytesMut::with_capacity(12);
        bytes.put_u32(self.epoch.0);
        bytes.put_u64(self.number.0);
        bytes.freeze()
    }

    pub(super) fn decode(mut bytes: &[u8]) -> Option<Self> {
        let epoch = Epoch(bytes.try_get_u32().ok()?);
        let number = RequestNumber(bytes.try_get_u64().ok()?);
        bytes.is_empty().then_some(Self { epoch, number })
    }
}

/// The action that a message from the client requires of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "whoever runs a server has to do each of them")]
pub enum Action {
    /// Create a new state, and execute this request; pass the reply to [`Server::finish`].
    Begin(Bytes),
    /// Execute this request; pass the reply to [`Server::finish`].
    Do(Bytes),
    /// Send this message, which repeats the reply: the request was already executed.
    Send(Bytes),
    /// Send this message, which refuses the session. Until the client begins another epoch, there
    /// is nothing else to do.
    Refuse(Bytes),
    /// Do nothing: the client already received the reply to this request, or the request is from an
    /// epoch that was refused.
    Nothing,
}

/// Error of [`Server::restore`]: the checkpoint is corrupt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("cannot restore the checkpoint: it is corrupt")]
#[non_exhaustive]
pub struct InvalidCheckpoint;

impl Server {
    /// Creates the server's side of a session that has no checkpoint yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            epoch: None,
            refused: None,
            unknown: RefusalReason::NoCheckpoint,
            done: 0,
            acknowledged: 0,
            replies: VecDeque::new(),
            replies_size: 0,
            since_checkpoint: 0,
        }
    }

    /// Restores a session from a checkpoint, given as its unencrypted part `clear` and the rest.
    /// Also returns the state of the service.
    ///
    /// # Errors
    ///
    /// Returns an error if the checkpoint is not valid.
    pub fn restore(clear: &Bytes, mut rest: Bytes) -> Result<(Self, Bytes), InvalidCheckpoint> {
        let Reach { epoch, number } = Reach::decode(clear).ok_or(InvalidCheckpoint)?;
        let acknowledged = rest.try_get_u64().map_err(|_| InvalidCheckpoint)?;
        let count = number.0.checked_sub(acknowledged).ok_or(InvalidCheckpoint)?;
        let mut replies = VecDeque::new();
        for _ in 0..count {
            let length = rest.try_get_u32().map_err(|_| InvalidCheckpoint)? as usize;
            if length > rest.len() {
                return Err(InvalidCheckpoint);
            }
            // A copy, because the cookie's memory is not kept.
            replies.push_back(Bytes::copy_from_slice(&rest.split_to(length)));
        }
        let server = Self {
            epoch: Some(epoch),
            done: number.0,
            acknowledged,
            replies_size: replies.iter().map(Bytes::len).sum(),
            replies,
            ..Self::new()
        };
        Ok((server, rest))
    }

    /// Returns the action that a message from the client requires.
    ///
    /// # Errors
    ///
    /// Returns an error if the message is not one that clients send.
    pub fn handle_message(&mut self, message: Bytes) -> Result<Action, InvalidFrame> {
        let Frame::Request { epoch, number, acknowledged, body } = Frame::decode(message)? else {
            return Err(InvalidFrame);
        };
        if self.refused == Some(epoch) {
            return Ok(Action::Nothing);
        }
        if self.epoch != Some(epoch) {
            if number != RequestNumber(1) {
                return Ok(Action::Refuse(self.refuse(epoch, self.unknown)));
            }
            *self = Self { epoch: Some(epoch), refused: self.refused, ..Self::new() };
            return Ok(Action::Begin(body));
        }
        while self.acknowledged < acknowledged.0.min(self.done) {
            self.acknowledged += 1;
            self.replies_size -= self.replies.pop_front().map_or(0, |reply| reply.len());
        }
        let number = number.0;
        if number == self.done + 1 {
            if self.replies.len() > MAX_REPLIES || self.replies_size > MAX_REPLIES_SIZE {
                return Ok(Action::Refuse(self.refuse(epoch, RefusalReason::StateTooLarge)));
            }
            return Ok(Action::Do(body));
        }
        if number > self.done {
            return Ok(Action::Refuse(self.refuse(epoch, RefusalReason::OutOfOrder)));
        }
        let index = number.checked_sub(self.acknowledged + 1);
        let reply = index.and_then(|index| self.replies.get(index as usize));
        Ok(reply.map_or(Action::Nothing, |reply| {
            Action::Send(Self::reply(epoch, number, reply.clone()))
        }))
    }

    fn reply(epoch: Epoch, number: u64, body: Bytes) -> Bytes {
        Frame::Reply { epoch, number: RequestNumber(number), body }.encode()
    }

    /// Records that the present request was executed. Returns the message with `reply`, which is to
    /// be sent after the checkpoint if one is due.
    pub fn finish(&mut self, reply: Bytes) -> Bytes {
        self.done += 1;
        self.since_checkpoint += 1;
        // A copy, because the reply may be a part of a large message.
        let kept = Bytes::copy_from_slice(&reply);
        self.replies_size += kept.len();
        self.replies.push_back(kept);
        Self::reply(self.epoch.unwrap_or(Epoch(0)), self.done, reply)
    }

    /// Returns the number of requests executed since the last checkpoint.
    #[must_use]
    pub fn since_checkpoint(&self) -> u32 {
        self.since_checkpoint
    }

    /// Returns a checkpoint with the state of the service: its unencrypted part, and the rest.
    pub fn checkpoint(&mut self, state: &[u8]) -> (Bytes, Bytes) {
        self.since_checkpoint = 0;
        let epoch = self.epoch.unwrap_or(Epoch(0));
        let clear = Reach { epoch, number: RequestNumber(self.done) }.encode();
        let replies: usize = self.replies.iter().map(|reply| 4 + reply.len()).sum();
        let mut rest = BytesMut::with_capacity(8 + replies + state.len());
        rest.put_u64(self.acknowledged);
        for reply in &self.replies {
            rest.put_u32(u32::try_from(reply.len()).unwrap_or(u32::MAX));
            rest.put_slice(reply);
        }
        rest.put_slice(state);
        (clear, rest.freeze())
    }

    /// Records that the received checkpoint cannot be restored. The server refuses the requests
    /// that follow, until the client begins another epoch of the session.
    pub fn refuse_checkpoint(&mut self) {
        *self = Self { unknown: RefusalReason::CheckpointRefused, ..Self::new() };
    }

    /// Returns the message that refuses the session because its state does not fit into a
    /// checkpoint.
    pub fn refuse_state(&mut self) -> Bytes {
        self.refuse(self.epoch.unwrap_or(Epoch(0)), RefusalReason::StateTooLarge)
    }

    fn refuse(&mut self, epoch: Epoch, reason: RefusalReason) -> Bytes {
        *self = Self { refused: Some(epoch), ..Self::new() };
        Frame::Refusal { epoch, reason }.encode()
    }
}

impl Default for Server {
    fn default() -> Self {
        Self::new()
    }
}
