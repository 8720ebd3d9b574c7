//! The connections to other registrars (links), accepted and made.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Instant;

use super::event::Denial;
use super::peers::Link;
use super::shares::Limit;
use super::{Event, Registrar, Timer};
use crate::Identity;
use crate::access::AccessRole;
use crate::wire::{Ppid, RegistrarId, TransportAddress};
use crate::{ConnectionEvent, ConnectionId};

/// The maximum number of links (connections to other registrars) of one host, and of all hosts. Not
/// from the RFCs: two registrars may connect to each other at the same time, and several may run on
/// one host.
const MAX_LINKS_OF_HOST: usize = 64;
const MAX_LINKS: usize = 1024;

/// The maximum number of links that are being made to addresses named by peers.
const MAX_NAMED_DIALS: usize = 16;

/// Origin of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LinkOrigin {
    Accepted,
    /// This registrar made the link, to an address from the configuration or from the peer itself.
    Dialled,
    /// This registrar made the link, to an address that a third registrar named.
    Named,
}

impl Registrar {
    pub(super) fn accept_link(
        &mut self,
        now: Instant,
        address: TransportAddress,
        identity: Option<Identity>,
    ) -> ConnectionId {
        let connection = self.out.name_connection();
        let host = address.host();
        if !self.permits_registrar(host, identity.as_ref()) {
            self.out.abort(connection);
            return connection;
        }
        #[allow(clippy::iter_over_hash_type, reason = "they are counted")]
        let same = self.peers.links.values().filter(|link| link.address.host() == host).count();
        if same >= MAX_LINKS_OF_HOST || self.peers.links.len() >= MAX_LINKS {
            self.hit(Limit::Peers, host);
            self.out.abort(connection);
        } else if self.takes_connection(host) {
            self.add_link(now, connection, address, identity, LinkOrigin::Accepted);
            let deadline = now + self.config.first_message_timeout;
            self.timers.set(Timer::FirstMessage(connection), deadline);
        } else {
            self.out.abort(connection);
        }
        connection
    }

    /// Returns whether a party may be a registrar, and reports a denial if not.
    fn permits_registrar(&mut self, host: IpAddr, identity: Option<&Identity>) -> bool {
        let role = AccessRole::Registrar;
        let permitted = self.config.access.permits(host, identity, role, None);
        if !permitted {
            self.deny(Denial { role, host, identity: identity.cloned(), pool: None });
        }
        permitted
    }

    fn add_link(
        &mut self,
        now: Instant,
        connection: ConnectionId,
        address: TransportAddress,
        identity: Option<Identity>,
        origin: LinkOrigin,
    ) {
        let dialled = origin != LinkOrigin::Accepted;
        let link = Link {
            address,
            identity,
            established: !dialled,
            dialled,
            peer: None,
            named: origin == LinkOrigin::Named,
            page: None,
            downloads: (now, 0),
            heard: now,
            has_misbehaved: false,
        };
        self.peers.links.insert(connection, link);
    }

    /// Connects to a peer, unless there is a connection to it.
    pub(super) fn dial_peer(&mut self, now: Instant, address: &TransportAddress) {
        let ours = self.config.enrp.as_ref().is_some_and(|ours| ours.reaches_same(address));
        if !ours && !self.peers.reaches(address) {
            self.make_link(now, address, LinkOrigin::Dialled);
        }
    }

    /// Connects to an address that a peer named, unless too many such connections are being made.
    pub(super) fn dial_named(&mut self, now: Instant, by: IpAddr, address: &TransportAddress) {
        let ours = self.config.enrp.as_ref().is_some_and(|ours| ours.reaches_same(address));
        if ours || self.peers.reaches(address) {
            return;
        }
        #[allow(clippy::iter_over_hash_type, reason = "they are counted")]
        let named = self.peers.links.values().filter(|link| link.named && link.peer.is_none());
        if named.count() >= MAX_NAMED_DIALS {
            self.hit(Limit::Dials, by);
        } else if self.allows(now, by, Limit::Dials) {
            self.make_link(now, address, LinkOrigin::Named);
        }
    }

    /// Connects to a peer at those of its addresses that the rules allow. Returns false if there are
    /// none.
    fn make_link(&mut self, now: Instant, address: &TransportAddress, origin: LinkOrigin) -> bool {
        let mut allowed = address.clone();
        allowed.addresses.retain(|at| self.config.access.allows(AccessRole::Registrar, *at));
        if allowed.addresses.is_empty() {
            return self.allows_registrar_at(address.host());
        }
        let address = &allowed;
        let full = self.peers.links.len() >= MAX_LINKS && !self.is_configured(address);
        if self.peers.is_dialled(address) || full {
            return true;
        }
        let connection = self.out.connect(Ppid::ENRP, address.clone());
        self.add_link(now, connection, address.clone(), None, origin);
        true
    }

    /// Returns whether an address is on the host of a configured peer.
    fn is_configured(&self, address: &TransportAddress) -> bool {
        self.config.peers.iter().any(|peer| peer.shares_address(address))
    }

    /// Returns whether a host is that of a configured peer.
    pub(super) fn is_configured_host(&self, host: IpAddr) -> bool {
        self.config.peers.iter().any(|peer| peer.addresses.contains(&host))
    }

