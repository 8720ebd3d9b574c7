//! Replication of elements among registrars: updates (RFC 5353 section 3.3), and the audit that
//! finds what was missed (section 3.6).

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

/// The time that an element is kept that its home does not have, as an audit shows. Not from the
/// RFCs: elements find another registrar within a second or two.
const UNCONFIRMED: Duration = Duration::from_secs(3);

/// The time that an update may be on its way. Not from the RFCs.
const TRANSIT: Duration = Duration::from_millis(100);

impl Registrar {
    /// Tells all peers that an element of ours came or changed.
    pub(super) fn announce_element(&mut self, key: ElementKey) {
        if let Some(update) = self.encode_update(UpdateAction::Add, false, key) {
            self.send_update(self.told_of(key), &update);
        }
    }

    /// The connections to the peers that are told of an element.
    pub(super) fn told_of(&self, key: ElementKey) -> Vec<ConnectionId> {
        let mut connected = self.peers.connected();
        connected.retain(|connection| {
            let host = self.peers.host_of_link(*connection);
            host.is_none_or(|host| self.leads_there(key, host))
        });
        connected
    }

    /// The message that tells of an element.
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
            // Only the home of an element tells of it by updates.
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
                // Only its home decides that an element is gone.
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

    /// A peer says that an element is there, which its `host` pays for. Where it is, if that is as
    /// the peer says.
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
            // The home itself knows better, and so do we if that is us.
            return None;
        }
        // Also where it is connected to us: the later registration wins, for its sender has just
        // accepted it (RFC 5353 section 3.3.1).
        let was_ours = present.filter(|key| self.home_of(*key) == Some(ours));
        if let Some(key) = was_ours {
            if self.insists(now, key, sender) {
                self.announce_element(key);
                self.adopt(now, key);
                return None;
            }
        } else if home == ours {
            // We do not know it any more; the audit will tell the others.
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
            // What we have under this identifier, the home does not have any more.
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
        self.recharge(key, host);
        self.note_scope(key, &value);
        self.answer_deferred(now, handle);
        Some(key)
    }

    /// Returns whether an element stays ours though `other` tells that it has registered there: it
    /// registered with us so lately that it is not known which was later. One of the two has to
    /// yield, and not both: they would find out with the next audit.
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

    /// Returns whether a peer has an element in its table that believes to be ours, and would not
    /// hear that it is the peer's if we just took it in. So the peer is told that it is ours, and
    /// yields.
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
        if let Some(update) = self.encode_update(UpdateAction::Add, false, key) {
            self.out.send_encoded(from, Ppid::ENRP, update);
        }
        true
    }

    fn is_connected(&self, key: ElementKey) -> bool {
        let connection = self.handlespace.get(key).and_then(|element| element.state.connection);
        let client = connection.and_then(|connection| self.connections.get(&connection));
        client.is_some_and(|client| client.origin != Origin::Connecting)
    }

    /// Returns whether an element has made a connection to us. One that we made to ask about a
    /// report says nothing.
    fn has_own_connection(&self, key: ElementKey) -> bool {
        let connection = self.handlespace.get(key).and_then(|element| element.state.connection);
        let client = connection.and_then(|connection| self.connections.get(&connection));
        client.is_some_and(|client| client.origin == Origin::Accepted)
    }

    /// The home of an element, which is another registrar, does not have it any more. If the
    /// element is still connected to us, it believes that we are its home, and from now on we are.
    pub(super) fn remove_of_another(&mut self, now: Instant, key: ElementKey) {
        if self.has_own_connection(key) && self.leaving == Leaving::No {
            self.handlespace.set_home(key, self.config.identifier);
            self.announce_element(key);
            self.adopt(now, key);
        } else {
            self.remove(key, RemovalReason::ElsewhereRemoved);
        }
    }

    /// A pool was made twice, here and there, and not of one kind. The other kind stays, for all
    /// registrars; the elements of this one are told that they are out.
    pub(super) fn clear_pool(&mut self, handle: &PoolHandle) {
        let members: Vec<_> = self.handlespace.members(handle).collect();
        for key in members {
            self.remove(key, RemovalReason::OtherPolicy);
        }
    }

    /// Compares what a peer says of its elements with what we know of them (RFC 5353 section
    /// 3.6.1), and asks for them where that differs.
    pub(super) fn audit(&mut self, now: Instant, peer: RegistrarId, checksum: PeChecksum) {
        let known = self.config.compatibility.checksum(self.handlespace.checksum(peer));
        let Some(entry) = self.peers.known.get(&peer) else { return };
        let same = known == checksum && !entry.stale;
        if same {
            // It does not have what it is said to have beside its pools.
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
            return self.report_link(from, "sent a handle table unasked".to_owned());
        };
        let count: usize = page.pools.iter().map(|pool| pool.elements.len()).sum();
        download.elements += count;
        let endless = page.more_to_send && count == 0
            || download.elements > self.config.limits.elements_per_host;
        if endless {
            self.report_link(from, "sends a handle table without end".to_owned());
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
        // It may have been forgotten meanwhile.
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

    /// The home of an element does not have it. It may have been restarted, and the element be on
    /// its way to another: it is offered last for a while, and removed if nobody tells of it.
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

    /// Nobody told of an element that its home does not have.
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

    /// A download comes to nothing: what was not confirmed stays as it was.
    pub(super) fn abandon_download(&mut self, now: Instant, peer: RegistrarId) {
        self.end_download(peer);
        self.mark_all(peer, Confirmation::Pending, Confirmation::Confirmed);
        self.handle_mentor_refused(now, peer);
    }

    /// An audit of a peer begins, or comes to nothing: its elements have the other confirmation,
    /// those which have the one.
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
