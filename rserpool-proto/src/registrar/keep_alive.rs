//! Keep-alives and reports of unreachable elements (RFC 5352 sections 3.4 and 3.5).

use std::time::{Duration, Instant};

use super::membership::{Client, Custody, KeepAlive, Origin, Watch};
use super::shares::Limit;
use super::{Registrar, RemovalReason, Timer};
use crate::handlespace::ElementKey;
use crate::wire::asap::{EndpointKeepAlive, EndpointKeepAliveAck, EndpointUnreachable};
use crate::wire::{Ppid, TransportAddress};
use crate::{ConnectionEvent, ConnectionId};

/// The most keep-alives of a connection that are not answered yet. Not from the RFCs.
const MAX_ASKED: usize = 256;

/// The pause before an element is dialled again whose connection broke or could not be made.
const DIAL_PAUSE: Duration = Duration::from_millis(200);

/// Minimum interval between keep-alives to one element that reports cause (RFC 5355 section
/// 2.14.3).
pub(super) const REPORT_PAUSE: Duration = Duration::from_secs(1);

/// The time that an element may still take to answer that more hosts reported than
/// MAX-BAD-PE-REPORT.
const REPORTED_TIMEOUT: Duration = Duration::from_secs(1);

impl Registrar {
    pub(super) fn schedule_keep_alive(&mut self, now: Instant, key: ElementKey) {
        let interval = self.spread(self.config.keep_alive_interval) * self.stall.stretch();
        self.timers.set(Timer::KeepAlive(key), now + interval);
    }

    fn custody_mut(&mut self, key: ElementKey) -> Option<&mut Custody> {
        self.handlespace.get_mut(key)?.state.custody_mut()
    }

    /// It is time for a keep-alive, or the last one was not answered in time.
    pub(super) fn handle_keep_alive_timer(&mut self, now: Instant, key: ElementKey) {
        let Some(element) = self.handlespace.get(key) else { return };
        match &element.state.watch {
            Watch::Elsewhere(_) => self.end_inquiry(key),
            Watch::Home(custody) => match custody.keep_alive {
                KeepAlive::Asked { deadline } if deadline <= now => {
                    let reported = custody.reporters.len() > self.config.max_bad_pe_reports;
                    let reason = match reported {
                        true => RemovalReason::Reported,
                        false => RemovalReason::KeepAliveTimeout,
                    };
                    self.remove(key, reason);
                }
                KeepAlive::Idle | KeepAlive::Waiting | KeepAlive::Asked { .. } => {
                    self.send_keep_alive(now, key);
                }
            },
        }
    }

    /// Asks the element whether it is alive, connecting to it first where need be.
    pub(super) fn send_keep_alive(&mut self, now: Instant, key: ElementKey) {
        let Some(element) = self.handlespace.get_mut(key) else { return };
        if let Some(custody) = element.state.custody_mut()
            && custody.keep_alive == KeepAlive::Idle
        {
            custody.keep_alive = KeepAlive::Waiting;
        }
        let Some(connection) = element.state.connection else {
            return match element.value().asap_transport {
                Some(address) => self.dial(now, key, address),
                None => match &mut element.state.watch {
                    Watch::Home(_) => self.remove(key, RemovalReason::Unreachable),
                    // It is for its home to find out.
                    Watch::Elsewhere(remote) => remote.doubted = false,
                },
            };
        };
        let asked = element
            .state
            .custody_mut()
            .is_some_and(|custody| matches!(custody.keep_alive, KeepAlive::Asked { .. }));
        if asked {
            return;
        }
        let Some(client) = self.connections.get_mut(&connection) else { return };
        if client.origin == Origin::Connecting {
            // It is being dialled for another reason.
            let deadline = now + self.config.keep_alive_timeout;
            if let Some(custody) = self.custody_mut(key) {
                custody.keep_alive = KeepAlive::Asked { deadline };
            }
            self.timers.set(Timer::KeepAlive(key), deadline);
        } else {
            // It may have been asked for another reason, by which it does not owe us this answer.
            client.asked.remove(&key);
            client.queued.insert(key);
            self.send_queued_keep_alives(now, connection);
        }
    }