    /// Connects to the known and configured peers to which there is no connection.
    pub(super) fn dial_peers(&mut self, now: Instant) {
        let unconnected = self.peers.known.values().filter(|peer| peer.connection.is_none());
        let mut addresses: Vec<_> = unconnected.filter_map(|peer| peer.transport.clone()).collect();
        addresses.extend(self.config.peers.iter().cloned());
        for address in addresses {
            self.dial_peer(now, &address);
        }
    }

    pub(super) fn handle_link_established(
        &mut self,
        now: Instant,
        connection: ConnectionId,
        address: TransportAddress,
        identity: Option<Identity>,
    ) {
        if !self.permits_registrar(address.host(), identity.as_ref()) {
            return self.drop_connection(now, connection);
        }
        self.peers.silent.retain(|silent| !silent.reaches_same(&address));
        if let Some(link) = self.peers.links.get_mut(&connection) {
            link.established = true;
            link.address = address;
            link.identity = identity;
            self.send_presence(connection, RegistrarId(0), true);
        }
    }

    /// Handles a link to another registrar that was closed or could not be made.
    pub(super) fn handle_link_over(
        &mut self,
        now: Instant,
        connection: ConnectionId,
        event: &ConnectionEvent,
    ) {
        self.timers.cancel(Timer::FirstMessage(connection));
        self.timers.cancel(Timer::Page(connection));
        let Some(link) = self.forget_link(connection) else { return };
        if !link.established {
            self.note_silent(&link.address);
        }
        let identifier = link.peer.or_else(|| {
            // The link may be one to a known peer that did not accept it.
            let mut known = self.peers.known.iter();
            let meant = known.find(|(_, peer)| {
                peer.transport.as_ref().is_some_and(|at| at.reaches_same(&link.address))
            });
            meant.map(|(identifier, _)| *identifier)
        });
        let Some(identifier) = identifier else { return self.handle_no_mentor(now) };
        let others = self.peers.links.iter();
        let other = others
            .filter(|(_, link)| link.established && link.peer == Some(identifier))
            .map(|(connection, _)| *connection)
            .max();
        let Some(peer) = self.peers.known.get_mut(&identifier) else { return };
        let downloading = peer.download.is_some_and(|its| its.connection == connection);
        if downloading {
            peer.download = None;
        }
        if peer.connection.is_none_or(|its| its == connection) {
            peer.connection = other;
        }
        peer.stale = true;
        let address = peer.transport.clone();
        let lost = peer.connection.is_none() && !peer.state.is_inactive();
        let again = link.peer.is_some() && (lost || *event == ConnectionEvent::Lost);
        if downloading {
            self.abandon_download(now, identifier);
        }
        match address {
            // If the peer's process was killed, its host refuses the new connection, and the peer
            // is known to be dead. If the peer is alive, it may not have noticed yet that the old
            // connection is closed; it sends over the new one from then on.
            Some(address) if again && self.make_link(now, &address, LinkOrigin::Dialled) => {}
            _ if lost => self.handle_peer_dead(now, identifier),
            _ => {}
        }
    }

    /// Reports that a configured peer does not accept connections. Does not repeat the report until
    /// the peer has accepted one.
    fn note_silent(&mut self, address: &TransportAddress) {
        let silent = &mut self.peers.silent;
        if self.config.peers.contains(address) && !silent.contains(address) {
            silent.push(address.clone());
            self.out.event(Event::PeerSilent(address.clone()));
        }
    }

    pub(super) fn forget_link(&mut self, connection: ConnectionId) -> Option<Link> {
        self.timers.cancel(Timer::FirstMessage(connection));
        self.timers.cancel(Timer::Page(connection));
        let link = self.peers.links.remove(&connection)?;
        if !link.dialled {
            self.shares.close_connection(link.address.host());
        }
        Some(link)
    }

    /// Closes surplus links. If two registrars connected to each other at the same time, the one
    /// with the smaller identifier closes one of the links.
    pub(super) fn close_surplus_links(&mut self) {
        let ours = self.config.identifier;
        let used: BTreeSet<_> = self
            .peers
            .known
            .values()
            .flat_map(|peer| [peer.connection, peer.download.map(|its| its.connection)])
            .collect();
        let mut surplus: Vec<_> = self
            .peers
            .links
            .iter()
            .filter(|(id, link)| link.page.is_none() && !used.contains(&Some(**id)))
            .filter_map(|(id, link)| Some((*id, link.peer.filter(|peer| ours < *peer)?)))
            .collect();
        surplus.sort_unstable();
        for (connection, identifier) in surplus {
            let Some(peer) = self.peers.known.get_mut(&identifier) else { continue };
            // Messages that the peer sends over this link before it notices the closing are lost.
            peer.stale = true;
            self.forget_link(connection);
            self.out.close(connection);
        }
    }

    pub(super) fn report_link(&mut self, about: ConnectionId, reason: String) {
        if let Some(link) = self.peers.links.get_mut(&about)
            && !std::mem::replace(&mut link.has_misbehaved, true)
        {
            self.out.event(Event::Misbehaved { peer: link.address.clone(), reason });
        }
    }
}
