//! Keep-alives and reports of unreachable elements (RFC 5352 sections 3.4 and 3.5).

use std::time::{Duration, Instant};

use super::limits::Limited;
use super::{Client, Membership, Origin, Registrar, RemovalReason, Timer};
use crate::handlespace::{ElementKey, Handlespace};
use crate::protocol::ConnectionId;
use crate::wire::asap::{EndpointKeepAlive, EndpointKeepAliveAck, EndpointUnreachable};
use crate::wire::{Ppid, TransportAddress};

/// The most connections to elements that are being made at a time; ours.
const MAX_DIALS: usize = 256;

/// The most keep-alives of a connection that are not answered yet; ours.
const MAX_ASKED: usize = 256;

/// When to try again where there are that many.
const DIAL_PAUSE: Duration = Duration::from_millis(200);

fn element_mut(handlespace: &mut Handlespace<Membership>, key: ElementKey) -> &mut Membership {
    &mut handlespace.get_mut(key).expect("looked up before").state
}

impl Registrar {
    pub(super) fn schedule_keep_alive(&mut self, now: Instant, key: ElementKey) {
        let interval = self.spread(self.config.keep_alive_interval);
        self.timers.set(Timer::KeepAlive(key), now + interval);
    }

    /// It is time for a keep-alive, or the last one was not answered in time.
    pub(super) fn handle_keep_alive_timer(&mut self, now: Instant, key: ElementKey) {
        let Some(element) = self.handlespace.get(key) else { return };
        if element.state.awaiting_ack {
            let connection = element.state.connection;
            self.remove(key, RemovalReason::KeepAliveTimeout);
            if let Some(connection) = connection {
                // If the element lives after all, it notices, and registers again.
                self.abort_if_unused(connection);
            }
        } else {
            self.send_keep_alive(now, key);
        }
    }

    /// Asks the element whether it is alive, connecting to it first where need be. Removes it
    /// where that cannot be done.
    pub(super) fn send_keep_alive(&mut self, now: Instant, key: ElementKey) {
        let Some(element) = self.handlespace.get_mut(key) else { return };
        element.state.awaiting_ack = true;
        let timeout = now + self.config.keep_alive_timeout;
        let connection = element.state.connection;
        let address = connection.is_none().then(|| element.value().asap_transport).flatten();
        match (connection, address) {
            (Some(connection), _) => {
                self.timers.set(Timer::KeepAlive(key), timeout);
                if let Some(client) = self.connections.get_mut(&connection)
                    && client.origin != Origin::Connecting
                {
                    client.queued.insert(key);
                    self.send_queued_keep_alives(connection);
                }
            }
            (None, Some(address)) => match self.dial(&address) {
                Some(connection) => {
                    let state = element_mut(&mut self.handlespace, key);
                    // It may have looked for another home meanwhile.
                    (state.connection, state.claim) = (Some(connection), true);
                    self.connections.get_mut(&connection).expect("dialled").elements.insert(key);
                    self.timers.set(Timer::KeepAlive(key), timeout);
                }
                None => {
                    element_mut(&mut self.handlespace, key).awaiting_ack = false;
                    self.timers.set(Timer::KeepAlive(key), now + DIAL_PAUSE);
                }
            },
            (None, None) => {
                self.remove(key, RemovalReason::Unreachable);
            }
        }
    }

    /// Sends keep-alives over a connection, only so many at a time: who has ten thousand elements
    /// behind one is not to be flooded when they are taken over.
    fn send_queued_keep_alives(&mut self, connection: ConnectionId) {
        while let Some(client) = self.connections.get_mut(&connection)
            && client.asked.len() < MAX_ASKED
            && let Some(key) = client.queued.pop_first()
        {
            let Some(element) = self.handlespace.get(key) else { continue };
            if !element.state.awaiting_ack || element.state.connection != Some(connection) {
                continue;
            }
            client.asked.insert(key);
            let (home, identifier) = (element.state.claim, element.identifier());
            let pool_handle = self.handlespace.handle_of(key).expect("it is there").clone();
            let names_element = self.config.compatibility.keep_alive_names_element();
            let message = EndpointKeepAlive {
                home,
                registrar: self.config.identifier,
                pool_handle,
                identifier: names_element.then_some(identifier),
            };
            self.out.send(connection, message).expect("a pool handle leaves room");
        }
    }

    /// An element does not owe an answer over this connection any more.
    pub(super) fn settle_keep_alive(&mut self, connection: ConnectionId, key: ElementKey) {
        if let Some(client) = self.connections.get_mut(&connection)
            && client.asked.remove(&key)
        {
            self.send_queued_keep_alives(connection);
        }
    }

    /// A connection that is being made to this address: one for all elements behind it. None
    /// where too many are being made.
    fn dial(&mut self, address: &TransportAddress) -> Option<ConnectionId> {
        if let Some(connection) = self.dials.get(address) {
            return Some(*connection);
        }
        if self.dials.len() >= MAX_DIALS {
            return None;
        }
        let connection = self.out.connect(Ppid::ASAP, address.clone());
        self.dials.insert(address.clone(), connection);
        let client = Client::new(address.clone(), Origin::Connecting);
        self.connections.insert(connection, client);
        Some(connection)
    }

    /// The connection to an element is gone. Whether the element is too, a keep-alive tells: at
    /// once where it was the element's connection; in its turn where it was ours, so that one
    /// which accepts connections and drops them does not keep us busy.
    pub(super) fn handle_element_disconnected(
        &mut self,
        now: Instant,
        key: ElementKey,
        origin: Origin,
    ) {
        let Some(element) = self.handlespace.get_mut(key) else { return };
        element.state.connection = None;
        if element.home_registrar() != self.config.identifier {
            return;
        }
        if origin == Origin::Connecting || element.state.awaiting_ack {
            self.remove(key, RemovalReason::Unreachable);
        } else if origin == Origin::Dialled {
            self.schedule_keep_alive(now, key);
        } else {
            self.send_keep_alive(now, key);
        }
    }

    pub(super) fn handle_keep_alive_ack(
        &mut self,
        now: Instant,
        from: ConnectionId,
        ack: &EndpointKeepAliveAck,
    ) {
        let Some(key) = self.handlespace.find(&ack.pool_handle, ack.identifier) else { return };
        let Some(element) = self.handlespace.get_mut(key) else { return };
        if element.state.connection != Some(from) {
            return self.complain(from, "answered a keep-alive for another element".to_owned());
        }
        element.state.awaiting_ack = false;
        element.state.claim = false;
        self.settle_keep_alive(from, key);
        self.schedule_keep_alive(now, key);
    }

    /// A pool user could not reach the element. Each user counts once.
    pub(super) fn handle_unreachable(
        &mut self,
        now: Instant,
        from: ConnectionId,
        report: &EndpointUnreachable,
    ) {
        let found = self.handlespace.find(&report.pool_handle, report.identifier);
        let Some(key) = found.filter(|_| self.allows(now, from, Limited::Report)) else { return };
        let Some(element) = self.handlespace.get_mut(key) else { return };
        if element.home_registrar() != self.config.identifier {
            // Its home looks after it.
            return;
        }
        element.state.reporters.insert(from);
        let reports = element.state.reporters.len();
        let asked = element.state.awaiting_ack;
        if reports > self.config.max_bad_pe_reports {
            self.remove(key, RemovalReason::Reported);
        } else if !asked {
            self.send_keep_alive(now, key);
        }
    }
}
