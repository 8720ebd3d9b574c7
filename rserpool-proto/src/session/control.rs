//! The control channel of a session (RFC 5352 section 3.8): ASAP messages on the connection that
//! also carries the application's data.

use bytes::Bytes;

use crate::receive::{Received, receive_control};
use crate::wire::asap::{self, Body, BusinessCard, SessionHeartbeat};
use crate::wire::{EncodeError, Ppid, UserMessage};

/// A message that was received in a session, as classified by [`classify`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "drivers handle each")]
pub enum Incoming {
    /// Data of the application.
    Data(UserMessage),
    /// The session's state, to be kept for the element that takes over.
    Cookie(Bytes),
    /// The state that the previous element stored.
    CookieEcho(Bytes),
    /// A business card: the elements that may take over.
    BusinessCard(BusinessCard),
    /// A heartbeat; [`classify`] returns the answer to send.
    Heartbeat,
    /// The answer to a heartbeat: the program at the other end responds.
    HeartbeatReply,
    /// A message that does not belong on a control channel; contains the reason.
    Unexpected(String),
}

/// Encodes a message of the control channel. Its length does not include the padding of the last
/// parameter (RFC 5354 section 4) with any [`Compatibility`]: all implementations read that.
///
/// # Errors
///
/// Returns an error if the message is too long.
///
/// [`Compatibility`]: crate::Compatibility
pub fn control_message(message: impl Into<asap::Message>) -> Result<UserMessage, EncodeError> {
    let payload = message.into().counting_padding(false).encode()?;
    Ok(UserMessage::new(Ppid::ASAP, payload))
}

/// Returns the answer to a heartbeat, which an element may also send unasked, to show that its
/// program responds.
#[must_use]
pub fn heartbeat_reply() -> Option<UserMessage> {
    heartbeat_message(true)
}

/// Returns a heartbeat, or the answer to one.
pub(super) fn heartbeat_message(reply: bool) -> Option<UserMessage> {
    control_message(SessionHeartbeat { reply }).ok()
}

/// Separates control messages from data by the payload protocol identifier. Also returns the
/// message to send back, if any: the answer to a heartbeat, or the error report for a message that
/// is not understood (RFC 5352 section 2.2.14).
#[must_use]
pub fn classify(message: UserMessage) -> (Incoming, Option<UserMessage>) {
    if message.ppid != Ppid::ASAP {
        return (Incoming::Data(message), None);
    }
    let (received, answer) = receive_control(&message);
    if let Received::Message(Body::SessionHeartbeat(heartbeat)) = &received {
        return match heartbeat.reply {
            true => (Incoming::HeartbeatReply, None),
            false => (Incoming::Heartbeat, heartbeat_message(true)),
        };
    }
    #[allow(clippy::wildcard_enum_match_arm, reason = "all others are for registrars")]
    let incoming = match received {
        Received::Message(Body::Cookie(message)) => Incoming::Cookie(message.cookie.0),
        Received::Message(Body::CookieEcho(message)) => Incoming::CookieEcho(message.cookie.0),
        Received::Message(Body::BusinessCard(card)) => Incoming::BusinessCard(card),
        Received::Message(Body::Error(error)) => Incoming::Unexpected(error.error.to_string()),
        Received::Message(other) => {
            Incoming::Unexpected(crate::wire::Body::name(&other).to_owned())
        }
        Received::Refused(reason) => Incoming::Unexpected(reason),
    };
    (incoming, answer)
}
