//! A state machine of any kind.

use std::time::{Duration, Instant};

use crate::wire::{Ppid, TransportAddress, UserMessage};
use crate::{
    ConnectionEvent, ConnectionId, Element, Footprint, Identity, Machine, Output, Registrar, User,
};

use crate::testing::adversary::Adversary;
use crate::testing::event::Event;

/// A state machine: a registrar, an element or a user.
#[derive(Debug)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum Role {
    Registrar(Box<Registrar>),
    Element(Box<Element>),
    User(Box<User>),
    Adversary(Box<Adversary>),
}

macro_rules! each {
    ($role:expr, $machine:ident => $call:expr) => {
        match $role {
            Role::Registrar($machine) => $call,
            Role::Element($machine) => $call,
            Role::User($machine) => $call,
            Role::Adversary($machine) => $call,
        }
    };
}

impl Role {
    /// Returns the registrar, if the machine is one.
    #[must_use]
    pub fn registrar(&self) -> Option<&Registrar> {
        if let Self::Registrar(registrar) = self { Some(registrar) } else { None }
    }

    /// Returns the element, if the machine is one.
    #[must_use]
    pub fn element(&self) -> Option<&Element> {
        if let Self::Element(element) = self { Some(element) } else { None }
    }

    /// Returns the number of items that the machine holds.
    #[must_use]
    pub fn footprint(&self) -> Footprint {
        each!(self, machine => machine.footprint())
    }
}

impl Machine for Role {
    type Event = Event;

    fn start(&mut self, now: Instant) {
        each!(self, machine => machine.start(now));
    }

    fn accept(
        &mut self,
        now: Instant,
        protocol: Ppid,
        peer: TransportAddress,
        identity: Option<Identity>,
    ) -> ConnectionId {
        each!(self, machine => machine.accept(now, protocol, peer, identity))
    }

    fn handle_message(&mut self, now: Instant, from: ConnectionId, message: UserMessage) {
        each!(self, machine => machine.handle_message(now, from, message));
    }

    fn handle_connection(
        &mut self,
        now: Instant,
        connection: ConnectionId,
        event: ConnectionEvent,
    ) {
        each!(self, machine => machine.handle_connection(now, connection, event));
    }

    fn handle_round_trip(&mut self, now: Instant, connection: ConnectionId, round_trip: Duration) {
        each!(self, machine => machine.handle_round_trip(now, connection, round_trip));
    }

    fn handle_announcement(
        &mut self,
        now: Instant,
        source: TransportAddress,
        message: UserMessage,
    ) {
        each!(self, machine => machine.handle_announcement(now, source, message));
    }

    fn handle_timeout(&mut self, now: Instant) {
        each!(self, machine => machine.handle_timeout(now));
    }

    fn poll_output(&mut self) -> Option<Output<Event>> {
        match self {
            Self::Registrar(machine) => lift(machine.poll_output(), Event::Registrar),
            Self::Element(machine) => lift(machine.poll_output(), Event::Element),
            Self::User(machine) => lift(machine.poll_output(), Event::User),
            Self::Adversary(machine) => machine.poll_output(),
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        each!(self, machine => machine.poll_timeout())
    }
}

fn lift<E>(output: Option<Output<E>>, event: impl FnOnce(E) -> Event) -> Option<Output<Event>> {
    Some(match output? {
        Output::Event(inner) => Output::Event(event(inner)),
        Output::Connect { connection, protocol, to } => {
            Output::Connect { connection, protocol, to }
        }
        Output::Send { connection, message } => Output::Send { connection, message },
        Output::Measure(connection) => Output::Measure(connection),
        Output::Addresses(connection) => Output::Addresses(connection),
        Output::Announce(message) => Output::Announce(message),
        Output::Close { connection, abort } => Output::Close { connection, abort },
    })
}
