//! The server's side of checkpoint and replay, for one session.

use std::collections::VecDeque;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::answer::Unacknowledged;
use super::{
    Answer, Epoch, Frame, InvalidFrame, RefusalReason, RequestFailure, RequestNumber, WINDOW,
    window_size,
};

/// The size, in bytes, of the encrypted part of a checkpoint without the answers and the state.
const CHECKPOINT_HEADER: usize = 8;

/// The maximum size, in bytes, of a request's failure in a checkpoint. Each state has to leave room
/// for one failure, so that the server can always fail the next request.
const FAILURE_SIZE: usize = 4 + RequestFailure::MAX_LENGTH;

/// The settings of a [`Server`].
#[derive(Debug, Clone, Copy)]
#[allow(clippy::exhaustive_structs, reason = "whoever runs a server has to set all of them")]
pub struct ServerConfig {
    /// The number of requests after which a checkpoint is due; at least 1.
    pub checkpoint_every: u32,
    /// The maximum size, in bytes, of the encrypted part of a checkpoint, before encryption.
    pub room: usize,
    /// The maximum length of a reply in bytes.
    pub max_reply: usize,
}

/// The server's side of a session with checkpoint and replay: its progress, the requests that wait
/// for execution, and the answers that it may have to repeat.
#[derive(Debug)]
pub struct Server {
    config: ServerConfig,
    /// The current epoch; `None` before the first request.
    epoch: Option<Epoch>,
    /// The epoch that this server refused.
    refused: Option<Epoch>,
    /// The reason to refuse an epoch that began at another server.
    unknown: RefusalReason,
    /// The number of the last request whose answer was sent.
    done: u64,
    /// The number of the last request up to which the client has received all answers.
    acknowledged: u64,
    /// The answers to the requests after `acknowledged`, up to `done`.
    answers: Unacknowledged,
    /// The number of requests answered since the last checkpoint.
    since_checkpoint: u32,
    /// The requests that wait for execution, which follow `done` and `present` in order.
    queue: VecDeque<Queued>,
    queue_size: usize,
    /// The request after `done`, if its execution has begun and its answer has not been sent.
    present: Option<Present>,
    /// True if the client was asked for an acknowledgement and has not sent one since.
    solicited: bool,
    out: VecDeque<Action>,
}

#[derive(Debug)]
struct Queued {
    size: usize,
    announce: bool,
    work: Work,
}

#[derive(Debug)]
enum Work {
    Execute(Bytes),
    Fail(RequestFailure),
}

#[derive(Debug)]
enum Present {
    /// The service executes the request.
    Executing,
    /// The request was executed, and its answer waits until it fits into a checkpoint with this
    /// state.
    Held { answer: Answer, state: Bytes },
}

/// The epoch and the number of the last request that a checkpoint includes. This part of the
/// checkpoint is not encrypted, so that the client can read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reach {
    pub(super) epoch: Epoch,
    pub(super) number: RequestNumber,
}

/// The length, in bytes, of the unencrypted part of a checkpoint.
pub const REACH_LENGTH: usize = 12;

