//! Answers to requests, and their place in a checkpoint.

use std::collections::VecDeque;

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// The answer to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "both sides have to know all of them")]
pub enum Answer {
    /// The reply of the service.
    Reply(Bytes),
    /// The request failed, and the service's state is as if the request had not been sent.
    Failure(RequestFailure),
}

/// The reason why a request failed. The session continues without it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestFailure {
    /// The service panicked while it executed the request.
    #[error("the service panicked")]
    Panicked,
    /// Servers crashed while they executed the request, so it was not executed by another one.
    #[error("{servers} servers crashed while they executed the request")]
    Crashed {
        /// The number of servers that crashed, or were left because they took too long.
        servers: u32,
    },
    /// The reply is longer than a message, or does not fit into a checkpoint together with the
    /// state.
    #[error("the reply of {length} bytes is too long: at most {limit} can be sent")]
    ReplyTooLong {
        /// The length of the reply in bytes.
        length: u64,
        /// The maximum length in bytes, given the size of the present state.
        limit: u64,
    },
    /// The state after the request does not fit a checkpoint.
    #[error("the state of {length} bytes after the request is too long: a checkpoint has {limit}")]
    StateTooLong {
        /// The length of the state in bytes.
        length: u64,
        /// The maximum length in bytes.
        limit: u64,
    },
    /// The client gave the request up at its deadline
    /// ([`RequestOptions::deadline`](super::RequestOptions::deadline)). It may or may not be
    /// executed.
    #[error("no reply until the request's deadline")]
    DeadlinePassed,
    /// The service could not save its state after the request.
    #[error("the service could not save its state after the request")]
    StateNotSaved,
    /// A reason that this implementation does not know; contains its number.
    #[error("the request failed: unknown reason {0}")]
    Other(u8),
}

impl RequestFailure {
    /// The maximum length of an encoded failure in bytes.
    pub(super) const MAX_LENGTH: usize = 17;

    pub(super) fn encode(self, out: &mut impl BufMut) {
        match self {
            Self::Panicked => out.put_u8(1),
            Self::Crashed { servers } => {
                out.put_u8(2);
                out.put_u32(servers);
            }
            Self::ReplyTooLong { length, limit } => {
                out.put_u8(3);
                out.put_u64(length);
                out.put_u64(limit);
            }
            Self::StateTooLong { length, limit } => {
                out.put_u8(4);
                out.put_u64(length);
                out.put_u64(limit);
            }
            Self::DeadlinePassed => out.put_u8(5),
            Self::StateNotSaved => out.put_u8(6),
            Self::Other(number) => out.put_u8(number),
        }
    }

    /// Decodes a failure. Further bytes are ignored, so that later versions can add fields.
    pub(super) fn decode(mut bytes: &[u8]) -> Option<Self> {
        Some(match bytes.try_get_u8().ok()? {
            1 => Self::Panicked,
            2 => Self::Crashed { servers: bytes.try_get_u32().ok()? },
            3 => Self::ReplyTooLong {
                length: bytes.try_get_u64().ok()?,
                limit: bytes.try_get_u64().ok()?,
            },
            4 => Self::StateTooLong {
                length: bytes.try_get_u64().ok()?,
                limit: bytes.try_get_u64().ok()?,
            },
            5 => Self::DeadlinePassed,
            6 => Self::StateNotSaved,
            number => Self::Other(number),
        })
    }
}

/// The bit in the encoded length of an answer that marks the answer as a failure.
const FAILED: u32 = 1 << 31;

impl Answer {
    /// Returns the size of the answer in a checkpoint, in bytes.
    pub(super) fn size(&self) -> usize {
        match self {
            Self::Reply(body) => 4 + body.len(),
            Self::Failure(_) => 4 + RequestFailure::MAX_LENGTH,
        }
    }

    pub(super) fn encode(&self, out: &mut BytesMut) {
        match self {
            Self::Reply(body) => {
                out.put_u32(u32::try_from(body.len()).map_or(FAILED - 1, |it| it & !FAILED));
                out.put_slice(body);
            }
            Self::Failure(failure) => {
                let mut encoded = Vec::with_capacity(RequestFailure::MAX_LENGTH);
                failure.encode(&mut encoded);
                out.put_u32(FAILED | RequestFailure::MAX_LENGTH as u32);
                encoded.resize(RequestFailure::MAX_LENGTH, 0);
                out.put_slice(&encoded);
            }
        }
    }

    fn decode(bytes: &mut Bytes) -> Option<Self> {
        let length = bytes.try_get_u32().ok()?;
        let content = (length & !FAILED) as usize;
        if content > bytes.len() {
            return None;
        }
        let content = bytes.split_to(content);
        Some(match length & FAILED {
            // A copy, because the cookie's memory is not kept.
            0 => Self::Reply(Bytes::copy_from_slice(&content)),
            _ => Self::Failure(RequestFailure::decode(&content)?),
        })
    }
}

/// The answers that the client has not acknowledged.
#[derive(Debug, Default)]
pub(super) struct Unacknowledged {
    answers: VecDeque<Answer>,
    size: usize,
}

impl Unacknowledged {
    pub(super) fn is_empty(&self) -> bool {
        self.answers.is_empty()
    }

    /// Returns the size of the answers in a checkpoint, in bytes.
    pub(super) fn size(&self) -> usize {
        self.size
    }

    pub(super) fn push(&mut self, answer: Answer) {
        self.size += answer.size();
        self.answers.push_back(answer);
    }

    /// Removes the oldest answer, which is acknowledged.
    pub(super) fn pop(&mut self) {
        self.size -= self.answers.pop_front().map_or(0, |answer| answer.size());
    }

    pub(super) fn get(&self, index: u64) -> Option<&Answer> {
        self.answers.get(usize::try_from(index).ok()?)
    }

    pub(super) fn encode(&self, out: &mut BytesMut) {
        for answer in &self.answers {
            answer.encode(out);
        }
    }

    /// Decodes `count` answers from the beginning of `bytes`.
    pub(super) fn decode(bytes: &mut Bytes, count: u64) -> Option<Self> {
        let mut decoded = Self::default();
        for _ in 0..count {
            decoded.push(Answer::decode(bytes)?);
        }
        Some(decoded)
    }
}
