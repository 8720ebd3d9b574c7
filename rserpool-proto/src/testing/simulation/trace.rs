//! Readable descriptions of events.

use std::time::Duration;

use crate::wire::{Body, Ppid, UserMessage, asap, enrp};
use crate::{registrar, user};

use crate::testing::event::Event;

/// The trace of a run, if it was asked for.
#[derive(Debug, Default)]
pub(super) struct Trace {
    lines: Option<Vec<String>>,
}

impl Trace {
    pub(super) fn new(wanted: bool) -> Self {
        Self { lines: wanted.then(Vec::new) }
    }

    pub(super) fn line(&mut self, now: Duration, text: impl FnOnce() -> String) {
        if let Some(lines) = &mut self.lines {
            lines.push(format!("{:12.6} {}", now.as_secs_f64(), text()));
        }
    }

    pub(super) fn take(&mut self) -> Vec<String> {
        self.lines.take().unwrap_or_default()
    }
}

/// Describes an event of a machine in a few words.
#[allow(clippy::wildcard_enum_match_arm, reason = "the others are short")]
pub(super) fn describe_event(event: &Event) -> String {
    match event {
        Event::User(user::Event::Resolved { request, result: Ok(elements), .. }) => {
            let elements: Vec<_> = elements.iter().map(|it| it.identifier.to_string()).collect();
            format!("request {} is answered: {}", request.0, elements.join(" "))
        }
        Event::User(event) => format!("{event:?}"),
        Event::Element(event) => format!("{event:?}"),
        Event::Registrar(registrar::Event::Removed(name, reason, _)) => {
            format!("removed {name}: {reason}")
        }
        Event::Registrar(event) => format!("{event:?}"),
    }
}

/// Describes a message in a few words.
pub(super) fn describe(message: &UserMessage) -> String {
    if message.ppid == Ppid::ENRP {
        return match enrp::Message::decode(&message.payload) {
            Ok(message) => describe_enrp(&message.body),
            Err(error) => format!("ENRP {error}"),
        };
    }
    match asap::Message::decode(&message.payload) {
        Ok(message) => describe_asap(&message.body),
        Err(error) => format!("ASAP {error}"),
    }
}

#[allow(clippy::wildcard_enum_match_arm, reason = "the name says enough of others")]
fn describe_asap(body: &asap::Body) -> String {
    use asap::Body;
    let name = body.name();
    match body {
        Body::Registration(it) => {
            let element = &it.pool_element;
            format!("{name} {}/{} {}", it.pool_handle, element.identifier, element.policy)
        }
        Body::RegistrationResponse(it) => {
            let refused = it.error.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
            let answer = if it.reject { "refused" } else { "accepted" };
            format!("{name} {}/{} {answer}{refused}", it.pool_handle, it.identifier)
        }
        Body::EndpointKeepAlive(it) => {
            let home = if it.home { " H" } else { "" };
            format!("{name} {} from {}{home}", it.pool_handle, it.registrar)
        }
        Body::EndpointKeepAliveAck(it) => format!("{name} {}/{}", it.pool_handle, it.identifier),
        Body::HandleResolution(it) => format!("{name} {}", it.pool_handle),
        Body::HandleResolutionResponse(it) => match &it.result {
            asap::Resolved::Pool { elements, .. } => {
                format!("{name} {}: {} elements", it.pool_handle, elements.len())
            }
            asap::Resolved::Error(error) => format!("{name} {}: {error}", it.pool_handle),
        },
        _ => name.to_owned(),
    }
}

#[allow(clippy::wildcard_enum_match_arm, reason = "the name says enough of others")]
fn describe_enrp(body: &enrp::Body) -> String {
    use enrp::Body;
    let name = body.name();
    match body {
        Body::Presence(it) => {
            let asks = if it.reply_required { " R" } else { "" };
            let checksum = it.checksum.map(|sum| format!(" {:#06x}", sum.0)).unwrap_or_default();
            format!("{name} from {}{checksum}{asks}", it.route.sender)
        }
        Body::HandleTableRequest(it) => {
            format!("{name}{}", if it.own_children_only { " W" } else { "" })
        }
        Body::HandleTableResponse(it) => {
            let elements: usize = it.pools.iter().map(|pool| pool.elements.len()).sum();
            let more = if it.more_to_send { " M" } else { "" };
            let reject = if it.reject { " R" } else { "" };
            format!("{name} {elements} elements{more}{reject}")
        }
        Body::HandleUpdate(it) => {
            let element = &it.pool_element;
            format!(
                "{name} {:?} {}/{} {} home {}",
                it.action,
                it.pool_handle,
                element.identifier,
                element.policy,
                element.home_registrar
            )
        }
        Body::InitTakeover(it) => format!("{name} of {}", it.target),
        Body::InitTakeoverAck(it) => format!("{name} of {}", it.target),
        Body::TakeoverServer(it) => format!("{name} of {}", it.target),
        _ => name.to_owned(),
    }
}
