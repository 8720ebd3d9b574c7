//! The server's side of checkpoint and replay, for one session.

use std::collections::VecDeque;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::{Epoch, Frame, InvalidFrame, RefusalReason, RequestNumber};

/// The number of replies that are kept that a client does not say it has, and how many bytes of
/// them. Not from the RFCs.
const MAX_REPLIES: usize = 4096;
const MAX_REPLIES_SIZE: usize = 1 << 20;

/// Progress of a server with a session.
#[derive(Debug)]
pub struct Server {
    /// None before the first request.
    epoch: Option<Epoch>,
    /// An epoch that was refused.
    refused: Option<Epoch>,
    /// The reason for which an epoch that began elsewhere is refused.
    unknown: RefusalReason,
    /// All requests up to this one are done.
    done: u64,
    /// All replies up to this one have come.
    acknowledged: u64,
    /// The replies from the one after `acknowledged` on, to `done`.
    replies: VecDeque<Bytes>,
    replies_size: usize,
    /// The requests done since the last checkpoint.
    since_checkpoint: u32,
}

/// Progress that a checkpoint covers, in clear, for the client to read.
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

/// Action that a request asks of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "whoever runs a server has to do each of them")]
pub enum Action {
    /// Begin with a new state, and then do this request; [`Server::finish`] takes the reply.
    Begin(Bytes),
    /// Do this request; [`Server::finish`] takes the reply.
    Do(Bytes),
    /// It is done: send this message, which has its reply.
    Send(Bytes),
    /// Send this message, which refuses the session: it cannot go on. Until the client begins
    /// another epoch of it, there is nothing to do.
    Refuse(Bytes),
    /// Nothing: it is done, and its reply has come; or it is of an epoch that was refused.
    Nothing,
}

/// A checkpoint that cannot be gone on from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the checkpoint is broken")]
pub struct InvalidCheckpoint;

impl Server {
    /// A session that begins, or of which nothing is known.
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

    /// Goes on from a checkpoint: what it had in clear, and the rest of it. Gives the state that
    /// the service left.
    ///
    /// # Errors
    ///
    /// When it is none.
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
            // In memory of its own: the cookie is not kept for it.
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

    /// Returns the action that a message of the client asks for.
    ///
    /// # Errors
    ///
    /// When it is not one that a client sends.
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

    /// The request that was to be done is done. The message with its reply, to be sent behind
    /// the checkpoint if one is due.
    pub fn finish(&mut self, reply: Bytes) -> Bytes {
        self.done += 1;
        self.since_checkpoint += 1;
        // In memory of its own: it may be a part of a large message.
        let kept = Bytes::copy_from_slice(&reply);
        self.replies_size += kept.len();
        self.replies.push_back(kept);
        Self::reply(self.epoch.unwrap_or(Epoch(0)), self.done, reply)
    }

    /// Returns the number of requests that were done since the last checkpoint.
    #[must_use]
    pub fn since_checkpoint(&self) -> u32 {
        self.since_checkpoint
    }

    /// A checkpoint with the state of the service: what it has in clear, and the rest of it.
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

    /// The checkpoint that came cannot be gone on from. The requests behind it are refused,
    /// until the client begins another epoch of the session.
    pub fn refuse_checkpoint(&mut self) {
        *self = Self { unknown: RefusalReason::CheckpointRefused, ..Self::new() };
    }

    /// The message that refuses the session because its state does not fit a checkpoint.
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
