//! The other registrars of the operational scope: the peer list, presence, and the detection of
//! failures (RFC 5353 section 3.4).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::Instant;

use rand::RngExt;

use super::membership::host_of;
use super::shares::Limit;
use super::table::Page;
use super::{Event, Registrar, Timer};
use crate::protocol::{ConnectionEvent, ConnectionId, Received, receive_enrp};
use crate::wire::enrp::{self, Body, Presence, Route};
use crate::wire::{Ppid, RegistrarId, ServerInformation, TransportAddress, UserMessage};

/// The most peers that were not configured. Not from the RFCs: anyone can claim to be one, and each
/// is told of every change.
const MAX_PEERS: usize = 128;

/// The most links of one host, and of all. Not from the RFCs: two registrars may connect to each
/// other at a time, and there may be several on a host.
const MAX_LINKS_OF_HOST: usize = 64;
const MAX_LINKS: usize = 1024;

/// The most links that are being made because a peer named an address.
const MAX_NAMED_DIALS: usize = 16;

/// The peer list, and the connections to peers.
#[derive(Debug, Default)]
pub(super) struct Peers {
    pub(super) known: BTreeMap<RegistrarId, Peer>,
    links: HashMap<ConnectionId, Link>,
    /// The configured peers that did not accept a connection when that was tried last.
    silent: Vec<TransportAddress>,
}

/// A registrar that we know.
#[derive(Debug)]
pub(super) struct Peer {
    /// Where it offers ENRP, if it said so.
    transport: Option<TransportAddress>,
    /// The established connection that we send over.
    pub(super) connection: Option<ConnectionId>,
    /// When a message of it came last, or when we began to wait for one.
    last_heard: Instant,
    pub(super) status: Status,
    /// The host that it was heard from, or that spoke of it.
    host: Option<IpAddr>,
    /// The download of its elements.
    pub(super) download: Option<Download>,
    /// Whether updates of it may have been lost, which a checksum need not show: we did not
    /// know it yet, or a connection to it broke.
    pub(super) stale: bool,
}

/// A download of a peer's elements, or of all that it knows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Download {
    pub(super) connection: ConnectionId,
    /// How many elements came.
    pub(super) elements: usize,
}

/// What we think of a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Status {
    Active,
    /// Not heard for too long, and asked for its presence.
    Suspected,
    /// Dead, and we want its elements; these peers have yet to agree (RFC 5353 section 3.5.1).
    TakingOver {
        pending: BTreeSet<RegistrarId>,
        /// How often they were asked.
        asked: u32,
    },
    /// Dead, as another says who takes over its elements.
    Inactive,
}

/// How a link came to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LinkOrigin {
    Accepted,
    /// We were told of the address by the configuration, or by the registrar itself.
    Dialled,
    /// We were told of the address by another registrar.
    Named,
}

/// A connection to a peer, or to where one should be.
#[derive(Debug)]
pub(super) struct Link {
    address: TransportAddress,
    established: bool,
    /// Whether we made it.
    dialled: bool,
    /// Who is at its other end, once it said so.
    peer: Option<RegistrarId>,
    /// Whether a peer named its address.
    named: bool,
    /// What it is asked for page by page.
    pub(super) page: Option<Page>,
    /// When it was heard last.
    heard: Instant,
    complained: bool,
}

impl Peers {
    pub(super) fn has_link(&self, connection: ConnectionId) -> bool {
        self.links.contains_key(&connection)
    }

    pub(super) fn links(&self) -> usize {
        self.links.len()
    }

    /// Forgets all peers, and the connections to them, which are returned.
    pub(super) fn forget_links(&mut self) -> Vec<ConnectionId> {
        self.known.clear();
        self.links.drain().map(|(connection, _)| connection).collect()
    }

    /// The host at the other end of a link.
    pub(super) fn host_of_link(&self, connection: ConnectionId) -> Option<IpAddr> {
        self.links.get(&connection).map(|link| host_of(&link.address))
    }

    /// The host that a peer was heard from.
    pub(super) fn host_of(&self, peer: RegistrarId) -> Option<IpAddr> {
        self.known.get(&peer)?.host
    }

    /// The links over which no peer has spoken, their hosts, and since when.
    pub(super) fn silent_links(&self) -> impl Iterator<Item = (IpAddr, (Instant, ConnectionId))> {
        let links = self.links.iter().filter(|(_, link)| !link.dialled && link.peer.is_none());
        links.map(|(connection, link)| (host_of(&link.address), (link.heard, *connection)))
    }

