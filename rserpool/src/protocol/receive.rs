//! What every endpoint does with the bytes of a message before it looks at their meaning.

use super::{ConnectionId, Outbox};
use crate::wire::{
    Body, EncodeError, ErrorCause, Message, OperationError, Ppid, RegistrarId, UserMessage, asap,
    enrp,
};

/// What came.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "it lives as long as one call")]
pub(crate) enum Received<B> {
    /// A message to process.
    Message(B),
    /// Nothing to process, for this reason. The sender was told where the RFC asks for it.
    Refused(String),
}

/// Decodes an ASAP message, and answers what the RFC wants answered (RFC 5352 section 2.2.14).
pub(crate) fn receive<E>(
    out: &mut Outbox<E>,
    from: ConnectionId,
    message: &UserMessage,
) -> Received<asap::Body> {
    let unknown = |body: &asap::Body| {
        let asap::Body::Unknown(unknown) = body else { return None };
        Some(unknown.wants_report())
    };
    inspect(Ppid::ASAP, asap::Error::TYPE, message, unknown, |error| {
        out.send(from, asap::Error { error })
    })
}

/// The same for an ENRP message to the registrar `ours` (RFC 5353 section 3.7).
pub(crate) fn receive_enrp<E>(
    out: &mut Outbox<E>,
    from: ConnectionId,
    message: &UserMessage,
    ours: RegistrarId,
) -> Received<enrp::Body> {
    let unknown = |body: &enrp::Body| {
        let enrp::Body::Unknown(unknown) = body else { return None };
        Some(unknown.wants_report())
    };
    let route = enrp::Route { sender: ours, receiver: RegistrarId(0) };
    inspect(Ppid::ENRP, enrp::Error::TYPE, message, unknown, |error| {
        out.send_enrp(from, enrp::Error { route, error })
    })
}

/// The announcement of a registrar, if that is what came to a multicast group.
pub(crate) fn announcement(message: &UserMessage) -> Option<asap::ServerAnnounce> {
    if message.ppid != Ppid::ASAP {
        return None;
    }
    let body = asap::Message::decode(&message.payload).ok()?.body;
    let asap::Body::ServerAnnounce(announce) = body else { return None };
    Some(announce)
}

/// Decodes a message, and reports bytes that are no message, and types of messages and
/// parameters that we do not know (RFC 5354 sections 3 and 4). `unknown` says whether a body is
/// of unknown type, and then whether its sender wants to be told.
fn inspect<B: Body>(
    protocol: Ppid,
    error_type: u8,
    message: &UserMessage,
    unknown: impl FnOnce(&B) -> Option<bool>,
    mut send: impl FnMut(OperationError) -> Result<(), EncodeError>,
) -> Received<B> {
    if message.ppid != protocol {
        return Received::Refused(format!("payload protocol identifier {}", message.ppid));
    }
    let mut report = |error: OperationError| {
        // An error about an error could go back and forth for ever.
        if message.payload.first() == Some(&error_type) {
            return;
        }
        // A cause that quotes too much to fit is told without the quotation.
        if send(error).is_err() {
            send(ErrorCause::Unspecified.into()).expect("an error without quotation is short");
        }
    };
    let decoded = match Message::<B>::decode(&message.payload) {
        Ok(decoded) => decoded,
        Err(error) => {
            report(error.cause(&message.payload).into());
            return Received::Refused(error.to_string());
        }
    };
    if let Some(wants_report) = unknown(&decoded.body) {
        if wants_report {
            report(ErrorCause::UnrecognizedMessage(message.payload.clone()).into());
        }
        let number = decoded.body.message_type();
        return Received::Refused(format!("message of unknown type {number:#04x}"));
    }
    let disposition = decoded.disposition();
    if !disposition.report.is_empty() {
        report(disposition.report.into_iter().collect());
    }
    if disposition.process {
        Received::Message(decoded.body)
    } else {
        Received::Refused("unknown parameter that stops processing".to_owned())
    }
}
