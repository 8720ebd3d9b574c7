//! The other registrars of the operational scope: the peer list, presence, and the detection of
//! failures (RFC 5353 section 3.4).

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::time::Instant;

use super::peer_state::PeerState;
use super::shares::Limit;
use super::table::Page;
use super::{Event, Registrar, Timer};
use crate::wire::enrp::{Body, Route};
use crate::wire::{RegistrarId, ServerInformation, TransportAddress, UserMessage};
use crate::{ConnectionId, Identity, Received, receive_enrp};

/// The maximum number of peers that were not configured. Not from the RFCs: any host can claim to
/// be a registrar, and this registrar sends each peer every change.
const MAX_PEERS: usize = 128;

/// The peer list, and the connections to peers.
#[derive(Debug, Default)]
pub(super) struct Peers {
    pub(super) known: BTreeMap<RegistrarId, Peer>,
    pub(super) links: HashMap<ConnectionId, Link>,
    /// The configured peers that did not accept a connection at the last attempt.
    pub(super) silent: Vec<TransportAddress>,
}

/// A known registrar.
#[derive(Debug)]
pub(super) struct Peer {
    /// The peer's ENRP address, if it announced one.
    pub(super) transport: Option<TransportAddress>,
    /// The established connection to send over.
    pub(super) connection: Option<ConnectionId>,
    /// The time at which the last message was received from the peer, or at which the wait for the
    /// first one began.
    pub(super) last_heard: Instant,
    pub(super) state: PeerState,
    /// The host from which the peer sent its messages, or the host that named it.
    pub(super) host: Option<IpAddr>,
    /// The identity with which the peer first identified itself, without the names that grant roles;
    /// `None` if the transport does not authenticate. No other party can act as the peer.
    pub(super) party: Option<Identity>,
    /// The download from the peer that is in progress.
    pub(super) download: Option<Download>,
    /// True if this registrar may have missed updates of the peer, since the peer was unknown or a
    /// connection to it broke. Equal checksums do not rule that out.
    pub(super) stale: bool,
}

/// A download in progress: of the elements of a peer, or of all elements that the peer knows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Download {
    pub(super) connection: ConnectionId,
    /// The number of elements received so far.
    pub(super) elements: usize,
}

/// A link: a connection to a peer, or to an address where a registrar is expected.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) address: TransportAddress,
    /// The authenticated identity of the other end.
    pub(super) identity: Option<Identity>,
    pub(super) established: bool,
    /// True if this registrar made the link.
    pub(super) dialled: bool,
    /// The registrar at the other end, once it has identified itself.
    pub(super) peer: Option<RegistrarId>,
    /// True if another peer named the address of the link.
    pub(super) named: bool,
    /// The download from this registrar that the peer has in progress over the link.
    pub(super) page: Option<Page>,
    /// The time at which the counting of downloads over this link began, and their number since
    /// then.
    pub(super) downloads: (Instant, u32),
    /// The time at which the last message was received over the link.
    pub(super) heard: Instant,
    pub(super) has_misbehaved: bool,
}

impl Peers {
    pub(super) fn has_link(&self, connection: ConnectionId) -> bool {
        self.links.contains_key(&connection)
    }

    pub(super) fn links(&self) -> usize {
        self.links.len()
    }

    /// Forgets all peers, and returns the connections to them.
    pub(super) fn forget_links(&mut self) -> Vec<ConnectionId> {
        self.known.clear();
        self.links.drain().map(|(connection, _)| connection).collect()
    }

    /// Returns the host at the other end of a link.
    pub(super) fn host_of_link(&self, connection: ConnectionId) -> Option<IpAddr> {
        self.links.get(&connection).map(|link| link.address.host())
    }

    /// Returns the host of a peer.
    pub(super) fn host_of(&self, peer: RegistrarId) -> Option<IpAddr> {
        self.known.get(&peer)?.host
    }