    /// Sends keep-alives over a connection, only so many at a time: who has ten thousand elements
    /// behind one is not to be flooded when they are taken over. Only those which were sent can
    /// be late.
    pub(super) fn send_queued_keep_alives(&mut self, now: Instant, connection: ConnectionId) {
        let Some(client) = self.connections.get_mut(&connection) else { return };
        let deadline = now + self.config.keep_alive_timeout;
        while client.asked.len() < MAX_ASKED
            && let Some(key) = client.queued.pop_first()
        {
            let Some(pool_handle) = self.handlespace.handle_of(key).cloned() else { continue };
            let Some(element) = self.handlespace.get_mut(key) else { continue };
            if element.state.connection != Some(connection) {
                continue;
            }
            let identifier = element.identifier();
            let (home, deadline) = match &mut element.state.watch {
                Watch::Home(custody) => {
                    // One that accepts connections and drops them gets no longer for that.
                    let deadline = match custody.keep_alive {
                        KeepAlive::Asked { deadline: earlier } => deadline.min(earlier),
                        KeepAlive::Idle | KeepAlive::Waiting => deadline,
                    };
                    custody.keep_alive = KeepAlive::Asked { deadline };
                    (custody.claim, deadline)
                }
                Watch::Elsewhere(_) => (false, deadline),
            };
            self.timers.set(Timer::KeepAlive(key), deadline);
            client.asked.insert(key);
            let names_element =
                self.config.compatibility.keep_alive_names_element() && !client.strict;
            let message = EndpointKeepAlive {
                home,
                registrar: self.config.identifier,
                pool_handle,
                identifier: names_element.then_some(identifier),
            };
            self.out.send(connection, message);
        }
    }

    /// A client that was asked for elements reports an error. Where the keep-alives named these, which
    /// RFC 5352 section 2.2.7 does not have, it is asked again as that has it, from now on. Whether
    /// that was so.
    pub(super) fn ask_strictly(&mut self, now: Instant, connection: ConnectionId) -> bool {
        let named = self.config.compatibility.keep_alive_names_element();
        let Some(client) = self.connections.get_mut(&connection) else { return false };
        if !named || client.strict || client.asked.is_empty() {
            return false;
        }
        client.strict = true;
        client.queued.append(&mut client.asked);
        self.send_queued_keep_alives(now, connection);
        true
    }

    /// An element does not owe an answer over this connection any more.
    pub(super) fn settle_keep_alive(
        &mut self,
        now: Instant,
        connection: ConnectionId,
        key: ElementKey,
    ) {
        if let Some(client) = self.connections.get_mut(&connection) {
            client.queued.remove(&key);
            if client.asked.remove(&key) {
                self.send_queued_keep_alives(now, connection);
            }
        }
    }

    /// Connects to an element at this address; one connection serves all elements behind it.
    /// Where too many are being made, it waits for its turn.
    fn dial(&mut self, now: Instant, key: ElementKey, address: TransportAddress) {
        let host = address.host();
        let connection = match self.dials.to(&address) {
            Some(connection) => connection,
            None if !self.dials.has_room(host) => {
                // Nothing can be late while it waits.
                if let Some(custody) = self.custody_mut(key) {
                    custody.keep_alive = KeepAlive::Waiting;
                }
                self.timers.cancel(Timer::KeepAlive(key));
                self.dials.wait(host, key);
                return;
            }
            None => {
                let connection = self.out.connect(Ppid::ASAP, address.clone());
                self.dials.begin(address.clone(), connection);
                let client = Client::new(now, address, Origin::Connecting);
                self.connections.insert(connection, client);
                connection
            }
        };
        if let Some(client) = self.connections.get_mut(&connection) {
            client.elements.insert(key);
        }
        let Some(element) = self.handlespace.get_mut(key) else { return };
        element.state.connection = Some(connection);
        let mut deadline = now + self.config.keep_alive_timeout;
        if let Some(custody) = element.state.custody_mut() {
            // It may have looked for another home meanwhile.
            custody.claim = true;
            match custody.keep_alive {
                KeepAlive::Asked { deadline: earlier } => deadline = earlier,
                KeepAlive::Idle | KeepAlive::Waiting => {
                    custody.keep_alive = KeepAlive::Asked { deadline };
                }
            }
        }
        self.timers.set(Timer::KeepAlive(key), deadline);
    }

    /// The answer may have come while we were late: it gets another term.
    pub(super) fn extend_term(&mut self, now: Instant, key: ElementKey) {
        let term = now + self.config.keep_alive_timeout;
        match self.custody_mut(key) {
            Some(Custody { keep_alive: KeepAlive::Asked { deadline }, .. }) => {
                *deadline = term;
                self.timers.set(Timer::KeepAlive(key), term);
            }
            Some(_) => self.send_keep_alive(now, key),
            None => self.timers.set(Timer::KeepAlive(key), term),
        }
    }

    /// Connections that were being made are there, or are not to be had: others have their turn.
    pub(super) fn dial_waiting(&mut self, now: Instant) {
        while let Some(key) = self.dials.pop() {
            self.send_keep_alive(now, key);
        }
    }

    /// The connection to an element is there.
    pub(super) fn handle_element_connected(
        &mut self,
        now: Instant,
        key: ElementKey,
        connection: ConnectionId,
    ) {
        if let Some(client) = self.connections.get_mut(&connection) {
            client.queued.insert(key);
            self.send_queued_keep_alives(now, connection);
        }
    }