impl Reach {
    fn encode(self) -> Bytes {
        let mut bytes = BytesMut::with_capacity(REACH_LENGTH);
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

/// The next step for the driver of a [`Server`]. The driver completes each step before it takes the
/// next one.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "whoever runs a server has to do each of them")]
pub enum Action {
    /// Return to the initial state of the service: the client begins another epoch.
    Reset,
    /// Execute this request, and call [`Server::finish`] or [`Server::fail`].
    Execute(Bytes),
    /// Call [`Server::fail`] with this failure and the present state of the service.
    Fail(RequestFailure),
    /// Send this checkpoint as the session's cookie.
    Checkpoint {
        /// The part that the client can read.
        clear: Bytes,
        /// The rest, which is to be encrypted.
        rest: Bytes,
    },
    /// Send this message to the client.
    Send(Bytes),
}

/// Error of [`Server::handle_message`]: the client breaks the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// The message is not one that clients send.
    #[error(transparent)]
    Frame(#[from] InvalidFrame),
    /// The client sends more than [`WINDOW`] bytes of requests before they are answered.
    #[error("the client sends more unanswered requests than the window of {WINDOW} bytes holds")]
    WindowExceeded,
}

/// Error of [`Server::restore`]: the checkpoint is corrupt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("cannot restore the checkpoint: it is corrupt")]
#[non_exhaustive]
pub struct InvalidCheckpoint;

impl Server {
    /// Creates the server's side of a session that has no checkpoint yet.
    #[must_use]
    pub fn new(config: ServerConfig) -> Self {
        Self {
            config,
            epoch: None,
            refused: None,
            unknown: RefusalReason::NoCheckpoint,
            done: 0,
            acknowledged: 0,
            answers: Unacknowledged::default(),
            since_checkpoint: 0,
            queue: VecDeque::new(),
            queue_size: 0,
            present: None,
            solicited: false,
            out: VecDeque::new(),
        }
    }

    /// Returns the settings.
    #[must_use]
    pub fn config(&self) -> ServerConfig {
        self.config
    }

    /// Restores a session from a checkpoint, given as its unencrypted part `clear` and the rest.
    /// Also returns the state of the service.
    ///
    /// # Errors
    ///
    /// Returns an error if the checkpoint is not valid.
    pub fn restore(
        config: ServerConfig,
        clear: &Bytes,
        mut rest: Bytes,
    ) -> Result<(Self, Bytes), InvalidCheckpoint> {
        let Reach { epoch, number } = Reach::decode(clear).ok_or(InvalidCheckpoint)?;
        let acknowledged = rest.try_get_u64().map_err(|_| InvalidCheckpoint)?;
        let count = number.0.checked_sub(acknowledged).ok_or(InvalidCheckpoint)?;
        let answers = Unacknowledged::decode(&mut rest, count).ok_or(InvalidCheckpoint)?;
        let server =
            Self { epoch: Some(epoch), done: number.0, acknowledged, answers, ..Self::new(config) };
        Ok((server, rest))
    }

    /// Handles a message from the client. [`Self::poll_action`] then returns the next steps.
    ///
    /// # Errors
    ///
    /// Returns an error if the client breaks the protocol. The session cannot continue.
    pub fn handle_message(&mut self, message: Bytes) -> Result<(), ServerError> {
        match Frame::decode(message)? {
            Frame::Request { epoch, number, acknowledged, announce, body } => {
                let size = window_size(body.len());
                let queued = Queued { size, announce, work: Work::Execute(body) };
                self.enqueue(epoch, number, acknowledged, queued)
            }
            Frame::Abandonment { epoch, number, acknowledged, servers } => {
                // Without crashes, the client gave the request up at its deadline.
                let failure = match servers {
                    0 => RequestFailure::DeadlinePassed,
                    servers => RequestFailure::Crashed { servers },
                };
                let work = Work::Fail(failure);
                let queued = Queued { size: window_size(0), announce: false, work };
                self.enqueue(epoch, number, acknowledged, queued)
            }
            Frame::Acknowledgement { epoch, acknowledged } => {
                if self.epoch == Some(epoch) {
                    self.acknowledge(acknowledged);
                }
                Ok(())
            }
            Frame::Answer { .. }
            | Frame::Begun { .. }
            | Frame::Solicitation { .. }
            | Frame::Refusal { .. } => Err(InvalidFrame.into()),
        }
    }

    fn enqueue(
        &mut self,
        epoch: Epoch,
        number: RequestNumber,
        acknowledged: RequestNumber,
        queued: Queued,
    ) -> Result<(), ServerError> {
        if self.refused == Some(epoch) {
            return Ok(());
        }
        if self.epoch != Some(epoch) {
            if number != RequestNumber(1) {
                self.refuse(epoch, self.unknown);
                return Ok(());
            }
            let fresh = Self::new(self.config);
            *self = Self { epoch: Some(epoch), refused: self.refused, ..fresh };
            self.out.push_back(Action::Reset);
        }
        self.acknowledge(acknowledged);
        let number = number.0;
        if number <= self.done {
            let index = number.checked_sub(self.acknowledged + 1);
            if let Some(answer) = index.and_then(|index| self.answers.get(index)) {
                self.send_answer(number, answer.clone());
            }
            return Ok(());
        }
        let last = self.done + u64::from(self.present.is_some()) + self.queue.len() as u64;
        if number > last + 1 {
            self.refuse(epoch, RefusalReason::OutOfOrder);
        } else if number == last + 1 {
            if !self.queue.is_empty() && self.queue_size + queued.size > WINDOW {
                return Err(ServerError::WindowExceeded);
            }
            self.queue_size += queued.size;
            self.queue.push_back(queued);
        }
        Ok(())
    }

    fn acknowledge(&mut self, acknowledged: RequestNumber) {
        while self.acknowledged < acknowledged.0.min(self.done) {
            self.acknowledged += 1;
            self.answers.pop();
            self.solicited = false;
        }
        self.release();
    }

    /// Returns the next step. Returns `None` if there is nothing to do until the client sends a
    /// message, or until [`Self::finish`] or [`Self::fail`] is called.
    pub fn poll_action(&mut self) -> Option<Action> {
        if let Some(action) = self.out.pop_front() {
            return Some(action);
        }
        if self.present.is_some() || self.queue.is_empty() {
            return None;
        }
        if self.answers.size() > self.config.room {
            self.solicit();
            return self.out.pop_front();
        }
        let Queued { size, announce, work } = self.queue.pop_front()?;
        self.queue_size -= size;
        self.present = Some(Present::Executing);
        let next = match work {
            Work::Execute(request) => Action::Execute(request),
            Work::Fail(failure) => Action::Fail(failure),
        };
        if !announce {
            return Some(next);
        }
        self.out.push_back(next);
        let number = RequestNumber(self.done + 1);
        Some(Action::Send(Frame::Begun { epoch: self.epoch?, number }.encode()))
    }

    /// Returns whether the next action begins a request: announces, executes or fails it.
    #[must_use]
    pub fn begins_request(&self) -> bool {
        self.out.is_empty() && self.present.is_none() && !self.queue.is_empty()
    }

    /// Returns the number of the request that is being executed.
    #[must_use]
    pub fn present(&self) -> RequestNumber {
        RequestNumber(self.done + 1)
    }

    /// Records that the present request was executed with this reply. If a checkpoint is due, calls
    /// `save`, which returns the state of the service. [`Self::poll_action`] then returns the
    /// checkpoint, and after it the reply. Returns the state if a checkpoint was due.
    ///
    /// # Errors
    ///
    /// Returns the error of `save`, or an error if the reply or the state is too long. The caller
    /// then has to restore the state of the service from before the request, and to call
    /// [`Self::fail`].
    pub fn finish(
        &mut self,
        reply: Bytes,
        save: impl FnOnce() -> Result<Bytes, RequestFailure>,
    ) -> Result<Option<Bytes>, RequestFailure> {
        let ServerConfig { checkpoint_every, room, max_reply } = self.config;
        let most = room.saturating_sub(CHECKPOINT_HEADER + 4);
        let is_due = self.since_checkpoint + 1 >= checkpoint_every;
        let state = is_due.then(save).transpose()?;
        let state_length = state.as_ref().map_or(0, Bytes::len);
        if state_length > self.max_state() {
            let (length, limit) = (state_length as u64, self.max_state() as u64);
            return Err(RequestFailure::StateTooLong { length, limit });
        }
        let limit = (most - state_length).min(max_reply);
        if reply.len() > limit {
            let (length, limit) = (reply.len() as u64, limit as u64);
            return Err(RequestFailure::ReplyTooLong { length, limit });
        }
        // Copies the reply, because it may be a slice of a large message, which would stay in
        // memory.
        let answer = Answer::Reply(Bytes::copy_from_slice(&reply));
        match &state {
            Some(state) => self.hold(answer, state.clone()),
            None => {
                self.since_checkpoint += 1;
                self.record(answer);
            }
        }
        Ok(state)
    }

    /// Records that the present request failed; `state` is the state of the service without the
    /// request. [`Self::poll_action`] then returns a checkpoint, and after it the failure. If this
    /// state does not fit into a checkpoint, the server refuses the session.
    pub fn fail(&mut self, failure: RequestFailure, state: Bytes) {
        if state.len() > self.max_state() {
            return self.refuse(self.epoch.unwrap_or(Epoch(0)), RefusalReason::StateTooLarge);
        }
        self.hold(Answer::Failure(failure), state);
    }

    /// Returns the maximum length of a state in bytes.
    fn max_state(&self) -> usize {
        self.config.room.saturating_sub(CHECKPOINT_HEADER + FAILURE_SIZE)
    }

    fn hold(&mut self, answer: Answer, state: Bytes) {
        self.present = Some(Present::Held { answer, state });
        self.release();
    }

    /// Sends the checkpoint and the answer that are held back, if the checkpoint has room for the
    /// answer. Otherwise, asks the client to acknowledge earlier answers.
    fn release(&mut self) {
        let Some(Present::Held { answer, state }) = &self.present else { return };
        let size = CHECKPOINT_HEADER + self.answers.size() + answer.size() + state.len();
        if size > self.config.room && !self.answers.is_empty() {
            return self.solicit();
        }
        let Some(Present::Held { answer, state }) = self.present.take() else { return };
        self.since_checkpoint = 0;
        // The checkpoint is sent before the answer, so that the next server knows everything that
        // the client has seen.
        self.out.push_back(self.checkpoint(&answer, &state));
        self.record(answer);
    }

    fn checkpoint(&self, last: &Answer, state: &[u8]) -> Action {
        let epoch = self.epoch.unwrap_or(Epoch(0));
        let clear = Reach { epoch, number: self.present() }.encode();
        let size = CHECKPOINT_HEADER + self.answers.size() + last.size() + state.len();
        let mut rest = BytesMut::with_capacity(size);
        rest.put_u64(self.acknowledged);
        self.answers.encode(&mut rest);
        last.encode(&mut rest);
        rest.put_slice(state);
        Action::Checkpoint { clear, rest: rest.freeze() }
    }

    fn record(&mut self, answer: Answer) {
        self.present = None;
        self.done += 1;
        self.answers.push(answer.clone());
        self.send_answer(self.done, answer);
    }

    fn send_answer(&mut self, number: u64, answer: Answer) {
        let (epoch, number) = (self.epoch.unwrap_or(Epoch(0)), RequestNumber(number));
        self.out.push_back(Action::Send(Frame::Answer { epoch, number, answer }.encode()));
    }

    fn solicit(&mut self) {
        if let (Some(epoch), false) = (self.epoch, std::mem::replace(&mut self.solicited, true)) {
            self.out.push_back(Action::Send(Frame::Solicitation { epoch }.encode()));
        }
    }

    /// Records that the received checkpoint cannot be restored. The server refuses the requests
    /// that follow, until the client begins another epoch of the session.
    pub fn refuse_checkpoint(&mut self, reason: RefusalReason) {
        *self = Self { unknown: reason, ..Self::new(self.config) };
    }

    /// Refuses to continue the session, because the service has no state that it can save.
    pub fn refuse_state(&mut self) {
        self.refuse(self.epoch.unwrap_or(Epoch(0)), RefusalReason::StateRejected);
    }

    fn refuse(&mut self, epoch: Epoch, reason: RefusalReason) {
        let out = std::mem::take(&mut self.out);
        *self = Self { refused: Some(epoch), out, ..Self::new(self.config) };
        self.out.push_back(Action::Send(Frame::Refusal { epoch, reason }.encode()));
    }
}