    /// Returns the accepted links over which no peer has identified itself, with their hosts and
    /// the times of their last messages.
    pub(super) fn silent_links(&self) -> impl Iterator<Item = (IpAddr, (Instant, ConnectionId))> {
        let links = self.links.iter().filter(|(_, link)| !link.dialled && link.peer.is_none());
        links.map(|(connection, link)| (link.address.host(), (link.heard, *connection)))
    }

    pub(super) fn link_mut(&mut self, connection: ConnectionId) -> Option<&mut Link> {
        self.links.get_mut(&connection)
    }

    /// Returns the peers that are believed to be alive, with the connections to them.
    pub(super) fn active(&self) -> impl Iterator<Item = (RegistrarId, ConnectionId)> {
        let alive = self.known.iter().filter(|(_, peer)| peer.state.is_alive());
        alive.filter_map(|(identifier, peer)| Some((*identifier, peer.connection?)))
    }

    /// Returns the connections to all peers, including those that seem to be dead, since they may
    /// be alive.
    pub(super) fn connected(&self) -> Vec<ConnectionId> {
        self.known.values().filter_map(|peer| peer.connection).collect()
    }

    /// Returns whether there is a dialled link whose peer has not identified itself yet.
    pub(super) fn is_dialling(&self) -> bool {
        #[allow(clippy::iter_over_hash_type, reason = "any will do")]
        self.links.values().any(|link| link.dialled && link.peer.is_none())
    }

    /// Returns all known peers with their addresses, as they announced them or as this registrar
    /// reached them.
    pub(super) fn server_information(&self) -> Vec<ServerInformation> {
        let dialled = |peer: &Peer| {
            let link = self.links.get(&peer.connection?)?;
            link.dialled.then(|| link.address.clone())
        };
        let peers = self.known.iter();
        peers
            .filter_map(|(registrar, peer)| {
                let transport = peer.transport.clone().or_else(|| dialled(peer))?;
                Some(ServerInformation { registrar: *registrar, transport })
            })
            .collect()
    }

    /// Returns whether a connection to this address is being made.
    #[allow(clippy::iter_over_hash_type, reason = "any will do")]
    pub(super) fn is_dialled(&self, address: &TransportAddress) -> bool {
        self.links.values().any(|link| !link.established && link.address.reaches_same(address))
    }

    /// Returns whether a connection to this address is established or being made.
    pub(super) fn reaches(&self, address: &TransportAddress) -> bool {
        let known = |link: &Link| match link.peer.and_then(|peer| self.known.get(&peer)) {
            Some(peer) => {
                peer.transport.as_ref().is_some_and(|transport| transport.reaches_same(address))
            }
            None => false,
        };
        #[allow(clippy::iter_over_hash_type, reason = "any will do")]
        self.links
            .values()
            .any(|link| link.dialled && link.address.reaches_same(address) || known(link))
    }
}

impl Registrar {
    pub(super) fn handle_enrp(&mut self, now: Instant, from: ConnectionId, message: &UserMessage) {
        match receive_enrp(&mut self.out, from, message, self.config.identifier) {
            Received::Message(body) => self.process_enrp(now, from, body),
            Received::Refused(reason) => self.report_link(from, reason),
        }
    }

    fn process_enrp(&mut self, now: Instant, from: ConnectionId, body: Body) {
        let Some(route) = body.route() else { return };
        if !self.identify(now, from, route) {
            return;
        }
        self.timers.cancel(Timer::FirstMessage(from));
        let sender = route.sender;
        match body {
            Body::Presence(presence) => self.handle_presence(now, from, presence),
            Body::ListRequest(_) => self.handle_list_request(from, sender),
            Body::ListResponse(list) => self.handle_list_response(now, from, list),
            Body::HandleTableRequest(request) => {
                self.handle_handle_table_request(now, from, &request);
            }
            Body::HandleTableResponse(page) => self.handle_handle_table_response(now, from, page),
            Body::HandleUpdate(update) => self.handle_handle_update(now, from, update),
            Body::InitTakeover(init) => self.handle_init_takeover(now, from, &init),
            Body::InitTakeoverAck(ack) => self.handle_init_takeover_ack(now, &ack),
            Body::TakeoverServer(takeover) => self.handle_takeover_server(now, &takeover),
            Body::Error(error) => {
                self.report_link(from, format!("reported an error: {}", error.error));
            }
            Body::Unknown(_) => {}
        }
    }