    pub(super) fn link_mut(&mut self, connection: ConnectionId) -> Option<&mut Link> {
        self.links.get_mut(&connection)
    }

    /// The peers that live, and the connections to them.
    pub(super) fn active(&self) -> impl Iterator<Item = (RegistrarId, ConnectionId)> {
        self.known.iter().filter_map(|(identifier, peer)| match peer.status {
            Status::Active | Status::Suspected => Some((*identifier, peer.connection?)),
            Status::TakingOver { .. } | Status::Inactive => None,
        })
    }

    /// The connections to all peers, also to those that seem to be dead: they may not be.
    pub(super) fn connected(&self) -> Vec<ConnectionId> {
        self.known.values().filter_map(|peer| peer.connection).collect()
    }

    /// Whether an answer of somebody whom we dialled is still to come.
    pub(super) fn is_dialling(&self) -> bool {
        #[allow(clippy::iter_over_hash_type, reason = "any will do")]
        self.links.values().any(|link| link.dialled && link.peer.is_none())
    }

    fn server_information(&self) -> Vec<ServerInformation> {
        let peers = self.known.iter().filter(|(_, peer)| peer.status == Status::Active);
        peers
            .filter_map(|(registrar, peer)| {
                let transport = peer.transport.clone()?;
                Some(ServerInformation { registrar: *registrar, transport })
            })
            .collect()
    }

    /// Whether a connection to this address is being made.
    #[allow(clippy::iter_over_hash_type, reason = "any will do")]
    fn is_dialled(&self, address: &TransportAddress) -> bool {
        self.links.values().any(|link| !link.established && link.address.reaches_same(address))
    }

    /// Whether there is, or will be, a connection to this address.
    fn reaches(&self, address: &TransportAddress) -> bool {
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
    pub(super) fn accept_link(&mut self, now: Instant, address: TransportAddress) -> ConnectionId {
        let connection = self.out.name_connection();
        let host = host_of(&address);
        #[allow(clippy::iter_over_hash_type, reason = "they are counted")]
        let same = self.peers.links.values().filter(|link| host_of(&link.address) == host).count();
        if same >= MAX_LINKS_OF_HOST || self.peers.links.len() >= MAX_LINKS {
            self.hit(Limit::Peers, host);
            self.out.abort(connection);
        } else if self.takes_connection(host) {
            self.add_link(now, connection, address, LinkOrigin::Accepted);
            let deadline = now + self.config.first_message_timeout;
            self.timers.set(Timer::FirstMessage(connection), deadline);
        } else {
            self.out.abort(connection);
        }
        connection
    }

    fn add_link(
        &mut self,
        now: Instant,
        connection: ConnectionId,
        address: TransportAddress,
        origin: LinkOrigin,
    ) {
        let dialled = origin != LinkOrigin::Accepted;
        let link = Link {
            address,
            established: !dialled,
            dialled,
            peer: None,
            named: origin == LinkOrigin::Named,
            page: None,
            heard: now,
            complained: false,
        };
        self.peers.links.insert(connection, link);
    }

    /// Connects to a peer, unless we are connected to it.
    fn dial_peer(&mut self, now: Instant, address: &TransportAddress) {
        let ours = self.config.enrp.as_ref().is_some_and(|ours| ours.reaches_same(address));
        if !ours && !self.peers.reaches(address) {
            self.make_link(now, address, LinkOrigin::Dialled);
        }
    }

    /// Connects to an address that a peer named, of which so many are tried at a time.
    fn dial_named(&mut self, now: Instant, by: IpAddr, address: &TransportAddress) {
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

    fn make_link(&mut self, now: Instant, address: &TransportAddress, origin: LinkOrigin) {
        let full = self.peers.links.len() >= MAX_LINKS && !self.is_configured(address);
        if self.peers.is_dialled(address) || full {
            return;
        }
        let connection = self.out.connect(Ppid::ENRP, address.clone());
        self.add_link(now, connection, address.clone(), origin);
    }

    /// Whether an address is that of a configured peer's host.
    fn is_configured(&self, address: &TransportAddress) -> bool {
        self.config.peers.iter().any(|peer| peer.shares_address(address))
    }

    /// Whether a peer was configured, as far as its host tells.
    pub(super) fn is_configured_host(&self, host: IpAddr) -> bool {
        self.config.peers.iter().any(|peer| peer.addresses.contains(&host))
    }

    /// Connects to those peers that we should be connected to and are not.
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
        connection: ConnectionId,
        address: TransportAddress,
    ) {
        self.peers.silent.retain(|silent| !silent.reaches_same(&address));
        if let Some(link) = self.peers.links.get_mut(&connection) {
            link.established = true;
            link.address = address;
            self.send_presence(connection, RegistrarId(0), true);
        }
    }

    /// A connection is over, or was not to be had.
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
            // One that we dialled, and who should have been there.
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
        let lost = peer.connection.is_none() && peer.status != Status::Inactive;
        let again = link.peer.is_some() && (lost || *event == ConnectionEvent::Lost);
        if downloading {
            self.abandon_download(now, identifier);
        }
        match address {
            // A registrar that was killed refuses the connection, and is known to be dead. One
            // that lives may not know yet that this connection is over; it sends to us over the
            // new one from then on.
            Some(address) if again => self.make_link(now, &address, LinkOrigin::Dialled),
            _ if lost => self.handle_peer_dead(now, identifier),
            _ => {}
        }
    }

