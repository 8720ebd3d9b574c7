//! Replication of elements among registrars: updates (RFC 5353 section 3.3), and the audit (section
//! 3.6), a comparison of checksums that finds missed updates.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::leave::Leaving;
use super::membership::{Charge, Confirmation, Membership, Origin, Remote, Watch};
use super::mentor::Joining;
use super::{Event, Registrar, RemovalReason, Timer};
use crate::ConnectionId;
use crate::handlespace::{Element, ElementKey, Handlespace, PoolKind};
use crate::wire::enrp::{HandleTableResponse, HandleUpdate, UpdateAction};
use crate::wire::parameter::PeChecksum;
use crate::wire::{Bytes, PoolElement, PoolHandle, Ppid, RegistrarId};

/// The time for which an element is kept after an audit (comparison with its home registrar's
/// table) showed that its home registrar does not have it. Not from the RFCs: elements find another
/// registrar within a second or two.
const UNCONFIRMED: Duration = Duration::from_secs(3);

/// The maximum time that an update is assumed to be in transit. Not from the RFCs.
const TRANSIT: Duration = Duration::from_millis(100);

impl Registrar {
    /// Tells all peers of a new or changed element of this registrar.
    pub(super) fn announce_element(&mut self, key: ElementKey) {
        if let Some(update) = self.encode_update(UpdateAction::Add, false, key) {
            self.send_update(self.told_of(key), &update);
        }
    }

    /// Returns the connections to the peers to which this registrar sends updates about an element.
    pub(super) fn told_of(&self, key: ElementKey) -> Vec<ConnectionId> {
        let mut connected = self.peers.connected();
        connected.retain(|connection| self.may_tell(key, self.peers.host_of_link(*connection)));
        connected
    }

    /// Encodes the update for an element.
    pub(super) fn encode_update(
        &self,
        action: UpdateAction,
        takeover_suggested: bool,
        key: ElementKey,
    ) -> Option<Bytes> {
        let (handle, element) = (self.handlespace.handle_of(key)?, self.handlespace.get(key)?);
        let route = self.route(RegistrarId(0));
        let element = element.encoded();
        Some(HandleUpdate::encode_kept(takeover_suggested, route, action, handle, element))
    }

    pub(super) fn send_update(&mut self, to: Vec<ConnectionId>, update: &Bytes) {
        for connection in to {
            self.out.send_encoded(connection, Ppid::ENRP, update.clone());
        }
    }

    pub(super) fn handle_handle_update(
        &mut self,
        now: Instant,
        from: ConnectionId,
        update: HandleUpdate,
    ) {
        let sender = update.route.sender;
        let host = self.peers.host_of_link(from);
        let HandleUpdate { action, pool_handle, pool_element, takeover_suggested, .. } = update;
        match action {
            // Only the home registrar of an element sends updates about it.
            UpdateAction::Add
                if ![RegistrarId(0), sender].contains(&pool_element.home_registrar) => {}
            UpdateAction::Add => {
                let taken = self.take_in(now, sender, host, &pool_handle, pool_element);
                if let Some(key) = taken.filter(|_| takeover_suggested) {
                    self.handle_suggestion(now, key, sender);
                }
            }
            UpdateAction::Delete => {
                self.rivals.remove(&pool_handle, pool_element.identifier, sender);
                let found = self.handlespace.find(&pool_handle, pool_element.identifier);
                // Only the home registrar of an element decides that it is removed.
                if let Some(key) = found
                    && self.home_of(key) == Some(sender)
                {
                    self.remove_of_another(now, key);
                }
            }
            UpdateAction::Other(_) => {}
        }
    }

    pub(super) fn home_of(&self, key: ElementKey) -> Option<RegistrarId> {
        self.handlespace.get(key).map(Element::home_registrar)
    }