    /// Identifies the peer at the other end of a link by the sender of a message. Asks a new peer
    /// for its presence (RFC 5353 section 3.4.1). Returns false if the message is not to be
    /// processed.
    fn identify(&mut self, now: Instant, from: ConnectionId, route: Route) -> bool {
        let ours = self.config.identifier;
        if route.sender == ours || route.sender == RegistrarId(0) {
            self.report_link(from, format!("uses the invalid identifier {}", route.sender));
            return false;
        }
        if route.receiver != ours && route.receiver != RegistrarId(0) {
            self.report_link(
                from,
                format!("sent a message addressed to registrar {}", route.receiver),
            );
            return false;
        }
        let Some(link) = self.peers.links.get_mut(&from) else { return false };
        link.heard = now;
        let (asked, new) = (link.dialled, link.peer.is_none());
        let address = link.address.clone();
        let host = address.host();
        if link.peer.is_some_and(|peer| peer != route.sender) {
            self.report_link(from, format!("changed its identifier to {}", route.sender));
            return false;
        }
        let identity = link.identity.clone();
        let known = self.peers.known.get(&route.sender);
        let impersonation = || self.impersonation(host, identity.as_ref(), known, route.sender);
        if let Some(reason) = new.then(impersonation).flatten() {
            self.report_link(from, reason);
            return false;
        }
        // A registrar that connects may use any identifier except that of a known registrar at
        // another address.
        let elsewhere = known
            .and_then(|peer| peer.transport.as_ref())
            .is_some_and(|its| !asked && !its.shares_address(&address));
        if new && elsewhere {
            let reason =
                format!("uses the identifier {} of a peer at another address", route.sender);
            self.report_link(from, reason);
            return false;
        }
        if known.is_some() {
            self.heard(now, route.sender);
        } else if self.add_peer(now, route.sender, Some(host)) {
            if !asked {
                self.send_presence(from, route.sender, true);
            }
        } else {
            self.report_link(from, "exceeds the maximum number of peers".to_owned());
            return false;
        }
        if let Some(link) = self.peers.links.get_mut(&from) {
            link.peer = Some(route.sender);
        }
        if let Some(peer) = self.peers.known.get_mut(&route.sender) {
            if new {
                peer.host = Some(host);
                peer.party = peer.party.take().or(identity.map(|identity| identity.party()));
            }
            // If the peer has another connection, this one is newer and perhaps the only one that
            // works. The registrar sends over it if it comes from the peer's own address, since
            // anyone could connect from elsewhere.
            let newer =
                new && peer.transport.as_ref().is_some_and(|its| its.shares_address(&address));
            if peer.connection.is_none() || newer {
                peer.connection = Some(from);
            }
        }
        let is_registrar = |peer: &Peer| peer.transport.is_some();
        if new && (asked || self.peers.known.get(&route.sender).is_some_and(is_registrar)) {
            self.out.event(Event::PeerConnected(route.sender, address));
        }
        self.consider_mentor(now, route.sender, from);
        true
    }

    /// Returns the reason for which a party cannot act as the registrar with this identifier, if
    /// there is one: its certificate names another identifier, or the peer with the identifier has
    /// another identity.
    fn impersonation(
        &self,
        host: IpAddr,
        identity: Option<&Identity>,
        known: Option<&Peer>,
        identifier: RegistrarId,
    ) -> Option<String> {
        let permissions = self.config.access.permissions(host, identity);
        let its = known.and_then(|peer| peer.party.as_ref());
        let party = identity.map(Identity::party);
        let reason = if !permissions.permit_identifier(identifier) {
            "which its certificate does not grant"
        } else if its.is_some() && its != party.as_ref() {
            "which belongs to another identity"
        } else {
            return None;
        };
        Some(format!("uses the identifier {identifier}, {reason}"))
    }

