//! Encoding of requests and replies in a session's messages.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::{Answer, RefusalReason, RequestFailure};

/// The number of a request in an epoch of its session, from 1 on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[allow(clippy::exhaustive_structs, reason = "a number")]
pub struct RequestNumber(pub u64);

/// A session's epoch: 1 at first, and incremented each time the session starts afresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(clippy::exhaustive_structs, reason = "a number")]
pub struct Epoch(pub u32);

/// A message between client and server. All numbers are in network byte order:
///
/// ```text
/// request      01 announce 00 00  epoch:u32  number:u64  acknowledged:u64  body
/// reply        02 00 00 00        epoch:u32  number:u64  body
/// refusal      03 why 00 00       epoch:u32
/// failure      04 00 00 00        epoch:u32  number:u64  why:u8 details
/// abandonment  05 00 00 00        epoch:u32  number:u64  acknowledged:u64  servers:u32
/// acknowledge  06 00 00 00        epoch:u32  acknowledged:u64
/// begun        07 00 00 00        epoch:u32  number:u64
/// solicit      08 00 00 00        epoch:u32
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "both sides have to know all of them")]
pub enum Frame {
    /// Asks the server to execute a request.
    Request {
        /// The epoch of the session.
        epoch: Epoch,
        /// The request's number.
        number: RequestNumber,
        /// The number of the last request up to which the client has received all replies.
        acknowledged: RequestNumber,
        /// True if the server has to announce that it begins to execute the request.
        announce: bool,
        /// The request.
        body: Bytes,
    },
    /// Asks the server to fail a request instead of executing it, because servers crashed while
    /// they executed it. A server that has an answer to the request sends that.
    Abandonment {
        /// The epoch of the session.
        epoch: Epoch,
        /// The request's number.
        number: RequestNumber,
        /// The number of the last request up to which the client has received all replies.
        acknowledged: RequestNumber,
        /// The number of servers that crashed.
        servers: u32,
    },
    /// Acknowledges answers without a request.
    Acknowledgement {
        /// The epoch of the session.
        epoch: Epoch,
        /// The number of the last request up to which the client has received all replies.
        acknowledged: RequestNumber,
    },
    /// Answers a request.
    Answer {
        /// The epoch of the session.
        epoch: Epoch,
        /// The request's number.
        number: RequestNumber,
        /// The reply, or the failure.
        answer: Answer,
    },
    /// Announces that the server begins to execute a request.
    Begun {
        /// The epoch of the session.
        epoch: Epoch,
        /// The request's number.
        number: RequestNumber,
    },
    /// Asks the client to acknowledge the answers that it has received.
    Solicitation {
        /// The epoch of the session.
        epoch: Epoch,
    },
    /// Refuses an epoch of the session, that is all requests since it last began with a new state:
    /// the server executes no more of them.
    Refusal {
        /// The epoch of the session.
        epoch: Epoch,
        /// The reason.
        reason: RefusalReason,
    },
}

/// Error of [`Frame::decode`]: the bytes are not a message of this protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("cannot decode the message: not of the protocol of requests and replies")]
#[non_exhaustive]
pub struct InvalidFrame;

impl Frame {
    /// Length of a request without its body.
    pub const REQUEST_HEADER: usize = 24;
    /// Length of a reply without its body.
    pub const REPLY_HEADER: usize = 16;

