//! The home registrar of an element: the one that it registered with and that sends it keep-alives
//! (RFC 5352 sections 3.4 and 3.6).

use std::net::IpAddr;
use std::time::Instant;

use super::{ADDRESS_INTERVAL, Element, Event, Home, State, Timer};
use crate::ConnectionId;
use crate::wire::{RegistrarId, TransportAddress, asap};

impl Element {
    /// Drops the home registrar, which failed or does not answer, and looks for another one (RFC
    /// 5352 section 3.6).
    pub(super) fn lose_home(&mut self, now: Instant) {
        if let Some(home) = self.home.take() {
            self.forget(home.connection);
            self.out.abort(home.connection);
        }
        self.timers.cancel(Timer::Registration);
        self.timers.cancel(Timer::Reregistration);
        match self.state {
            State::Joining | State::Registered => {
                self.state = State::Joining;
                self.out.event(Event::RegistrarLost);
                self.start_hunt(now);
            }
            State::Leaving => self.start_hunt(now),
            State::Rejected | State::Left => {}
        }
    }

    /// Handles the addresses of a connection: registers again if the local ones changed, and sets
    /// the timer for the next check.
    pub(super) fn handle_addresses(
        &mut self,
        now: Instant,
        connection: ConnectionId,
        local: TransportAddress,
        peer: TransportAddress,
    ) {
        let offer = self.accepted.get_mut(&connection).and_then(|accepted| accepted.offer.take());
        if let (Some(registrar), None) = (offer, &self.home)
            && matches!(self.state, State::Joining | State::Registered)
        {
            return self.adopt_home(now, connection, local, registrar);
        }
        let Some(home) = self.home.as_mut().filter(|home| home.connection == connection) else {
            return;
        };
        self.timers.set(Timer::Addresses, now + ADDRESS_INTERVAL);
        let moved = !same_addresses(&home.local, &local);
        (home.local, home.peer) = (local.clone(), peer.clone());
        self.last_home = Some((local, peer));
        if moved && matches!(self.state, State::Joining | State::Registered) {
            self.register(now);
        }
    }

    pub(super) fn is_home(&self, connection: ConnectionId) -> bool {
        self.home.as_ref().is_some_and(|home| home.connection == connection)
    }

    /// Returns the local address on the connection to the last home registrar, or else the
    /// configured one.
    pub(super) fn own_address(&self) -> Option<TransportAddress> {
        let specified = |address: &&TransportAddress| {
            !address.addresses.is_empty() && !address.addresses.iter().any(IpAddr::is_unspecified)
        };
        let last = self.last_home.as_ref().map(|(local, _)| local);
        last.or(self.config.asap_transport.as_ref().filter(specified)).cloned()
    }

    /// Makes `registrar`, which connected to this element, the home registrar. The element must
    /// have no home registrar at that time.
    pub(super) fn adopt_home(
        &mut self,
        now: Instant,
        connection: ConnectionId,
        local: TransportAddress,
        registrar: RegistrarId,
    ) {
        let Some(accepted) = self.accepted.get_mut(&connection) else { return };
        accepted.offer = None;
        let peer = accepted.peer.clone();
        self.out.event(Event::HomeChanged(registrar));
        self.hunt.stop(&mut self.out);
        self.home = Some(Home { connection, local, peer, registrar: Some(registrar) });
        self.register(now);
    }

    /// Answers a keep-alive, and makes its sender the home registrar if the keep-alive's H flag is
    /// set (RFC 5352 section 3.4).
    pub(super) fn handle_keep_alive(
        &mut self,
        now: Instant,
        from: ConnectionId,
        keep_alive: &asap::EndpointKeepAlive,
    ) {
        let ours = keep_alive.pool_handle == self.config.pool_handle
            && keep_alive.identifier.is_none_or(|identifier| identifier == self.identifier);
        if !ours || self.state == State::Left {
            return;
        }
        let ack = asap::EndpointKeepAliveAck {
            pool_handle: self.config.pool_handle.clone(),
            identifier: self.identifier,
        };
        self.out.send(from, ack);
        match &mut self.home {
            Some(home) if home.connection == from => {
                home.registrar = Some(keep_alive.registrar);
                // The registrar became the home again, and may have old values of this element.
                if keep_alive.home && matches!(self.state, State::Joining | State::Registered) {
                    self.register(now);
                }
            }
            // The sender is another registrar, or the same one if it lost the connection that the
            // element still uses.
            Some(home) if keep_alive.home => {
                self.out.event(Event::HomeChanged(keep_alive.registrar));
                let old = std::mem::replace(&mut home.connection, from);
                if let Some(accepted) = self.accepted.get(&from) {
                    home.peer = accepted.peer.clone();
                }
                home.registrar = Some(keep_alive.registrar);
                self.forget(old);
                self.out.close(old);
                // The new home registrar knows only the values that the previous home registrar
                // reported.
                if matches!(self.state, State::Joining | State::Registered) {
                    self.register(now);
                }
            }
            None if keep_alive.home && matches!(self.state, State::Joining | State::Registered) => {
                // The element is searching for a registrar, and the sender of this keep-alive knows
                // the element.
                match self.own_address() {
                    Some(local) => self.adopt_home(now, from, local, keep_alive.registrar),
                    None => {
                        if let Some(accepted) = self.accepted.get_mut(&from) {
                            accepted.offer = Some(keep_alive.registrar);
                            self.out.ask_addresses(from);
                        }
                    }
                }
            }
            _ => {}
        }
    }
}

/// Returns whether the addresses are the same, in any order.
fn same_addresses(one: &TransportAddress, other: &TransportAddress) -> bool {
    let sorted = |address: &TransportAddress| {
        let mut addresses = address.addresses.to_vec();
        addresses.sort_unstable();
        addresses
    };
    sorted(one) == sorted(other)
}
