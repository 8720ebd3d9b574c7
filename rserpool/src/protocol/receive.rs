//! What every ASAP endpoint does with the bytes of a message before it looks at their meaning.

use super::{ConnectionId, Outbox};
use crate::wire::{ErrorCause, OperationError, Ppid, UserMessage, asap};

/// What came.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "it lives as long as one call")]
pub(crate) enum Received {
    /// A message to process.
    Message(asap::Body),
    /// Nothing to process, for this reason. The sender was told where the RFC asks for it.
    Refused(String),
}

/// Decodes a message, and answers what the RFC wants answered: bytes that are no message, types
/// of messages and parameters that we do not know (RFC 5352 section 2.2.14, RFC 5354 sections 3
/// and 4).
pub(crate) fn receive<E>(
    out: &mut Outbox<E>,
    from: ConnectionId,
    message: &UserMessage,
) -> Received {
    if message.ppid != Ppid::ASAP {
        return Received::Refused(format!("payload protocol identifier {}", message.ppid));
    }
    let decoded = match asap::Message::decode(&message.payload) {
        Ok(decoded) => decoded,
        Err(error) => {
            // An error about an error could go back and forth for ever.
            if message.payload.first() != Some(&asap::Error::TYPE) {
                report(out, from, error.cause(&message.payload).into());
            }
            return Received::Refused(error.to_string());
        }
    };
    if let asap::Body::Unknown(unknown) = &decoded.body {
        if unknown.wants_report() {
            report(out, from, ErrorCause::UnrecognizedMessage(message.payload.clone()).into());
        }
        return Received::Refused(format!("message of unknown type {:#04x}", unknown.message_type));
    }
    let disposition = decoded.disposition();
    if !disposition.report.is_empty() && !matches!(decoded.body, asap::Body::Error(_)) {
        report(out, from, disposition.report.into_iter().collect());
    }
    if disposition.process {
        Received::Message(decoded.body)
    } else {
        Received::Refused("unknown parameter that stops processing".to_owned())
    }
}

fn report<E>(out: &mut Outbox<E>, to: ConnectionId, error: OperationError) {
    // A cause that quotes too much to fit is told without the quotation.
    if out.send(to, asap::Error { error }).is_err() {
        let error = ErrorCause::Unspecified.into();
        out.send(to, asap::Error { error }).expect("an error without quotation is short");
    }
}