    /// Encodes the message.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut bytes = BytesMut::new();
        match self {
            Self::Request { epoch, number, acknowledged, announce, body } => {
                bytes.reserve(Self::REQUEST_HEADER + body.len());
                bytes.put_slice(&[1, u8::from(*announce), 0, 0]);
                bytes.put_u32(epoch.0);
                bytes.put_u64(number.0);
                bytes.put_u64(acknowledged.0);
                bytes.put_slice(body);
            }
            Self::Answer { epoch, number, answer: Answer::Reply(body) } => {
                bytes.reserve(Self::REPLY_HEADER + body.len());
                bytes.put_slice(&[2, 0, 0, 0]);
                bytes.put_u32(epoch.0);
                bytes.put_u64(number.0);
                bytes.put_slice(body);
            }
            Self::Answer { epoch, number, answer: Answer::Failure(failure) } => {
                bytes.put_slice(&[4, 0, 0, 0]);
                bytes.put_u32(epoch.0);
                bytes.put_u64(number.0);
                failure.encode(&mut bytes);
            }
            Self::Abandonment { epoch, number, acknowledged, servers } => {
                bytes.put_slice(&[5, 0, 0, 0]);
                bytes.put_u32(epoch.0);
                bytes.put_u64(number.0);
                bytes.put_u64(acknowledged.0);
                bytes.put_u32(*servers);
            }
            Self::Acknowledgement { epoch, acknowledged } => {
                bytes.put_slice(&[6, 0, 0, 0]);
                bytes.put_u32(epoch.0);
                bytes.put_u64(acknowledged.0);
            }
            Self::Begun { epoch, number } => {
                bytes.put_slice(&[7, 0, 0, 0]);
                bytes.put_u32(epoch.0);
                bytes.put_u64(number.0);
            }
            Self::Solicitation { epoch } => {
                bytes.put_slice(&[8, 0, 0, 0]);
                bytes.put_u32(epoch.0);
            }
            Self::Refusal { epoch, reason } => {
                bytes.put_slice(&[3, number(*reason), 0, 0]);
                bytes.put_u32(epoch.0);
            }
        }
        bytes.freeze()
    }

    /// Decodes a message. The body of the result shares the memory of `bytes`.
    ///
    /// # Errors
    ///
    /// Returns an error if `bytes` is not a message of this protocol.
    pub fn decode(mut bytes: Bytes) -> Result<Self, InvalidFrame> {
        let kind = bytes.try_get_u8().map_err(|_| InvalidFrame)?;
        let detail = bytes.try_get_u8().map_err(|_| InvalidFrame)?;
        bytes.try_get_u16().map_err(|_| InvalidFrame)?;
        let epoch = Epoch(bytes.try_get_u32().map_err(|_| InvalidFrame)?);
        let mut number = || bytes.try_get_u64().map(RequestNumber).map_err(|_| InvalidFrame);
        match kind {
            1 => {
                let (number, acknowledged) = (number()?, number()?);
                Ok(Self::Request {
                    epoch,
                    number,
                    acknowledged,
                    announce: detail != 0,
                    body: bytes,
                })
            }
            2 => {
                let number = number()?;
                Ok(Self::Answer { epoch, number, answer: Answer::Reply(bytes) })
            }
            3 => Ok(Self::Refusal { epoch, reason: reason(detail) }),
            4 => {
                let number = number()?;
                let failure = RequestFailure::decode(&bytes).ok_or(InvalidFrame)?;
                Ok(Self::Answer { epoch, number, answer: Answer::Failure(failure) })
            }
            5 => {
                let (number, acknowledged) = (number()?, number()?);
                let servers = bytes.try_get_u32().map_err(|_| InvalidFrame)?;
                Ok(Self::Abandonment { epoch, number, acknowledged, servers })
            }
            6 => Ok(Self::Acknowledgement { epoch, acknowledged: number()? }),
            7 => Ok(Self::Begun { epoch, number: number()? }),
            8 => Ok(Self::Solicitation { epoch }),
            _ => Err(InvalidFrame),
        }
    }
}

fn number(reason: RefusalReason) -> u8 {
    match reason {
        RefusalReason::NoCheckpoint => 1,
        RefusalReason::CheckpointRefused => 2,
        RefusalReason::OutOfOrder => 3,
        RefusalReason::StateTooLarge => 4,
        RefusalReason::UnknownKey => 5,
        RefusalReason::Expired => 6,
        RefusalReason::Replayed => 7,
        RefusalReason::StateRejected => 8,
        RefusalReason::Other(number) => number,
    }
}

fn reason(number: u8) -> RefusalReason {
    match number {
        1 => RefusalReason::NoCheckpoint,
        2 => RefusalReason::CheckpointRefused,
        3 => RefusalReason::OutOfOrder,
        4 => RefusalReason::StateTooLarge,
        5 => RefusalReason::UnknownKey,
        6 => RefusalReason::Expired,
        7 => RefusalReason::Replayed,
        8 => RefusalReason::StateRejected,
        other => RefusalReason::Other(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_encoding_and_nothing_else_decodes() {
        let (epoch, number) = (Epoch(7), RequestNumber(1 << 40));
        let (acknowledged, body) = (RequestNumber(3), Bytes::from_static(b"body"));
        let failure = |failure| {
            let answer = Answer::Failure(failure);
            Frame::Answer { epoch, number, answer }
        };
        for frame in [
            Frame::Request { epoch, number, acknowledged, announce: true, body: body.clone() },
            Frame::Abandonment { epoch, number, acknowledged, servers: 3 },
            Frame::Acknowledgement { epoch, acknowledged },
            Frame::Answer { epoch, number, answer: Answer::Reply(Bytes::new()) },
            failure(RequestFailure::Panicked),
            failure(RequestFailure::StateNotSaved),
            failure(RequestFailure::Crashed { servers: 3 }),
            failure(RequestFailure::ReplyTooLong { length: 70_000, limit: 65_000 }),
            failure(RequestFailure::StateTooLong { length: 70_000, limit: 65_000 }),
            failure(RequestFailure::DeadlinePassed),
            failure(RequestFailure::Other(99)),
            Frame::Begun { epoch, number },
            Frame::Solicitation { epoch },
            Frame::Refusal { epoch, reason: RefusalReason::CheckpointRefused },
            Frame::Refusal { epoch, reason: RefusalReason::Other(99) },
        ] {
            let bytes = frame.encode();
            assert_eq!(Frame::decode(bytes.clone()), Ok(frame.clone()));
            let fixed = match frame {
                Frame::Request { .. } => 24,
                Frame::Answer { answer: Answer::Reply(_), .. }
                | Frame::Acknowledgement { .. }
                | Frame::Begun { .. } => 16,
                Frame::Refusal { .. } | Frame::Solicitation { .. } => 8,
                Frame::Answer { answer: Answer::Failure(_), .. } | Frame::Abandonment { .. } => {
                    bytes.len()
                }
            };
            for length in 0..fixed {
                assert_eq!(Frame::decode(bytes.slice(..length)), Err(InvalidFrame));
            }
        }
        assert_eq!(Frame::decode(Bytes::from_static(&[9; 30])), Err(InvalidFrame));
    }
}