    /// Adds or updates an element that a peer announced, and counts it against the limits of
    /// `host`. Returns the element's key if its values are now those that the peer announced.
    pub(super) fn take_in(
        &mut self,
        now: Instant,
        sender: RegistrarId,
        host: Option<IpAddr>,
        handle: &PoolHandle,
        mut value: PoolElement,
    ) -> Option<ElementKey> {
        if value.home_registrar == RegistrarId(0) {
            value.home_registrar = sender;
        }
        let (ours, home) = (self.config.identifier, value.home_registrar);
        let mut present = self.handlespace.find(handle, value.identifier);
        if home != sender && present.is_some() {
            // Only the home registrar has the newest values, so those that another registrar sends
            // do not replace known ones.
            return None;
        }
        // This registrar yields even if the element is connected to it: the later registration
        // wins, since the sender has just accepted it (RFC 5353 section 3.3.1).
        let was_ours = present.filter(|key| self.home_of(*key) == Some(ours));
        if let Some(key) = was_ours {
            if self.insists(now, key, sender) {
                self.announce_element(key);
                self.adopt(now, key);
                return None;
            }
        } else if home == ours {
            // The sender believes that this registrar is the element's home, but the element was
            // removed here. The next audit (comparison of checksums) tells the sender.
            return None;
        }
        if !self.peers.known.contains_key(&home) && !self.add_peer(now, home, None) {
            return None;
        }
        let fits = |pools: &Handlespace<_>| {
            pools.kind(handle).is_none_or(|kind| kind == PoolKind::of(&value))
        };
        if !fits(&self.handlespace)
            && let Some(key) = present.filter(|key| self.home_of(*key) == Some(sender))
        {
            // The peer now has another element with this identifier, of another kind. The stored
            // one does not exist there any more.
            self.remove(key, RemovalReason::ElsewhereRemoved);
            present = None;
        }
        if !fits(&self.handlespace) {
            if present.is_none() && home == sender {
                self.add_rival(now, handle, value);
            }
            return None;
        }
        let host = host.unwrap_or(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED));
        if !self.has_room(host, present, handle, &value) {
            return None;
        }
        let result = match present {
            Some(key) => self.handlespace.update(key, &value).map(|differs| (key, differs)),
            None => {
                let state = Membership::elsewhere(Charge::default());
                self.handlespace.insert(handle, &value, state).map(|key| (key, true))
            }
        };
        let (key, differs) = match result {
            Ok(taken) => taken,
            Err(refused) => {
                self.out.event(Event::NotTaken(sender, refused.to_string()));
                return None;
            }
        };
        if differs {
            self.subscriptions.note(handle);
        }
        if was_ours.is_some() {
            self.release(now, key);
            self.handle_handed_over();
        }
        if let Some(remote) =
            self.handlespace.get_mut(key).and_then(|element| element.state.remote_mut())
        {
            (remote.confirmation, remote.doubted) = (Confirmation::Confirmed, false);
        }
        self.recharge(key, host, None);
        self.note_scope(key, &value);
        self.answer_deferred(now, handle);
        Some(key)
    }

    /// Returns whether this registrar remains the home of an element although `other` announces
    /// that the element has registered there. It does if the element registered here so recently
    /// that the order of the two registrations is unknown, and if this registrar has the larger
    /// identifier, so that exactly one of the two yields. If both yielded, only the next audit
    /// (comparison of checksums) would show it.
    fn insists(&self, now: Instant, key: ElementKey, other: RegistrarId) -> bool {
        let Some(Watch::Home(custody)) = self.handlespace.get(key).map(|it| &it.state.watch) else {
            return false;
        };
        let just_now = custody.registered.is_some_and(|registered| now < registered + TRANSIT);
        just_now
            && self.config.identifier > other
            && self.is_connected(key)
            && self.leaving == Leaving::No
    }

    /// Returns whether an element in a peer's table is contested: the peer claims to be its home,
    /// but the element is connected to this registrar. If this registrar yielded, the element would
    /// not learn that its home is the peer. So this registrar sends the peer an update, and the
    /// peer yields.
    fn contests(
        &mut self,
        from: ConnectionId,
        sender: RegistrarId,
        handle: &PoolHandle,
        value: &PoolElement,
    ) -> bool {
        let Some(key) = self.handlespace.find(handle, value.identifier) else { return false };
        let both = self.home_of(key) == Some(self.config.identifier)
            && [RegistrarId(0), sender].contains(&value.home_registrar);
        if !both || !self.is_connected(key) || self.leaving != Leaving::No {
            return false;
        }
        let told = self.may_tell(key, self.peers.host_of_link(from));
        if let Some(update) = self.encode_update(UpdateAction::Add, false, key).filter(|_| told) {
            self.out.send_encoded(from, Ppid::ENRP, update);
        }
        true
    }

    fn is_connected(&self, key: ElementKey) -> bool {
        let connection = self.handlespace.get(key).and_then(|element| element.state.connection);
        let client = connection.and_then(|connection| self.connections.get(&connection));
        client.is_some_and(|client| client.origin != Origin::Connecting)
    }

    /// Returns whether an element has made a connection to this registrar. A connection that this
    /// registrar made itself, to ask about a report, does not count.
    fn has_own_connection(&self, key: ElementKey) -> bool {
        let connection = self.handlespace.get(key).and_then(|element| element.state.connection);
        let client = connection.and_then(|connection| self.connections.get(&connection));
        client.is_some_and(|client| client.origin == Origin::Accepted)
    }

    /// Handles an element that its home registrar, a peer, does not have any more. Removes the
    /// element, unless it has a connection to this registrar: the element then believes that this
    /// registrar is its home, so this registrar becomes the home.
    pub(super) fn remove_of_another(&mut self, now: Instant, key: ElementKey) {
        if self.has_own_connection(key) && self.leaving == Leaving::No {
            self.handlespace.set_home(key, self.config.identifier);
            self.announce_element(key);
            self.adopt(now, key);
        } else {
            self.remove(key, RemovalReason::ElsewhereRemoved);
        }
    }

    /// Removes all elements of a pool in favour of another pool with the same handle and a
    /// different policy or transport, which stays on all registrars. Tells the elements of this
    /// registrar that they are removed.
    pub(super) fn clear_pool(&mut self, handle: &PoolHandle) {
        let members: Vec<_> = self.handlespace.members(handle).collect();
        for key in members {
            self.remove(key, RemovalReason::OtherPolicy);
        }
    }

    /// Audits a peer: compares the checksum that it sent with that of its elements as known here
    /// (RFC 5353 section 3.6.1), and downloads its elements if the checksums differ.
    pub(super) fn audit(&mut self, now: Instant, peer: RegistrarId, checksum: PeChecksum) {
        let known = self.handlespace.checksum(peer).of_profile(self.config.compatibility);
        let Some(entry) = self.peers.known.get(&peer) else { return };
        let same = known == checksum && !entry.stale;
        if same {
            // The checksums are equal, so the peer is no longer the home of any rival (element that
            // is kept beside its pool).
            self.rivals.forget_home(peer);
        }
        if same || entry.download.is_some() || !self.knows_others() {
            return;
        }
        if let Some(connection) = entry.connection {
            self.start_download(now, peer, connection, true);
        }
    }

    pub(super) fn handle_handle_table_response(
        &mut self,
        now: Instant,
        from: ConnectionId,
        page: HandleTableResponse,
    ) {
        let sender = page.route.sender;
        let host = self.peers.host_of_link(from);
        let Some(download) = self
            .peers
            .known
            .get_mut(&sender)
            .and_then(|peer| peer.download.as_mut())
            .filter(|download| download.connection == from)
        else {
            return self.report_link(from, "sent an unrequested handle table".to_owned());
        };
        let count: usize = page.pools.iter().map(|pool| pool.elements.len()).sum();
        download.elements += count;
        let endless = page.more_to_send && count == 0
            || download.elements > self.config.limits.elements_per_host;
        if endless {
            self.report_link(from, "sent an endless handle table".to_owned());
        }
        if page.reject || endless {
            return self.abandon_download(now, sender);
        }
        for pool in page.pools {
            for element in pool.elements {
                if !self.contests(from, sender, &pool.pool_handle, &element) {
                    self.take_in(now, sender, host, &pool.pool_handle, element);
                }
            }
        }
        // The peer may have been removed while its elements were handled.
        let still = self.peers.known.get(&sender).is_some_and(|peer| peer.download.is_some());
        if !still {
            return;
        }
        let from_mentor = matches!(self.joining, Joining::Downloading(mentor) if mentor == sender);
        if page.more_to_send {
            return self.request_page(now, sender, from, !from_mentor);
        }
        self.end_download(sender);
        if let Some(peer) = self.peers.known.get_mut(&sender) {
            peer.stale = false;
        }
        if from_mentor {
            return self.finish_joining(now);
        }
        let denied: Vec<_> = self
            .handlespace
            .owned_by(sender, None)
            .filter(|key| {
                self.handlespace.get(*key).is_some_and(|element| {
                    matches!(
                        &element.state.watch,
                        Watch::Elsewhere(Remote { confirmation: Confirmation::Pending, .. })
                    )
                })
            })
            .collect();
        for key in denied {
            self.handle_unconfirmed(now, key);
        }
    }

    /// Handles an element that is not in its home registrar's table. The home may have restarted,
    /// and the element may be about to register with another registrar. So users are offered the
    /// element after others for a while, and it is removed unless a registrar announces it.
    fn handle_unconfirmed(&mut self, now: Instant, key: ElementKey) {
        if self.has_own_connection(key) {
            return self.remove_of_another(now, key);
        }
        if let Some(remote) =
            self.handlespace.get_mut(key).and_then(|element| element.state.remote_mut())
        {
            (remote.confirmation, remote.doubted) = (Confirmation::Denied, true);
            self.timers.set(Timer::Denied(key), now + UNCONFIRMED);
        }
    }

    /// Removes an element that is not in its home registrar's table, unless a registrar announced
    /// it in the meantime.
    pub(super) fn handle_denied(&mut self, key: ElementKey) {
        let Some(element) = self.handlespace.get(key) else { return };
        if let Watch::Elsewhere(Remote { confirmation: Confirmation::Denied, .. }) =
            element.state.watch
        {
            self.remove(key, RemovalReason::ElsewhereRemoved);
        }
    }

    fn end_download(&mut self, peer: RegistrarId) {
        self.timers.cancel(Timer::Download(peer));
        if let Some(peer) = self.peers.known.get_mut(&peer) {
            peer.download = None;
        }
    }

    /// Abandons a download from a peer: those of its elements that were not received stay in the
    /// handlespace.
    pub(super) fn abandon_download(&mut self, now: Instant, peer: RegistrarId) {
        self.end_download(peer);
        self.mark_all(peer, Confirmation::Pending, Confirmation::Confirmed);
        self.handle_mentor_refused(now, peer);
    }

    /// Changes the audit result of all elements of a peer from `from` to `to`, when an audit
    /// (comparison with the peer's table) begins or is abandoned.
    pub(super) fn mark_all(&mut self, peer: RegistrarId, from: Confirmation, to: Confirmation) {
        let owned: Vec<_> = self.handlespace.owned_by(peer, None).collect();
        for key in owned {
            if let Some(remote) =
                self.handlespace.get_mut(key).and_then(|element| element.state.remote_mut())
                && remote.confirmation == from
            {
                remote.confirmation = to;
            }
        }
    }
}
