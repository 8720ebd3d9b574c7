//! Taking over the elements of a dead registrar (RFC 5353 section 3.5).

use std::time::Instant;

use super::membership::{Custody, Origin, Remote, Watch};
use super::{Event, Registrar, Timer};
use crate::ConnectionId;
use crate::handlespace::ElementKey;
use crate::wire::RegistrarId;
use crate::wire::enrp::{InitTakeover, InitTakeoverAck, TakeoverServer};

/// The number of rounds of ENRP_INIT_TAKEOVER after which this registrar no longer waits for the
/// agreement of peers that were not configured.
const MAX_ASKED: u32 = 2;

impl Registrar {
    /// Begins the takeover of a peer that this registrar considers dead.
    pub(super) fn handle_peer_dead(&mut self, now: Instant, identifier: RegistrarId) {
        let Some(peer) = self.peers.known.get(&identifier) else { return };
        if peer.state.is_alive() {
            if self.handlespace.owned_by(identifier, None).next().is_some() {
                self.out.event(Event::PeerDead(identifier));
            }
            self.begin_takeover(now, identifier);
            self.complete_takeovers(now, identifier);
        }
    }

    /// Asks the peers that are believed to be alive for agreement to take over the elements of
    /// `target` (RFC 5353 section 3.5.1). Called again if not all of them answered in time.
    pub(super) fn begin_takeover(&mut self, now: Instant, target: RegistrarId) {
        if self.handlespace.owned_by(target, None).next().is_none() {
            return self.forget_peer(now, target);
        }
        let Some(peer) = self.peers.known.get_mut(&target) else { return };
        let asked = peer.state.begin_takeover();
        let to_target = peer.connection;
        let mut others: Vec<_> = self.peers.active().collect();
        if asked >= MAX_ASKED {
            // Peers that were not configured cannot block a takeover by being silent.
            others.retain(|(other, _)| {
                self.peers.host_of(*other).is_some_and(|host| self.is_configured_host(host))
            });
        }
        let Some(peer) = self.peers.known.get_mut(&target) else { return };
        peer.state.await_agreement(others.iter().map(|(identifier, _)| *identifier));
        if others.is_empty() && (asked > 0 || to_target.is_none()) {
            return self.complete_takeover(now, target);
        }
        // The target is asked, too: if it is alive after all, it objects by sending its presence.
        let timeout = match others.is_empty() {
            true => self.config.heartbeat().max_no_response,
            false => self.config.takeover_expiry,
        };
        for (receiver, connection) in
            others.into_iter().chain(to_target.map(|connection| (target, connection)))
        {
            let message = InitTakeover { route: self.route(receiver), target };
            self.out.send_enrp(connection, message);
        }
        self.timers.set(Timer::Peer(target), now + timeout);
    }

    pub(super) fn handle_init_takeover(
        &mut self,
        now: Instant,
        from: ConnectionId,
        init: &InitTakeover,
    ) {
        let (sender, target) = (init.route.sender, init.target);
        if target == self.config.identifier {
            // The target is this registrar, which is alive and objects by sending its presence.
            return self.announce_presence();
        }
        let yields = self.config.compatibility.yields(self.config.identifier, sender);
        if let Some(peer) = self.peers.known.get_mut(&target) {
            if peer.state.is_taken_over() && !yields {
                return;
            }
            peer.state.leave_to_another();
            // If the sender crashes before it completes the takeover, this registrar suspects the
            // target again after this time.
            self.timers.set(Timer::Peer(target), now + self.config.takeover_expiry * 2);
        }
        let ack = InitTakeoverAck { route: self.route(sender), target };
        self.out.send_enrp(from, ack);
    }

    pub(super) fn handle_init_takeover_ack(&mut self, now: Instant, ack: &InitTakeoverAck) {
        let Some(peer) = self.peers.known.get_mut(&ack.target) else { return };
        if peer.state.agree(ack.route.sender) {
            self.complete_takeover(now, ack.target);
        }
    }

    /// Completes the takeovers for which only the agreement of `without` was missing, a peer that
    /// is dead or was removed.
    pub(super) fn complete_takeovers(&mut self, now: Instant, without: RegistrarId) {
        let waiting: Vec<_> = self
            .peers
            .known
            .iter_mut()
            .filter_map(|(target, peer)| peer.state.agree(without).then_some(*target))
            .collect();
        for target in waiting {
            self.complete_takeover(now, target);
        }
    }

