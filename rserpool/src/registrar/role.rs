//! The background task's part of a registrar.

use std::sync::{Arc, RwLock};
use std::time::Instant;

use rserpool_proto::Machine;
use rserpool_proto::access::AccessRules;
use rserpool_proto::registrar::{self, Event, RegistrarConfig};

use super::logging;
use super::observe::Observers;
use crate::task::Role;

/// A question or an order of the registrar's owner.
pub(super) type Command = Box<dyn FnOnce(&mut RegistrarRole, Instant) + Send>;

pub(super) struct RegistrarRole {
    pub(super) machine: registrar::Registrar,
    pub(super) observers: Observers,
    /// The rules that the endpoints apply before handshakes.
    pub(super) rules: Arc<RwLock<AccessRules>>,
    finished: bool,
}

impl RegistrarRole {
    pub(super) fn new(machine: registrar::Registrar, rules: Arc<RwLock<AccessRules>>) -> Self {
        Self { machine, observers: Observers::default(), rules, finished: false }
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
        logging::log(now, event);
    }

    fn handle_abandoned(&mut self, now: Instant) {
        self.machine.leave(now);
    }

    fn is_finished(&self) -> bool {
        self.finished
    }
}
