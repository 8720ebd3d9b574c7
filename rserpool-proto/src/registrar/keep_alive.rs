//! Keep-alives and reports of unreachable elements (RFC 5352 sections 3.4 and 3.5).

use std::time::{Duration, Instant};

use super::membership::{Client, Custody, KeepAlive, Origin, Watch};
use super::shares::Limit;
use super::{Registrar, RemovalReason, Timer};
use crate::access::AccessRole;
use crate::handlespace::ElementKey;
use crate::wire::asap::{EndpointKeepAlive, EndpointKeepAliveAck, EndpointUnreachable};
use crate::wire::{Ppid, TransportAddress};
use crate::{ConnectionEvent, ConnectionId};

/// The maximum number of unanswered keep-alives on a connection. Not from the RFCs.
const MAX_ASKED: usize = 256;

/// The pause before an element is dialled again after its connection broke or could not be made.
const DIAL_PAUSE: Duration = Duration::from_millis(200);

/// Minimum interval between keep-alives to one element that are caused by reports (RFC 5355 section
/// 2.14.3).
pub(super) const REPORT_PAUSE: Duration = Duration::from_secs(1);

/// The time that an element has to answer a keep-alive after the number of hosts that reported it
/// exceeded MAX-BAD-PE-REPORT.
const REPORTED_TIMEOUT: Duration = Duration::from_secs(1);

impl Registrar {
    pub(super) fn schedule_keep_alive(&mut self, now: Instant, key: ElementKey) {
        let interval = self.spread(self.config.keep_alive_interval) * self.stall.stretch();
        self.timers.set(Timer::KeepAlive(key), now + interval);
    }

    fn custody_mut(&mut self, key: ElementKey) -> Option<&mut Custody> {
        self.handlespace.get_mut(key)?.state.custody_mut()
    }

    /// Handles the timer of an element: its next keep-alive is due, or the last one was not
    /// answered in time.
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

    /// Asks the element whether it is alive, and connects to it first if necessary.
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
                    // This registrar cannot connect to an element without an ASAP endpoint. Only
                    // its home registrar, to which it is connected, can ask it.
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
            // The connection is still being made, for another element or reason; the keep-alive is
            // sent once it is established.
            let deadline = now + self.config.keep_alive_timeout;
            if let Some(custody) = self.custody_mut(key) {
                custody.keep_alive = KeepAlive::Asked { deadline };
            }
            self.timers.set(Timer::KeepAlive(key), deadline);
        } else {
            // An earlier keep-alive may have been sent for another reason; the element still owes
            // an answer to this one.
            client.asked.remove(&key);
            client.queued.insert(key);
            self.send_queued_keep_alives(now, connection);
        }
    }

    /// Sends queued keep-alives over a connection, at most [`MAX_ASKED`] unanswered ones at a time,
    /// so that a host with ten thousand elements behind one connection is not flooded when they are
    /// taken over. Only keep-alives that were sent have a deadline.
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
                    // The earlier deadline stays, so that an element cannot postpone it by
                    // accepting connections and closing them.
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
            self.counters.keep_alives += 1;
        }
    }

    /// Handles an error from a client that has not answered keep-alives. If those keep-alives named
    /// their elements, which RFC 5352 section 2.2.7 does not provide for, sends them again without
    /// the names, and omits the names from all later keep-alives. Returns whether the unanswered
    /// keep-alives named their elements.
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

    /// Removes the unanswered or queued keep-alive of an element on this connection, so that the
    /// next one can be sent.
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

    /// Connects to an element at this address. One connection serves all elements behind the
    /// address. If too many connections are being made, the element waits for its turn.
    fn dial(&mut self, now: Instant, key: ElementKey, address: TransportAddress) {
        let host = address.host();
        let connection = match self.dials.to(&address) {
            Some(connection) => connection,
            None if !self.dials.has_room(host) => {
                // There is no deadline while the element waits for a connection to be made.
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
                // The permissions are replaced by those of the identity once the connection is
                // established.
                let permissions = self.config.access.permissions(host, None);
                let client = Client::new(now, address, Origin::Connecting, None, permissions);
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
            // The element may have looked for another home registrar in the meantime.
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

    /// Extends the deadline for the answer of an element, since the answer may have arrived while
    /// this registrar was late.
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

    /// Dials the elements that waited for their turn, once other connections are established or
    /// have failed.
    pub(super) fn dial_waiting(&mut self, now: Instant) {
        while let Some(key) = self.dials.pop() {
            self.send_keep_alive(now, key);
        }
    }

    /// Sends the keep-alive of an element over its connection, which has just been established.
    pub(super) fn handle_element_connected(
        &mut self,
        now: Instant,
        key: ElementKey,
        connection: ConnectionId,
    ) {
        let Some(pool) = self.handlespace.handle_of(key).cloned() else { return };
        if !self.permits(connection, AccessRole::Element, &pool) {
            // Another program is at the address of the element. The element has until its deadline
            // to register again.
            self.handle_element_disconnected(now, key, Origin::Dialled, &ConnectionEvent::Lost);
            self.detach(key, Some(connection));
            if let Some(custody) = self.custody_mut(key)
                && let KeepAlive::Asked { deadline } = custody.keep_alive
            {
                self.timers.set(Timer::KeepAlive(key), deadline);
            }
            return;
        }
        self.note_owner(key);
        if let Some(client) = self.connections.get_mut(&connection) {
            client.queued.insert(key);
            self.send_queued_keep_alives(now, connection);
        }
    }

    /// Handles the loss of the connection to an element, or a failure to make one. That alone is no
    /// proof of failure: the element may have moved to another connection or another home, or this
    /// host may lack resources. The element counts as dead if its host refuses a connection, or if
    /// it does not answer in time.
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
            // A connection that this registrar made is made again only after a pause or at the next
            // interval, so that an element which accepts connections and closes them causes little
            // load.
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
            return self.report_misbehavior(
                from,
                "answered a keep-alive for an element of another connection".to_owned(),
            );
        }
        self.counters.keep_alive_acks += 1;
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

    /// Handles a user's report that it could not reach an element. The registrar that receives the
    /// report sends the element a keep-alive at once, and offers the element to users after others
    /// until it answers. A report has no other effect, since an element that answers is not removed
    /// (RFC 5352 section 3.5). But if more hosts than MAX-BAD-PE-REPORT report the element, it has
    /// less time to answer.
    pub(super) fn handle_unreachable(
        &mut self,
        now: Instant,
        from: ConnectionId,
        report: &EndpointUnreachable,
    ) {
        let Some(host) = self.connections.get(&from).map(|client| client.host) else { return };
        self.counters.reports += 1;
        if !self.permits(from, AccessRole::User, &report.pool_handle) {
            return;
        }
        let found = self.handlespace.find(&report.pool_handle, report.identifier);
        let Some(key) = found.filter(|_| self.allows(now, host, Limit::Reports)) else { return };
        let max_reports = self.config.max_bad_pe_reports;
        let Some(element) = self.handlespace.get_mut(key) else { return };
        let lately = |asked: Option<Instant>| asked.is_some_and(|asked| now < asked + REPORT_PAUSE);
        match &mut element.state.watch {
            Watch::Home(custody) => {
                let idle = custody.keep_alive == KeepAlive::Idle;
                if idle && lately(custody.asked_for_report) {
                    // The element has answered a keep-alive that was sent less than a second ago
                    // because of a report.
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

    /// Ends an inquiry: a keep-alive that this registrar sent, because of a report, to an element
    /// of another registrar. Closes the connection if it was made for the inquiry.
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
