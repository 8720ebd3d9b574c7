//! The unit of data that a transport carries.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;

/// A payload protocol identifier (RFC 9260 section 3.3.1), in host order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Ppid(pub u32);

impl Ppid {
    /// None given: the data of an application that does not use the field.
    pub const NONE: Self = Self(0);
    /// ASAP (RFC 5352 section 8.3), which is also a session's control channel.
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

/// One user message in the sense of SCTP: bytes with a boundary, a payload protocol
/// identifier and a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserMessage {
    /// The bytes.
    pub payload: Bytes,
    /// Says which protocol they belong to.
    pub ppid: Ppid,
    /// The SCTP stream; ASAP and ENRP use 0. TCP has but one.
    pub stream: u16,
    /// True if it may overtake the messages before it, where the transport can do that.
    pub unordered: bool,
    /// Effort to deliver the message, where the transport can give up. A received message is
    /// [`Reliability::Full`].
    pub reliability: Reliability,
}

/// Effort to deliver a message (RFC 3758, RFC 7496). Over TCP all messages are delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Reliability {
    /// As long as the connection lasts.
    #[default]
    Full,
    /// Not when it is older than this, in whole milliseconds from when the kernel has it. What
    /// waits for room before that does not age.
    Lifetime(Duration),
    /// Not more often than this after the first time.
    Retransmissions(u32),
}

impl UserMessage {
    /// An ordered message on stream 0.
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