    /// Completes a takeover to which all peers agreed: this registrar becomes the home of the
    /// elements (RFC 5353 section 3.5.2).
    fn complete_takeover(&mut self, now: Instant, target: RegistrarId) {
        let peers: Vec<_> = self.peers.active().collect();
        let dead = self.peers.known.get(&target).and_then(|peer| peer.connection);
        for (receiver, connection) in
            peers.into_iter().chain(dead.map(|connection| (target, connection)))
        {
            let message = TakeoverServer { route: self.route(receiver), target };
            self.out.send_enrp(connection, message);
        }
        let elements: Vec<_> = self.handlespace.owned_by(target, None).collect();
        self.out.event(Event::TookOver { registrar: target, elements: elements.len() });
        self.forget_peer(now, target);
        self.tell_of_those_who_came(target);
        for key in elements {
            self.handlespace.set_home(key, self.config.identifier);
            self.adopt(now, key);
        }
        self.complete_takeovers(now, target);
    }

    /// Repeats the updates about elements that moved to this registrar from the dead one, `from`,
    /// before the takeover. A peer may have received the last update of the dead registrar about
    /// such an element after that of this registrar. It would then count the element, with its old
    /// values, among those that were taken over, and no audit (comparison of checksums) would find
    /// the difference.
    fn tell_of_those_who_came(&mut self, from: RegistrarId) {
        let ours: Vec<_> = self.handlespace.owned_by(self.config.identifier, None).collect();
        for key in ours {
            let Some(custody) =
                self.handlespace.get_mut(key).and_then(|element| element.state.custody_mut())
            else {
                continue;
            };
            if custody.came_from == Some(from) {
                custody.came_from = None;
                self.announce_element(key);
            }
        }
    }

    /// Becomes the home registrar of an element: tells the element so by a keep-alive, which it has
    /// to answer.
    pub(super) fn adopt(&mut self, now: Instant, key: ElementKey) {
        let Some(element) = self.handlespace.get_mut(key) else { return };
        match &mut element.state.watch {
            Watch::Home(custody) => custody.claim = true,
            watch @ Watch::Elsewhere(_) => {
                *watch = Watch::Home(Custody { claim: true, ..Custody::default() });
            }
        }
        let life = self.config.compatibility.lifetime(element.value().registration_life);
        self.handlespace.set_lifetime(key, now, life);
        self.note_owner(key);
        self.send_keep_alive(now, key);
    }

    /// Makes another registrar the home of an element.
    pub(super) fn yield_element(&mut self, now: Instant, key: ElementKey, home: RegistrarId) {
        self.handlespace.set_home(key, home);
        self.release(now, key);
    }

    /// Stops supervising an element whose home is another registrar now. A connection that the
    /// element made is kept: the element closes it when it learns of its new home.
    pub(super) fn release(&mut self, now: Instant, key: ElementKey) {
        self.timers.cancel(Timer::KeepAlive(key));
        self.dials.forget(key);
        self.handlespace.cancel_lifetime(key);
        self.refuse_claimant(key);
        let Some(element) = self.handlespace.get_mut(key) else { return };
        element.state.watch = Watch::Elsewhere(Remote::default());
        let (connection, value) = (element.state.connection, element.value());
        self.note_owner(key);
        if self.drained.remove(&key) {
            self.note_scope(key, &value);
        }
        let Some(connection) = connection else { return };
        let client = self.connections.get(&connection);
        if client.is_some_and(|client| client.origin == Origin::Accepted) {
            self.settle_keep_alive(now, connection, key);
        } else {
            if let Some(element) = self.handlespace.get_mut(key) {
                element.state.connection = None;
            }
            self.detach(key, Some(connection));
        }
    }

    /// Handles a peer's report that it has taken over the elements of another registrar, the
    /// target. The report is accepted if the target has sent this registrar nothing recently;
    /// otherwise the next audit (comparison of checksums) shows the home of the target's elements.
    pub(super) fn handle_takeover_server(&mut self, now: Instant, takeover: &TakeoverServer) {
        let (sender, target) = (takeover.route.sender, takeover.target);
        if target == self.config.identifier {
            if !self.was_silent(now) {
                return self.announce_presence();
            }
            // The elements that stay connected to this registrar will register again.
            self.out.event(Event::TakenOver { by: sender });
            let elements: Vec<_> = self.handlespace.owned_by(target, None).collect();
            for key in elements {
                self.yield_element(now, key, sender);
            }
            return;
        }
        if self.is_heard(now, target) {
            return;
        }
        let elements: Vec<_> = self.handlespace.owned_by(target, None).collect();
        for key in elements {
            self.handlespace.set_home(key, sender);
        }
        self.forget_peer(now, target);
        self.complete_takeovers(now, target);
    }
}
