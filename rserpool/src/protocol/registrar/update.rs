//! What registrars tell each other of elements: updates (RFC 5353 section 3.3), and the audit that
//! finds what was missed (section 3.6).

use std::collections::BTreeSet;
use std::time::Instant;

use super::leave::Leaving;
use super::mentor::Joining;
use super::{Membership, Origin, Registrar, RemovalReason, Timer};
use crate::handlespace::{Element, ElementKey};
use crate::protocol::ConnectionId;
use crate::wire::enrp::{HandleTableResponse, HandleUpdate, UpdateAction};
use crate::wire::parameter::PeChecksum;
use crate::wire::{PoolElement, PoolHandle, RegistrarId};

impl Registrar {
    /// Tells all peers that an element of ours came or changed.
    pub(super) fn announce_element(&mut self, key: ElementKey) {
        if let (Some(handle), Some(element)) =
            (self.handlespace.handle_of(key).cloned(), self.handlespace.get(key))
        {
            let value = element.value();
            self.send_update(UpdateAction::Add, &handle, &value);
        }
    }

    pub(super) fn send_update(
        &mut self,
        action: UpdateAction,
        pool_handle: &PoolHandle,
        pool_element: &PoolElement,
    ) {
        for connection in self.peers.connected() {
            self.update_peer(connection, action, false, pool_handle, pool_element);
        }
    }

    /// Tells one peer.
    pub(super) fn update_peer(
        &mut self,
        connection: ConnectionId,
        action: UpdateAction,
        takeover_suggested: bool,
        pool_handle: &PoolHandle,
        pool_element: &PoolElement,
    ) {
        let update = HandleUpdate {
            takeover_suggested,
            route: self.route(RegistrarId(0)),
            action,
            reserved: 0,
            pool_handle: pool_handle.clone(),
            pool_element: pool_element.clone(),
        };
        self.out.send_enrp(connection, update).expect("as large as a registration");
    }

    pub(super) fn handle_handle_update(&mut self, now: Instant, update: HandleUpdate) {
        let sender = update.route.sender;
        let HandleUpdate { action, pool_handle, pool_element, takeover_suggested, .. } = update;
        match action {
            UpdateAction::Add => {
                let taken = self.take_in(now, sender, &pool_handle, pool_element);
                if let Some(key) = taken.filter(|_| takeover_suggested) {
                    self.handle_suggestion(now, key, sender);
                }
            }
            UpdateAction::Delete => {
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

    /// A peer says that an element is there. Where it is, if that is as the peer says.
    fn take_in(
        &mut self,
        now: Instant,
        sender: RegistrarId,
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
        let was_ours = present.filter(|key| self.home_of(*key) == Some(ours));
        if let Some(key) = was_ours {
            if self.insists(key, sender) {
                self.announce_element(key);
                self.adopt(now, key);
                return None;
            }
            self.release(key);
        } else if home == ours {
            // We do not know it any more; the audit will tell the others.
            return None;
        }
        if !self.peers.known.contains_key(&home) && !self.add_peer(now, home, None) {
            return None;
        }
        if self.handlespace.prevails(handle, &value) {
            self.clear_pool(handle);
            present = None;
        }
        match present {
            Some(key) => self.note_change(key, &value),
            None => self.subscriptions.note(handle),
        }
        let result = match present {
            Some(key) => self.handlespace.update(key, &value).map(|()| key),
            None => self.handlespace.insert(handle, &value, Membership::of_another()),
        };
        let key = result
            .inspect_err(|refused| {
                tracing::warn!(%sender, pool = %handle, %refused, "an element does not fit");
            })
            .ok()?;
        let element = self.handlespace.get_mut(key).expect("just put in");
        element.state.marked = false;
        if was_ours.is_some() {
            self.handle_handed_over();
        }
        Some(key)
    }

    /// Whether an element stays ours though `other` says that it is its home. One of the two has
    /// to yield, and not both: they would find out with the next audit.
    fn insists(&self, key: ElementKey, other: RegistrarId) -> bool {
        self.config.identifier > other && self.is_connected(key) && self.leaving == Leaving::No
    }

    /// Whether a peer has an element in its table that believes to be ours, and would not hear that
    /// it is the peer's if we just took it in. So the peer is told that it is ours: either it
    /// insists, and tells the element so, or it yields.
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
        if !both || !self.is_connected(key) || self.insists(key, sender) {
            return false;
        }
        if self.leaving != Leaving::No {
            return false;
        }
        let ours = self.handlespace.get(key).expect("just found").value();
        self.update_peer(from, UpdateAction::Add, false, handle, &ours);
        true
    }

    fn is_connected(&self, key: ElementKey) -> bool {
        let connection = self.handlespace.get(key).and_then(|element| element.state.connection);
        let client = connection.and_then(|connection| self.connections.get(&connection));
        client.is_some_and(|client| client.origin != Origin::Connecting)
    }

    /// The home of an element, which is another registrar, does not have it any more. If the
    /// element is still connected to us, it believes that we are its home, and from now on we are.
    fn remove_of_another(&mut self, now: Instant, key: ElementKey) {
        if self.is_connected(key) && self.leaving == Leaving::No {
            self.handlespace.set_home(key, self.config.identifier);
            self.announce_element(key);
            self.adopt(now, key);
        } else {
            self.remove(key, RemovalReason::ElsewhereRemoved);
        }
    }

    /// A pool was made twice, here and there, and not of one kind. The other kind stays, for all
    /// registrars; the elements of this one are told that they are out.
    fn clear_pool(&mut self, handle: &PoolHandle) {
        let members: Vec<_> = self.handlespace.members(handle).collect();
        for key in members {
            if self.home_of(key) == Some(self.config.identifier) {
                self.handle_expiry(key);
            } else {
                self.remove(key, RemovalReason::ElsewhereRemoved);
            }
        }
    }

    /// Compares what a peer says of its elements with what we know of them (RFC 5353 section
    /// 3.6.1), and asks for them where that differs.
    pub(super) fn audit(&mut self, now: Instant, peer: RegistrarId, checksum: PeChecksum) {
        let known = self.config.compatibility.checksum(self.handlespace.checksum(peer));
        let Some(entry) = self.peers.known.get(&peer) else { return };
        let same = known == checksum && !entry.stale;
        if same || entry.download.is_some() || !self.is_ready() {
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
        let asked = self.peers.known.get(&sender).and_then(|peer| peer.download);
        if asked != Some(from) {
            return self.complain_of_link(from, "sent a handle table unasked".to_owned());
        }
        if page.reject {
            return self.abandon_download(now, sender);
        }
        for pool in page.pools {
            for element in pool.elements {
                if !self.contests(from, sender, &pool.pool_handle, &element) {
                    self.take_in(now, sender, &pool.pool_handle, element);
                }
            }
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
        let marked: Vec<_> = self
            .handlespace
            .owned_by(sender, None)
            .filter(|key| self.handlespace.get(*key).is_some_and(|element| element.state.marked))
            .collect();
        for key in marked {
            self.remove_of_another(now, key);
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
        let owned: Vec<_> = self.handlespace.owned_by(peer, None).collect();
        for key in owned {
            self.handlespace.get_mut(key).expect("it is owned").state.marked = false;
        }
        self.handle_mentor_refused(now, peer);
    }
}

impl Membership {
    /// Of an element that another registrar looks after.
    fn of_another() -> Self {
        Self {
            connection: None,
            awaiting_ack: false,
            claim: false,
            marked: false,
            came_from: RegistrarId(0),
            reporters: BTreeSet::new(),
        }
    }
}