    /// The connection to an element is gone, or was not to be had. That alone says little: it may
    /// have moved to another connection, or to another home, and we may be the ones who lack
    /// something. It is dead if its host refuses a connection, or if it does not answer in time.
    pub(super) fn handle_element_disconnected(
        &mut self,
        now: Instant,
        key: ElementKey,
        origin: Origin,
        event: &ConnectionEvent,
    ) {
        let Some(element) = self.handlespace.get_mut(key) else { return };
        element.state.connection = None;
        let Watch::Home(_) = &element.state.watch else {
            self.timers.cancel(Timer::KeepAlive(key));
            return;
        };
        if self.admit_claimant(now, key) {
            return;
        }
        let Some(custody) = self.custody_mut(key) else { return };
        match (origin, event) {
            (Origin::Connecting, ConnectionEvent::Refused) => {
                self.remove(key, RemovalReason::Unreachable);
            }
            (Origin::Connecting, ConnectionEvent::Impossible) => {
                custody.keep_alive = KeepAlive::Waiting;
                self.timers.set(Timer::KeepAlive(key), now + DIAL_PAUSE);
            }
            (Origin::Accepted, _) => {
                custody.keep_alive = KeepAlive::Idle;
                self.send_keep_alive(now, key);
            }
            // In its turn where the connection was ours, so that one which accepts connections and
            // drops them does not keep us busy.
            (Origin::Connecting | Origin::Dialled, _) => match custody.keep_alive {
                KeepAlive::Asked { deadline } => {
                    self.timers.set(Timer::KeepAlive(key), deadline.min(now + DIAL_PAUSE));
                }
                KeepAlive::Idle | KeepAlive::Waiting => {
                    custody.keep_alive = KeepAlive::Idle;
                    self.schedule_keep_alive(now, key);
                }
            },
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
            return self
                .report_misbehavior(from, "answered a keep-alive for another element".to_owned());
        }
        match &mut element.state.watch {
            Watch::Home(custody) => {
                custody.keep_alive = KeepAlive::Idle;
                custody.claim = false;
                custody.reporters.clear();
                self.settle_keep_alive(now, from, key);
                self.refuse_claimant(key);
                self.schedule_keep_alive(now, key);
            }
            Watch::Elsewhere(remote) => {
                remote.doubted = false;
                self.settle_keep_alive(now, from, key);
                self.end_inquiry(key);
            }
        }
    }

    /// A pool user could not reach the element: it is asked at once, by whichever registrar hears
    /// of it, and offered last until it answers. Nothing else follows from a report, for one that
    /// answers stays (RFC 5352 section 3.5); but where more hosts report it than MAX-BAD-PE-REPORT
    /// it has less time to answer.
    pub(super) fn handle_unreachable(
        &mut self,
        now: Instant,
        from: ConnectionId,
        report: &EndpointUnreachable,
    ) {
        let Some(host) = self.connections.get(&from).map(|client| client.host) else { return };
        let found = self.handlespace.find(&report.pool_handle, report.identifier);
        let Some(key) = found.filter(|_| self.allows(now, host, Limit::Reports)) else { return };
        let max_reports = self.config.max_bad_pe_reports;
        let Some(element) = self.handlespace.get_mut(key) else { return };
        let lately = |asked: Option<Instant>| asked.is_some_and(|asked| now < asked + REPORT_PAUSE);
        match &mut element.state.watch {
            Watch::Home(custody) => {
                let idle = custody.keep_alive == KeepAlive::Idle;
                if idle && lately(custody.asked_for_report) {
                    // It has just answered.
                    return;
                }
                if custody.reporters.len() <= max_reports {
                    custody.reporters.insert(host);
                }
                if idle {
                    custody.asked_for_report = Some(now);
                    self.send_keep_alive(now, key);
                } else if let KeepAlive::Asked { deadline } = &mut custody.keep_alive
                    && custody.reporters.len() > max_reports
                {
                    *deadline = (*deadline).min(now + REPORTED_TIMEOUT);
                    self.timers.set(Timer::KeepAlive(key), *deadline);
                }
            }
            Watch::Elsewhere(remote) => {
                if !lately(remote.asked_for_report) {
                    remote.asked_for_report = Some(now);
                    remote.doubted = true;
                    self.send_keep_alive(now, key);
                }
            }
        }
    }

    /// Another registrar's element was asked because of a report, and has answered or not. A
    /// connection that was made for that is closed.
    fn end_inquiry(&mut self, key: ElementKey) {
        self.timers.cancel(Timer::KeepAlive(key));
        self.dials.forget(key);
        let Some(element) = self.handlespace.get_mut(key) else { return };
        let Some(connection) = element.state.connection else { return };
        let Some(client) = self.connections.get_mut(&connection) else { return };
        if client.origin == Origin::Accepted {
            client.queued.remove(&key);
            if client.asked.remove(&key) && !client.queued.is_empty() {
                self.unblocked.insert(connection);
            }
        } else {
            element.state.connection = None;
            self.detach(key, Some(connection));
        }
    }
}
