//! Keep-alives and reports of unreachable elements (RFC 5352 sections 3.4 and 3.5).

use std::collections::BTreeSet;
use std::time::Instant;

use super::{ElementName, Peer, Registrar, RemovalReason, Timer};
use crate::handlespace::ElementKey;
use crate::protocol::ConnectionId;
use crate::wire::asap::{EndpointKeepAlive, EndpointKeepAliveAck, EndpointUnreachable};

impl Registrar {
    pub(super) fn schedule_keep_alive(&mut self, now: Instant, key: ElementKey) {
        let interval = self.spread(self.config.keep_alive_interval);
        self.timers.set(Timer::KeepAlive(key), now + interval);
    }

    /// It is time for a keep-alive, or the last one was not answered in time.
    pub(super) fn handle_keep_alive_timer(&mut self, now: Instant, key: ElementKey) {
        let Some(element) = self.handlespace.get(key) else { return };
        if element.state.awaiting_ack {
            if let Some(connection) = self.remove(key, RemovalReason::KeepAliveTimeout) {
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
        let Some(ElementName { pool_handle, identifier }) = self.name_of(key) else { return };
        let Some(element) = self.handlespace.get_mut(key) else { return };
        element.state.awaiting_ack = true;
        let timeout = now + self.config.keep_alive_timeout;
        match (element.state.connection, element.value.asap_transport.clone()) {
            (Some(connection), _) => {
                if self.connections.get(&connection).is_some_and(|peer| !peer.connecting) {
                    let message = EndpointKeepAlive {
                        home: false,
                        registrar: self.config.identifier,
                        pool_handle,
                        identifier: Some(identifier),
                    };
                    self.out.send(connection, message).expect("a pool handle leaves room");
                }
                self.timers.set(Timer::KeepAlive(key), timeout);
            }
            (None, Some(address)) => {
                let connection = self.out.connect(address.clone());
                element.state.connection = Some(connection);
                let elements = BTreeSet::from([key]);
                let peer = Peer { address, connecting: true, elements, complained: false };
                self.connections.insert(connection, peer);
                self.timers.set(Timer::KeepAlive(key), timeout);
            }
            (None, None) => {
                self.remove(key, RemovalReason::Unreachable);
            }
        }
    }

    /// The connection to an element is gone: whether the element is too, a keep-alive tells at
    /// once.
    pub(super) fn handle_element_disconnected(
        &mut self,
        now: Instant,
        key: ElementKey,
        was_connecting: bool,
    ) {
        let Some(element) = self.handlespace.get_mut(key) else { return };
        element.state.connection = None;
        if was_connecting || element.state.awaiting_ack {
            self.remove(key, RemovalReason::Unreachable);
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
        self.schedule_keep_alive(now, key);
    }

    /// A pool user could not reach the element.
    pub(super) fn handle_unreachable(&mut self, now: Instant, report: &EndpointUnreachable) {
        let Some(key) = self.handlespace.find(&report.pool_handle, report.identifier) else {
            return;
        };
        let Some(element) = self.handlespace.get_mut(key) else { return };
        element.state.unreachable_reports += 1;
        let (reports, asked) = (element.state.unreachable_reports, element.state.awaiting_ack);
        if reports > self.config.max_bad_pe_reports {
            self.remove(key, RemovalReason::Reported);
        } else if !asked {
            self.send_keep_alive(now, key);
        }
    }
}
