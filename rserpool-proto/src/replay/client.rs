//! The client's side of checkpoint and replay.

use std::collections::VecDeque;

use bytes::Bytes;

use super::server::Reach;
use super::{Epoch, Frame, InvalidFrame, MAX_CHECKPOINT_INTERVAL, RefusalReason, RequestNumber};

/// The client's side of a session with checkpoint and replay. It keeps the requests that may have
/// to be sent again, and drops repeated replies.
#[derive(Debug)]
pub struct Client {
    epoch: Epoch,
    /// The requests that may have to be sent again, in order and without gaps.
    kept: VecDeque<Kept>,
    unanswered: usize,
    /// The number of the next request.
    next: u64,
    /// The number of the last request up to which all replies were received.
    acknowledged: u64,
    /// The number of requests that were answered in earlier epochs, before the session last started
    /// afresh. The request numbers that the application sees are larger by this than those of the
    /// present epoch.
    before: u64,
    limit: usize,
}

#[derive(Debug)]
struct Kept {
    body: Bytes,
    answered: bool,
}

/// The meaning of a message from the server.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "whoever runs a client has to do each of them")]
pub enum ClientEvent {
    /// The first reply to this request.
    Reply {
        /// The request's number, returned by [`Client::submit`].
        number: RequestNumber,
        /// The reply.
        body: Bytes,
    },
    /// Nothing to do: the reply was received before, or is from another epoch.
    Nothing,
    /// The server refuses to continue this epoch of the session.
    Refused(RefusalReason),
}

impl Client {
    /// Creates a client that may have up to `limit` unanswered requests at a time.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            epoch: Epoch(1),
            kept: VecDeque::new(),
            unanswered: 0,
            next: 1,
            acknowledged: 0,
            before: 0,
            limit: limit.max(1),
        }
    }

    /// Returns whether another request can be submitted: fewer requests than the limit are
    /// unanswered, and at most [`MAX_CHECKPOINT_INTERVAL`] answered ones are kept. The client keeps
    /// answered requests because a server's checkpoint may lag by that number.
    #[must_use]
    pub fn has_room(&self) -> bool {
        let answered = self.kept.len() - self.unanswered;
        self.unanswered < self.limit && answered <= MAX_CHECKPOINT_INTERVAL as usize
    }

    /// Returns the number of requests that are not answered.
    #[must_use]
    pub fn unanswered(&self) -> usize {
        self.unanswered
    }

    /// Submits a request. Returns its number and the message to send. Numbers start at 1 and count
    /// on for the whole session, also when the session starts afresh.
    ///
    /// # Errors
    ///
    /// Returns the body as the error if [`Self::has_room`] is false.
    pub fn submit(&mut self, body: Bytes) -> Result<(RequestNumber, Bytes), Bytes> {
        if !self.has_room() {
            return Err(body);
        }
        let number = self.next;
        self.next += 1;
        let message = self.request(number, body.clone());
        self.kept.push_back(Kept { body, answered: false });
        self.unanswered += 1;
        Ok((self.outside(number), message))
    }

    fn request(&self, number: u64, body: Bytes) -> Bytes {
        let acknowledged = RequestNumber(self.acknowledged);
        let number = RequestNumber(number);
        Frame::Request { epoch: self.epoch, number, acknowledged, body }.encode()
    }

    fn outside(&self, number: u64) -> RequestNumber {
        RequestNumber(self.before + number)
    }

    /// Returns the number of the first request that is kept.
    fn first(&self) -> u64 {
        self.next - self.kept.len() as u64
    }

    fn find(&mut self, number: u64) -> Option<&mut Kept> {
        let index = number.checked_sub(self.first())?;
        self.kept.get_mut(usize::try_from(index).ok()?)
    }

    /// Handles a message from the server. `checkpoint` is the unencrypted part of the session's
    /// last cookie.
    ///
    /// # Errors
    ///
    /// Returns an error if the message is not one that servers send.
    pub fn handle_message(
        &mut self,
        message: Bytes,
        checkpoint: Option<&[u8]>,
    ) -> Result<ClientEvent, InvalidFrame> {
        match Frame::decode(message)? {
            Frame::Reply { epoch, number: RequestNumber(number), body } if epoch == self.epoch => {
                let Some(kept) = self.find(number) else { return Ok(ClientEvent::Nothing) };
                if std::mem::replace(&mut kept.answered, true) {
                    return Ok(ClientEvent::Nothing);
                }
                self.unanswered -= 1;
                while self.acknowledged + 1 < self.next && self.is_answered(self.acknowledged + 1) {
                    self.acknowledged += 1;
                }
                let number = self.outside(number);
                self.forget(checkpoint);
                Ok(ClientEvent::Reply { number, body })
            }
            Frame::Refusal { epoch, reason } if epoch == self.epoch => {
                Ok(ClientEvent::Refused(reason))
            }
            Frame::Reply { .. } | Frame::Refusal { .. } => Ok(ClientEvent::Nothing),
            Frame::Request { .. } => Err(InvalidFrame),
        }
    }

    fn is_answered(&self, number: u64) -> bool {
        match number.checked_sub(self.first()) {
            // A request that is no longer kept was answered, because only answered requests are
            // removed.
            None => true,
            Some(index) => self.kept.get(index as usize).is_some_and(|kept| kept.answered),
        }
    }

    /// Forgets the answered requests that the checkpoint includes.
    fn forget(&mut self, checkpoint: Option<&[u8]>) {
        let held = checkpoint
            .and_then(Reach::decode)
            .filter(|reach| reach.epoch == self.epoch)
            .map_or(0, |reach| reach.number.0);
        while self.first() <= held && self.kept.front().is_some_and(|kept| kept.answered) {
            self.kept.pop_front();
        }
    }

    /// Returns the requests to send again to the next server, after the cookie.
    pub fn replay(&self) -> impl Iterator<Item = Bytes> {
        let numbered = (self.first()..).zip(&self.kept);
        numbered.map(|(number, kept)| self.request(number, kept.body.clone()))
    }

    /// Returns whether the client may begin another epoch, in which the session starts afresh. It
    /// may not if the present epoch is already a fresh start in which no request was answered.
    #[must_use]
    pub fn may_start_afresh(&self) -> bool {
        self.epoch == Epoch(1) || self.acknowledged > 0
    }

    /// Begins another epoch of the session, in which no request has been executed. [`Self::replay`]
    /// then returns what to send: all unanswered requests. Returns the number of requests that were
    /// answered before, whose effects are lost.
    pub fn start_afresh(&mut self) -> u64 {
        let answered = self.before + self.next - 1 - self.unanswered as u64;
        self.epoch = Epoch(self.epoch.0.wrapping_add(1));
        self.kept.retain(|kept| !kept.answered);
        // The answered requests come before the others, because servers execute requests in order.
        self.before = answered;
        self.next = 1 + self.kept.len() as u64;
        self.acknowledged = 0;
        answered
    }
}
