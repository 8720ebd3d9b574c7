//! Decoding of received messages, and the error reports for those that cannot be processed. All
//! endpoints share it.

use super::{ConnectionId, Outbox};
use crate::session::control_message;
use crate::wire::{
    Body, Disposition, EncodeError, ErrorCause, Message, OperationError, PoolElementId, PoolHandle,
    Ppid, RegistrarId, UserMessage, asap, enrp,
};

/// The largest error cause, in bytes, that the refusal of a registration quotes. Not from the RFCs.
const MAX_QUOTED: usize = 4096;

/// The outcome of receiving a message.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "it lives as long as one call")]
pub(crate) enum Received<B> {
    /// A message to process.
    Message(B),
    /// The message is not to be processed, for this reason. An error was reported to the sender if
    /// the RFC requires a report.
    Refused(String),
}

/// The fields of a registration that are needed to refuse it, because it cannot be decoded or must
/// not be processed. The registrar refuses it by a registration response, not by an error message
/// (RFC 5352 section 3.1).
#[derive(Debug)]
pub(crate) struct BadRegistration {
    pub(crate) pool_handle: PoolHandle,
    pub(crate) identifier: PoolElementId,
    pub(crate) cause: ErrorCause,
    pub(crate) reason: String,
}

/// Decodes an ASAP message that a registrar received. Returns a registration that cannot be
/// processed as an error, so that the registrar refuses it by a response.
pub(crate) fn receive_from_client<E>(
    out: &mut Outbox<E>,
    from: ConnectionId,
    message: &UserMessage,
) -> Result<Received<asap::Body>, BadRegistration> {
    let (received, error) = inspect_asap(message);
    let Received::Refused(reason) = received else {
        return Ok(report(out, from, received, error));
    };
    match asap::Registration::addressee(&message.payload) {
        Some((pool_handle, identifier)) if message.ppid == Ppid::ASAP => {
            let mut causes = error.map(|error| error.causes).unwrap_or_default();
            // The quoted parameter has to fit into the response.
            causes.retain(|cause| cause.information().len() <= MAX_QUOTED);
            let cause = causes.into_iter().next().unwrap_or(ErrorCause::Unspecified);
            Err(BadRegistration { pool_handle, identifier, cause, reason })
        }
        _ => Ok(report(out, from, Received::Refused(reason), error)),
    }
}

fn report<E>(
    out: &mut Outbox<E>,
    to: ConnectionId,
    received: Received<asap::Body>,
    error: Option<OperationError>,
) -> Received<asap::Body> {
    if let Some(error) = error {
        shortened(error, |error| out.try_send(to, asap::Error { error }));
    }
    received
}

/// Decodes an ASAP message, and reports errors to its sender as the RFC requires (RFC 5352 section
/// 2.2.14).
pub(crate) fn receive<E>(
    out: &mut Outbox<E>,
    from: ConnectionId,
    message: &UserMessage,
) -> Received<asap::Body> {
    let (received, error) = inspect_asap(message);
    report(out, from, received, error)
}

/// Decodes an ASAP message of the control channel of a session, and returns the error report, if
/// any, for the caller to send.
pub(crate) fn receive_control(
    message: &UserMessage,
) -> (Received<asap::Body>, Option<UserMessage>) {
    let (received, error) = inspect_asap(message);
    let report = |error| control_message(asap::Error { error });
    (received, error.and_then(|error| shortened(error, report)))
}

fn inspect_asap(message: &UserMessage) -> (Received<asap::Body>, Option<OperationError>) {
    let unknown = |body: &asap::Body| {
        let asap::Body::Unknown(unknown) = body else { return None };
        Some(unknown.wants_report())
    };
    inspect(Ppid::ASAP, asap::Error::TYPE, message, unknown)
}

/// Decodes an ENRP message to the registrar `ours`, and reports errors to its sender (RFC 5353
/// section 3.7).
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
    let (received, error) = inspect(Ppid::ENRP, enrp::Error::TYPE, message, unknown);
    if let Some(error) = error {
        let route = enrp::Route { sender: ours, receiver: RegistrarId(0) };
        shortened(error, |error| out.try_send_enrp(from, enrp::Error { route, error }));
    }
    received
}

/// Sends an error. If the part of the message that it quotes does not fit, sends an unspecified
/// error without a quotation instead.
fn shortened<R>(
    error: OperationError,
    mut send: impl FnMut(OperationError) -> Result<R, EncodeError>,
) -> Option<R> {
    send(error).or_else(|_| send(ErrorCause::Unspecified.into())).ok()
}

/// Decodes a message to a multicast group; returns `None` unless it is the announcement of a
/// registrar.
pub(crate) fn announcement(message: &UserMessage) -> Option<asap::ServerAnnounce> {
    if message.ppid != Ppid::ASAP {
        return None;
    }
    let body = asap::Message::decode(&message.payload).ok()?.body;
    let asap::Body::ServerAnnounce(announce) = body else { return None };
    Some(announce)
}

/// Decodes a message, and returns the errors to report: bytes that are not a message, and unknown
/// types of messages and parameters (RFC 5354 sections 3 and 4). `unknown` returns `None` for a
/// body of known type. For a body of unknown type, it returns whether the sender asks for a report.
fn inspect<B: Body>(
    protocol: Ppid,
    error_type: u8,
    message: &UserMessage,
    unknown: impl FnOnce(&B) -> Option<bool>,
) -> (Received<B>, Option<OperationError>) {
    if message.ppid != protocol {
        let reason = format!("payload protocol identifier {}", message.ppid);
        return (Received::Refused(reason), None);
    }
    // No error is reported about an error message, since such reports could go back and forth for
    // ever.
    let is_error = message.payload.first() == Some(&error_type);
    let report = |error: OperationError| (!is_error).then_some(error);
    let decoded = match Message::<B>::decode(&message.payload) {
        Ok(decoded) => decoded,
        Err(error) => {
            let cause = error.cause(&message.payload);
            return (Received::Refused(error.to_string()), report(cause.into()));
        }
    };
    if let Some(wants_report) = unknown(&decoded.body) {
        let number = decoded.body.message_type();
        let cause = wants_report.then(|| ErrorCause::UnrecognizedMessage(message.payload.clone()));
        let reason = format!("message of unknown type {number:#04x}");
        return (Received::Refused(reason), cause.and_then(|cause| report(cause.into())));
    }
    let Disposition { process, report: causes } = decoded.disposition();
    let error = match causes.is_empty() {
        true => None,
        false => report(causes.into_iter().collect()),
    };
    let received = match process {
        true => Received::Message(decoded.body),
        false => Received::Refused("unknown parameter that forbids processing".to_owned()),
    };
    (received, error)
}
