//! The client's side of checkpoint and replay.

use std::collections::VecDeque;

use bytes::Bytes;

use super::server::Reach;
use super::{Epoch, Frame, InvalidFrame, MAX_CHECKPOINT_INTERVAL, RefusalReason, RequestNumber};

/// The client's requests that may have to be repeated, and its knowledge of their replies.
#[derive(Debug)]
pub struct Client {
    epoch: Epoch,
    /// Those which may have to be sent again, in order and without gaps.
    kept: VecDeque<Kept>,
    unanswered: usize,
    /// The number of the next request.
    next: u64,
    /// All replies up to this one have come.
    acknowledged: u64,
    /// The number of requests the application has begun before this epoch.
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
    /// The reply to this request. It is the first one.
    Reply {
        /// The request's number, returned by [`Client::submit`].
        number: RequestNumber,
        /// The reply.
        body: Bytes,
    },
    /// Nothing new: a reply that came before, or from another epoch.
    Nothing,
    /// The server does not go on with this epoch of the session.
    Refused(RefusalReason),
}

impl Client {
    /// A client that has up to `limit` requests unanswered at a time.
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

    /// Returns whether another request can be taken. A server may be behind with its checkpoint by
    /// [`MAX_CHECKPOINT_INTERVAL`] requests.
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

    /// Takes a request: its number, and the message to send. Numbers count on from 1 for as long
    /// as the session lasts, however often it starts afresh.
    ///
    /// # Errors
    ///
    /// Gives it back when there is no room.
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

    /// The number of the first request that is kept.
    fn first(&self) -> u64 {
        self.next - self.kept.len() as u64
    }

    fn find(&mut self, number: u64) -> Option<&mut Kept> {
        let index = number.checked_sub(self.first())?;
        self.kept.get_mut(usize::try_from(index).ok()?)
    }

    /// Takes in a message of the server. `checkpoint` is what the session's last cookie has in
    /// clear.
    ///
    /// # Errors
    ///
    /// When it is not one that a server sends.
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
            // Only those are forgotten that are answered.
            None => true,
            Some(index) => self.kept.get(index as usize).is_some_and(|kept| kept.answered),
        }
    }

    /// Forgets the requests that are answered and that the checkpoint holds.
    fn forget(&mut self, checkpoint: Option<&[u8]>) {
        let held = checkpoint
            .and_then(Reach::decode)
            .filter(|reach| reach.epoch == self.epoch)
            .map_or(0, |reach| reach.number.0);
        while self.first() <= held && self.kept.front().is_some_and(|kept| kept.answered) {
            self.kept.pop_front();
        }
    }

    /// Returns the requests to repeat to the next server, after the cookie.
    pub fn replay(&self) -> impl Iterator<Item = Bytes> {
        let numbered = (self.first()..).zip(&self.kept);
        numbered.map(|(number, kept)| self.request(number, kept.body.clone()))
    }

    /// Returns whether another epoch would be another attempt: not, if this one is already, and
    /// nothing came of it.
    #[must_use]
    pub fn may_start_afresh(&self) -> bool {
        self.epoch == Epoch(1) || self.acknowledged > 0
    }

    /// Begins another epoch of the session, in which nothing was done yet; [`Self::replay`] has
    /// what is to be sent: all that is not answered. How many requests were answered before, the
    /// effects of which are lost.
    pub fn start_afresh(&mut self) -> u64 {
        let answered = self.before + self.next - 1 - self.unanswered as u64;
        self.epoch = Epoch(self.epoch.0.wrapping_add(1));
        self.kept.retain(|kept| !kept.answered);
        // Those which are answered come before the others, for servers work in order.
        self.before = answered;
        self.next = 1 + self.kept.len() as u64;
        self.acknowledged = 0;
        answered
    }
}