    pub(super) fn handle_enrp(&mut self, now: Instant, from: ConnectionId, message: &UserMessage) {
        match receive_enrp(&mut self.out, from, message, self.config.identifier) {
            Received::Message(body) => self.process_enrp(now, from, body),
            Received::Refused(reason) => self.complain_of_link(from, reason),
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
                self.complain_of_link(from, format!("reported an error: {}", error.error));
            }
            Body::Unknown(_) => {}
        }
    }

    /// Notes who is at the other end of a link. A peer that was not known is asked for its
    /// presence (RFC 5353 section 3.4.1). False where the message is not for us.
    fn identify(&mut self, now: Instant, from: ConnectionId, route: Route) -> bool {
        let ours = self.config.identifier;
        if route.sender == ours || route.sender == RegistrarId(0) {
            self.complain_of_link(from, format!("calls itself {}", route.sender));
            return false;
        }
        if route.receiver != ours && route.receiver != RegistrarId(0) {
            self.complain_of_link(from, format!("sent a message for {}", route.receiver));
            return false;
        }
        let Some(link) = self.peers.links.get_mut(&from) else { return false };
        link.heard = now;
        let (asked, new) = (link.dialled, link.peer.is_none());
        let address = link.address.clone();
        let host = host_of(&address);
        if link.peer.is_some_and(|peer| peer != route.sender) {
            self.complain_of_link(from, format!("changed its identifier to {}", route.sender));
            return false;
        }
        // Whoever connects may call itself as it likes, but not by the name of one that is at
        // another address.
        let known = self.peers.known.get(&route.sender);
        let elsewhere = known
            .and_then(|peer| peer.transport.as_ref())
            .is_some_and(|its| !asked && !its.shares_address(&address));
        if new && elsewhere {
            let reason = format!("calls itself {}, which is at another address", route.sender);
            self.complain_of_link(from, reason);
            return false;
        }
        if known.is_some() {
            self.heard(now, route.sender);
        } else if self.add_peer(now, route.sender, Some(host)) {
            if !asked {
                self.send_presence(from, route.sender, true);
            }
        } else {
            self.complain_of_link(from, "is one peer too many".to_owned());
            return false;
        }
        if let Some(link) = self.peers.links.get_mut(&from) {
            link.peer = Some(route.sender);
        }
        if let Some(peer) = self.peers.known.get_mut(&route.sender) {
            if new {
                peer.host = Some(host);
            }
            // If there is another one, this is newer, and perhaps the only one that works: unless
            // it is from somewhere else, which anyone could make.
            let newer =
                new && peer.transport.as_ref().is_some_and(|its| its.shares_address(&address));
            if peer.connection.is_none() || newer {
                peer.connection = Some(from);
            }
        }
        if new {
            self.out.event(Event::PeerConnected(route.sender, address));
        }
        self.consider_mentor(now, route.sender, from);
        true
    }

    /// Adds a peer to the list. If it is only said to be there, by `host`, it has to be heard in
    /// time, or its elements are taken over. False where there are too many.
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
            status: Status::Active,
            host,
            download: None,
            stale: true,
        };
        self.peers.known.insert(identifier, peer);
        self.timers.set(Timer::Peer(identifier), now + self.config.max_time_last_heard);
        self.out.event(Event::PeerFound(identifier, host));
        true
    }

    /// Whether there is room for another peer of this host: the host with the most has to give up
    /// one if this has clearly fewer.
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

    /// Whether a peer was heard so lately that it cannot be taken for dead.
    pub(super) fn is_heard(&self, now: Instant, identifier: RegistrarId) -> bool {
        self.peers.known.get(&identifier).is_some_and(|peer| {
            peer.status == Status::Active && now < peer.last_heard + self.config.max_time_last_heard
        })
    }

    /// A connection could not be made: told once where a peer was configured.
    fn note_silent(&mut self, address: &TransportAddress) {
        let silent = &mut self.peers.silent;
        if self.config.peers.contains(address) && !silent.contains(address) {
            silent.push(address.clone());
            self.out.event(Event::PeerSilent(address.clone()));
        }
    }

    fn forget_link(&mut self, connection: ConnectionId) -> Option<Link> {
        self.timers.cancel(Timer::FirstMessage(connection));
        self.timers.cancel(Timer::Page(connection));
        let link = self.peers.links.remove(&connection)?;
        if !link.dialled {
            self.shares.close_connection(host_of(&link.address));
        }
        Some(link)
    }

    fn heard(&mut self, now: Instant, identifier: RegistrarId) {
        let Some(peer) = self.peers.known.get_mut(&identifier) else { return };
        peer.last_heard = now;
        if peer.status == Status::Suspected {
            peer.status = Status::Active;
            self.timers.set(Timer::Peer(identifier), now + self.config.max_time_last_heard);
        }
    }

    /// Forgets a peer that is dead, and closes the connections to it: if it lives after all, it
    /// learns that it has missed something.
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
        self.out.event(Event::PeerLost(identifier, peer.host));
        self.handle_mentor_refused(now, identifier);
    }

    pub(super) fn complain_of_link(&mut self, about: ConnectionId, reason: String) {
        if let Some(link) = self.peers.links.get_mut(&about)
            && !std::mem::replace(&mut link.complained, true)
        {
            self.out.event(Event::Misbehaved { peer: link.address.clone(), reason });
        }
    }

    pub(super) fn route(&self, receiver: RegistrarId) -> Route {
        Route { sender: self.config.identifier, receiver }
    }

    /// The presence for a host, or for everyone.
    fn presence(
        &self,
        to: Option<IpAddr>,
        receiver: RegistrarId,
        reply_required: bool,
    ) -> Presence {
        let registrar = self.config.identifier;
        let transport = self.config.enrp.clone();
        Presence {
            reply_required,
            route: self.route(receiver),
            checksum: Some(self.checksum_for(to)),
            server: transport.map(|transport| ServerInformation { registrar, transport }),
        }
    }

    fn send_presence(&mut self, to: ConnectionId, receiver: RegistrarId, reply_required: bool) {
        let host = self.peers.host_of_link(to);
        let presence = self.presence(host, receiver, reply_required);
        self.out.send_enrp(to, presence);
    }

    /// PEER-HEARTBEAT-CYCLE is over: our presence goes to all peers (RFC 5353 section 3.4.2).
    pub(super) fn handle_heartbeat(&mut self, now: Instant) {
        self.close_surplus_links();
        self.announce_presence();
        self.dial_peers(now);
        self.ask_for_others();
        let cycle = self.spread_a_little(self.config.heartbeat);
        self.timers.set(Timer::Heartbeat, now + cycle);
    }

    /// Where two registrars connected to each other at a time, the smaller identifier closes what
    /// is not needed.
    fn close_surplus_links(&mut self) {
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
            // What it sends over this link is lost.
            peer.stale = true;
            self.forget_link(connection);
            self.out.close(connection);
        }
    }

    /// Asks one peer for those that it knows: some may have been out of reach when we joined, or
    /// joined while we were.
    fn ask_for_others(&mut self) {
        let peers: Vec<_> = self.peers.active().collect();
        if self.knows_others() && !peers.is_empty() {
            let (peer, connection) = peers[self.rng.random_range(0..peers.len())];
            let route = self.route(peer);
            self.out.send_enrp(connection, enrp::ListRequest { route });
        }
    }

    /// Tells all peers that we are there.
    pub(super) fn announce_presence(&mut self) {
        let peers: Vec<_> =
            self.peers.known.iter().map(|(id, peer)| (*id, peer.connection)).collect();
        for (identifier, connection) in peers {
            if let Some(connection) = connection {
                self.send_presence(connection, identifier, false);
            }
        }
        if self.config.multicast_presence {
            let presence = enrp::Message::from(self.presence(None, RegistrarId(0), false));
            match presence.encode() {
                Ok(payload) => self.out.announce(UserMessage::new(Ppid::ENRP, payload)),
                Err(error) => tracing::warn!(%error, "the presence is too long"),
            }
        }
    }

    fn handle_presence(&mut self, now: Instant, from: ConnectionId, presence: Presence) {
        let sender = presence.route.sender;
        let Some(peer) = self.peers.known.get_mut(&sender) else { return };
        if let Some(server) = presence.server
            && server.registrar == sender
        {
            peer.transport = Some(server.transport);
        }
        if matches!(peer.status, Status::TakingOver { .. } | Status::Inactive) {
            // It lives, whoever wanted its elements (RFC 5353 section 3.5.1).
            peer.status = Status::Active;
            self.timers.set(Timer::Peer(sender), now + self.config.max_time_last_heard);
        }
        if presence.reply_required {
            self.send_presence(from, sender, false);
        }
        if let Some(checksum) = presence.checksum {
            self.audit(now, sender, checksum);
        }
    }

    /// A registrar told everyone that it is there. One that we do not know is asked who it is.
    pub(super) fn handle_multicast_presence(
        &mut self,
        now: Instant,
        source: &TransportAddress,
        message: &UserMessage,
    ) {
        let Ok(message) = enrp::Message::decode(&message.payload) else { return };
        let Body::Presence(presence) = message.body else { return };
        let sender = presence.route.sender;
        let Some(server) = presence.server else { return };
        let ours = self.config.identifier;
        if self.config.enrp.is_none() || [ours, RegistrarId(0)].contains(&sender) {
            return;
        }
        if self.peers.known.contains_key(&sender) {
            return self.heard(now, sender);
        }
        // Its addresses are its own affair, but that it can be reached where this came from is
        // known.
        let mut address = server.transport;
        if address.protocol != source.protocol {
            return;
        }
        if !address.addresses.iter().any(|its| source.addresses.contains(its)) {
            address.addresses.clone_from(&source.addresses);
        }
        self.dial_named(now, host_of(source), &address);
    }

    fn handle_list_request(&mut self, from: ConnectionId, sender: RegistrarId) {
        let mut servers = self.peers.server_information();
        servers.retain(|server| server.registrar != sender);
        let reject = !self.knows_others();
        if reject {
            servers.clear();
        }
        let response = enrp::ListResponse { reject, route: self.route(sender), servers };
        if let Err(error) = self.out.try_send_enrp(from, response) {
            self.complain_of_link(from, format!("the peer list does not fit: {error}"));
        }
    }

    fn handle_list_response(&mut self, now: Instant, from: ConnectionId, list: enrp::ListResponse) {
        let Some(host) = self.peers.host_of_link(from) else { return };
        for server in list.servers {
            let ours = self.config.identifier;
            if server.registrar != ours && !self.peers.known.contains_key(&server.registrar) {
                // It counts as a peer once it says so itself.
                self.dial_named(now, host, &server.transport);
            }
        }
        if list.reject {
            self.handle_mentor_refused(now, list.route.sender);
        }
    }

    /// It is time to look whether a peer is still there (RFC 5353 section 3.4.3).
    pub(super) fn handle_peer_timer(&mut self, now: Instant, identifier: RegistrarId) {
        let Some(peer) = self.peers.known.get_mut(&identifier) else { return };
        let silent_from = peer.last_heard + self.config.max_time_last_heard;
        match &peer.status {
            Status::Active if now < silent_from => {
                self.timers.set(Timer::Peer(identifier), silent_from);
            }
            Status::Active | Status::Inactive => {
                // One that nobody took over after all is looked after again.
                peer.status = Status::Suspected;
                let deadline = now + self.config.max_time_no_response;
                self.timers.set(Timer::Peer(identifier), deadline);
                match (peer.connection, peer.transport.clone()) {
                    (Some(connection), _) => self.send_presence(connection, identifier, true),
                    (None, Some(address)) => self.dial_peer(now, &address),
                    (None, None) => {}
                }
            }
            Status::Suspected => self.handle_peer_dead(now, identifier),
            Status::TakingOver { .. } => self.begin_takeover(now, identifier),
        }
    }
}