    /// Adds a peer to the list. If `host` only named the peer, the peer has to send a message in
    /// time, or its elements are taken over. Returns false if there are too many peers.
    pub(super) fn add_peer(
        &mut self,
        now: Instant,
        identifier: RegistrarId,
        host: Option<IpAddr>,
    ) -> bool {
        let configured = host.is_some_and(|host| self.is_configured_host(host));
        if !configured && !self.make_room_for_peer(now, host) {
            return false;
        }
        let peer = Peer {
            transport: None,
            connection: None,
            last_heard: now,
            state: PeerState::default(),
            host,
            party: None,
            download: None,
            stale: true,
        };
        self.peers.known.insert(identifier, peer);
        self.timers.set(Timer::Peer(identifier), now + self.config.heartbeat().max_last_heard);
        self.out.event(Event::PeerFound(identifier, host));
        true
    }

    /// Returns whether the peer list has room for another peer of `host`. If the list is full,
    /// removes a peer of the host that has the most peers, provided that `host` has at least two
    /// fewer.
    fn make_room_for_peer(&mut self, now: Instant, host: Option<IpAddr>) -> bool {
        let mut hosts: BTreeMap<Option<IpAddr>, Vec<RegistrarId>> = BTreeMap::new();
        for (identifier, peer) in &self.peers.known {
            if !peer.host.is_some_and(|host| self.is_configured_host(host)) {
                hosts.entry(peer.host).or_default().push(*identifier);
            }
        }
        let count: usize = hosts.values().map(Vec::len).sum();
        let ours = hosts.get(&host).map_or(0, Vec::len);
        if count < MAX_PEERS && ours < MAX_PEERS / 2 {
            return true;
        }
        let most = hosts.into_values().max_by_key(Vec::len).unwrap_or_default();
        let at = host.unwrap_or(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED));
        self.hit(Limit::Peers, at);
        match most.last() {
            Some(victim) if most.len() > ours + 1 => {
                let elements: Vec<_> = self.handlespace.owned_by(*victim, None).collect();
                for key in elements {
                    self.remove_of_another(now, key);
                }
                self.forget_peer(now, *victim);
                true
            }
            _ => false,
        }
    }

    /// Returns whether a peer sent a message recently, so that it cannot be considered dead.
    pub(super) fn is_heard(&self, now: Instant, identifier: RegistrarId) -> bool {
        self.peers.known.get(&identifier).is_some_and(|peer| {
            peer.state.is_active() && now < peer.last_heard + self.config.heartbeat().max_last_heard
        })
    }

    pub(super) fn heard(&mut self, now: Instant, identifier: RegistrarId) {
        let Some(peer) = self.peers.known.get_mut(&identifier) else { return };
        peer.last_heard = now;
        if peer.state.hear() {
            self.timers.set(Timer::Peer(identifier), now + self.config.heartbeat().max_last_heard);
        }
    }

    /// Forgets a dead peer, and closes the connections to it. If the peer is alive after all, the
    /// closing tells it that it has missed something.
    pub(super) fn forget_peer(&mut self, now: Instant, identifier: RegistrarId) {
        let Some(peer) = self.peers.known.remove(&identifier) else { return };
        self.rivals.forget_home(identifier);
        self.timers.cancel(Timer::Peer(identifier));
        self.timers.cancel(Timer::Download(identifier));
        let links = self.peers.links.iter().filter(|(_, link)| link.peer == Some(identifier));
        let mut links: Vec<_> = links.map(|(connection, _)| *connection).collect();
        links.sort_unstable();
        for connection in links {
            self.forget_link(connection);
            self.out.close(connection);
        }
        // A party that never said where it is as a registrar is a tool that asks for the handlespace.
        if peer.transport.is_some() {
            self.out.event(Event::PeerLost(identifier, peer.host));
        }
        self.handle_mentor_refused(now, identifier);
    }

    pub(super) fn route(&self, receiver: RegistrarId) -> Route {
        Route { sender: self.config.identifier, receiver }
    }
}
