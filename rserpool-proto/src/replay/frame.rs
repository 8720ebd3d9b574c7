//! Encoding of requests and replies in a session's messages.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::RefusalReason;

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
/// request   01 00 00 00  epoch:u32  number:u64  acknowledged:u64  body
/// reply     02 00 00 00  epoch:u32  number:u64  body
/// refusal   03 why 00 00 epoch:u32
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
        /// The request.
        body: Bytes,
    },
    /// Answers a request that was executed.
    Reply {
        /// The epoch of the session.
        epoch: Epoch,
        /// The request's number.
        number: RequestNumber,
        /// The reply.
        body: Bytes,
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

/// Error of [`Frame::decode`]: the message is not a request, reply or refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("cannot decode the message: not a request, reply or refusal")]
#[non_exhaustive]
pub struct InvalidFrame;

impl Frame {
    /// Length of a request without its body.
    pub const REQUEST_HEADER: usize = 24;

    /// Encodes the message.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut bytes = BytesMut::new();
        match self {
            Self::Request { epoch, number, acknowledged, body } => {
                bytes.reserve(Self::REQUEST_HEADER + body.len());
                bytes.put_slice(&[1, 0, 0, 0]);
                bytes.put_u32(epoch.0);
                bytes.put_u64(number.0);
                bytes.put_u64(acknowledged.0);
                bytes.put_slice(body);
            }
            Self::Reply { epoch, number, body } => {
                bytes.reserve(16 + body.len());
                bytes.put_slice(&[2, 0, 0, 0]);
                bytes.put_u32(epoch.0);
                bytes.put_u64(number.0);
                bytes.put_slice(body);
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
    /// Returns an error if `bytes` is not a request, reply or refusal.
    pub fn decode(mut bytes: Bytes) -> Result<Self, InvalidFrame> {
        let kind = bytes.try_get_u8().map_err(|_| InvalidFrame)?;
        let why = bytes.try_get_u8().map_err(|_| InvalidFrame)?;
        bytes.try_get_u16().map_err(|_| InvalidFrame)?;
        let epoch = Epoch(bytes.try_get_u32().map_err(|_| InvalidFrame)?);
        let mut number = || bytes.try_get_u64().map(RequestNumber).map_err(|_| InvalidFrame);
        match kind {
            1 => {
                let (number, acknowledged) = (number()?, number()?);
                Ok(Self::Request { epoch, number, acknowledged, body: bytes })
            }
            2 => {
                let number = number()?;
                Ok(Self::Reply { epoch, number, body: bytes })
            }
            3 => Ok(Self::Refusal { epoch, reason: reason(why) }),
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
        RefusalReason::Other(number) => number,
    }
}

fn reason(number: u8) -> RefusalReason {
    match number {
        1 => RefusalReason::NoCheckpoint,
        2 => RefusalReason::CheckpointRefused,
        3 => RefusalReason::OutOfOrder,
        4 => RefusalReason::StateTooLarge,
        other => RefusalReason::Other(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_encoding_and_nothing_else_decodes() {
        let (epoch, number) = (Epoch(7), RequestNumber(1 << 40));
        let body = Bytes::from_static(b"body");
        for frame in [
            Frame::Request { epoch, number, acknowledged: RequestNumber(3), body: body.clone() },
            Frame::Reply { epoch, number, body: Bytes::new() },
            Frame::Refusal { epoch, reason: RefusalReason::CheckpointRefused },
            Frame::Refusal { epoch, reason: RefusalReason::Other(99) },
        ] {
            let bytes = frame.encode();
            assert_eq!(Frame::decode(bytes.clone()), Ok(frame.clone()));
            let fixed = match frame {
                Frame::Request { .. } => 24,
                Frame::Reply { .. } => 16,
                Frame::Refusal { .. } => 8,
            };
            for length in 0..fixed {
                assert_eq!(Frame::decode(bytes.slice(..length)), Err(InvalidFrame));
            }
        }
        assert_eq!(Frame::decode(Bytes::from_static(&[9; 30])), Err(InvalidFrame));
    }
}
