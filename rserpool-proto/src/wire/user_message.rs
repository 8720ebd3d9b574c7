//! The unit of data that a transport carries.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;

/// A payload protocol identifier (RFC 9260 section 3.3.1), in host order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Ppid(pub u32);

impl Ppid {
    /// No protocol given: the data of an application that does not use the field.
    pub const NONE: Self = Self(0);
    /// ASAP (RFC 5352 section 8.3); a session's control channel uses it as well.
    pub const ASAP: Self = Self(11);
    /// ENRP (RFC 5353).
    pub const ENRP: Self = Self(12);
}

impl fmt::Display for Ppid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Debug for Ppid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ppid({})", self.0)
    }
}

/// A user message in the sense of SCTP: bytes with a boundary, a payload protocol identifier and a
/// stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserMessage {
    /// The content of the message.
    pub payload: Bytes,
    /// The protocol that the payload belongs to.
    pub ppid: Ppid,
    /// The SCTP stream; ASAP and ENRP use 0. TCP has only one.
    pub stream: u16,
    /// True to let the message overtake earlier ones, if the transport supports that.
    pub unordered: bool,
    /// The limit, if any, after which the transport drops the message instead of retransmitting it.
    /// Received messages have [`Reliability::Full`].
    pub reliability: Reliability,
}

/// The limit, if any, after which SCTP drops a message instead of retransmitting it (RFC 3758, RFC
/// 7496). Over TCP, all messages are delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Reliability {
    /// Retransmits as long as the connection exists.
    #[default]
    Full,
    /// Drops the message when it is older than this, in whole milliseconds from the time when the
    /// kernel accepts it. Time spent waiting for buffer space before that does not count.
    Lifetime(Duration),
    /// Drops the message after this many retransmissions.
    Retransmissions(u32),
}

impl UserMessage {
    /// Creates an ordered message on stream 0.
    #[must_use]
    pub fn new(ppid: Ppid, payload: impl Into<Bytes>) -> Self {
        Self {
            payload: payload.into(),
            ppid,
            stream: 0,
            unordered: false,
            reliability: Reliability::Full,
        }
    }
}
