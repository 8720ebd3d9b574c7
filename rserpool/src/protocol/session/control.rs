//! The control channel of a session (RFC 5352 section 3.8): ASAP messages among the data.

use bytes::Bytes;

use crate::wire::asap::{BusinessCard, Message};
use crate::wire::{Ppid, UserMessage, asap};

/// What a message of a session is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Incoming {
    /// The application's.
    Data(UserMessage),
    /// State to keep for the element that takes over.
    Cookie(Bytes),
    /// The state that the last element left.
    CookieEcho(Bytes),
    /// Who may take over.
    BusinessCard(BusinessCard),
    /// Nothing that belongs on a control channel; why.
    Unexpected(String),
}

/// Tells control from data by the payload protocol identifier.
#[must_use]
pub fn classify(message: UserMessage) -> Incoming {
    if message.ppid != Ppid::ASAP {
        return Incoming::Data(message);
    }
    #[allow(clippy::wildcard_enum_match_arm, reason = "all others are for registrars")]
    match Message::decode(&message.payload).map(|message| message.body) {
        Ok(asap::Body::Cookie(message)) => Incoming::Cookie(message.cookie.0),
        Ok(asap::Body::CookieEcho(message)) => Incoming::CookieEcho(message.cookie.0),
        Ok(asap::Body::BusinessCard(card)) => Incoming::BusinessCard(card),
        Ok(other) => Incoming::Unexpected(crate::wire::Body::name(&other).to_owned()),
        Err(error) => Incoming::Unexpected(error.to_string()),
    }
}
