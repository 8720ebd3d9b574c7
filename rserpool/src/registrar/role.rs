//! The background task's part of a registrar.

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};
use std::time::Instant;

use rserpool_proto::Machine;
use rserpool_proto::access::AccessRules;
use rserpool_proto::registrar::{self, Event, RegistrarConfig};
use rserpool_proto::wire::RegistrarId;
use tracing::Span;
use tracing::field::Empty;

use super::logging;
use super::observe::Observers;
use crate::task::Role;

/// Maximum number of open spans of takeovers.
const MAX_TAKEOVERS: usize = 64;

/// A question or an order of the registrar's owner.
pub(super) type Command = Box<dyn FnOnce(&mut RegistrarRole, Instant) + Send>;

pub(super) struct RegistrarRole {
    pub(super) machine: registrar::Registrar,
    pub(super) observers: Observers,
    /// The rules that the endpoints apply before handshakes.
    pub(super) rules: Arc<RwLock<AccessRules>>,
    /// The spans of takeovers, from the death of a peer until its elements are taken over.
    takeovers: BTreeMap<RegistrarId, Span>,
    finished: bool,
}

impl RegistrarRole {
    pub(super) fn new(machine: registrar::Registrar, rules: Arc<RwLock<AccessRules>>) -> Self {
        let (observers, takeovers) = Default::default();
        Self { machine, observers, rules, takeovers, finished: false }
    }

    /// Begins and ends the span of a takeover. Returns the span to which the event belongs.
    fn trace(&mut self, event: &Event) -> Span {
        if let Event::PeerDead(registrar) = event {
            let span = tracing::info_span!("takeover", %registrar, elements = Empty);
            // A peer that objects ends its takeover without an event.
            if self.takeovers.len() >= MAX_TAKEOVERS {
                self.takeovers.clear();
            }
            self.takeovers.insert(*registrar, span.clone());
            return span;
        }
        let (Event::TookOver { registrar, .. }
        | Event::PeerLost(registrar, _)
        | Event::PeerConnected(registrar, _)) = event
        else {
            return Span::none();
        };
        let span = self.takeovers.remove(registrar).unwrap_or_else(Span::none);
        if let Event::TookOver { elements, .. } = event {
            span.record("elements", elements);
        }
        span
    }

    pub(super) fn reconfigure(&mut self, now: Instant, config: RegistrarConfig) {
        let rules = config.access_rules().clone();
        *self.rules.write().unwrap_or_else(std::sync::PoisonError::into_inner) = rules;
        self.machine.reconfigure(now, config);
    }
}

impl Role for RegistrarRole {
    type Machine = registrar::Registrar;
    type Command = Command;

    const NAME: &'static str = "registrar";

    fn machine(&mut self) -> &mut registrar::Registrar {
        &mut self.machine
    }

    fn handle_command(&mut self, now: Instant, command: Command) {
        command(self, now);
    }

    fn handle_event(&mut self, now: Instant, event: <registrar::Registrar as Machine>::Event) {
        self.observers.tell(&event);
        self.finished |= matches!(event, Event::Left);
        let span = self.trace(&event);
        span.in_scope(|| logging::log(now, event));
    }

    fn handle_abandoned(&mut self, now: Instant) {
        self.machine.leave(now);
    }

    fn is_finished(&self) -> bool {
        self.finished
    }
}
