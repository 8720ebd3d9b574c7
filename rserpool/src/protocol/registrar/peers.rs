//! The other registrars of the operational scope: the peer list, presence, and the detection of
//! failures (RFC 5353 section 3.4).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Instant;

use rand::RngExt;

use super::table::Page;
use super::{Event, Registrar, Timer};
use crate::protocol::{ConnectionEvent, ConnectionId, Received, receive_enrp};
use crate::wire::enrp::{self, Body, Presence, Route};
use crate::wire::{Ppid, RegistrarId, ServerInformation, TransportAddress, UserMessage};

/// The most peers; ours, since anyone can claim to be one.
const MAX_PEERS: usize = 1024;

/// The peer list, and the connections to peers.
#[derive(Debug, Default)]
pub(super) struct Peers {
    pub(super) known: BTreeMap<RegistrarId, Peer>,
    links: HashMap<ConnectionId, Link>,
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
    /// The connection over which we download its elements.
    pub(super) download: Option<ConnectionId>,
    /// Whether updates of it may have been lost, which a checksum need not show: we did not
    /// know it yet, or a connection to it broke.
    pub(super) stale: bool,
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
    },
    /// Dead, as another says who takes over its elements.
    Inactive,
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
    /// What it is asked for page by page.
    pub(super) page: Option<Page>,
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
        self.add_link(connection, address, false);
        self.timers.set(Timer::FirstMessage(connection), now + self.config.first_message_timeout);
        connection
    }

    fn add_link(&mut self, connection: ConnectionId, address: TransportAddress, dialled: bool) {
        let established = !dialled;
        let link =
            Link { address, established, dialled, peer: None, page: None, complained: false };
        self.peers.links.insert(connection, link);
    }

    /// Connects to a peer, unless we are connected to it.
    fn dial_peer(&mut self, address: &TransportAddress) {
        let ours = self.config.enrp.as_ref().is_some_and(|ours| ours.reaches_same(address));
        if !ours && !self.peers.reaches(address) {
            self.make_link(address);
        }
    }

    fn make_link(&mut self, address: &TransportAddress) {
        if self.peers.is_dialled(address) || self.peers.links.len() >= 2 * MAX_PEERS {
            return;
        }
        let connection = self.out.connect(Ppid::ENRP, address.clone());
        self.add_link(connection, address.clone(), true);
    }

    /// Connects to those peers that we should be connected to and are not.
    pub(super) fn dial_peers(&mut self) {
        let unconnected = self.peers.known.values().filter(|peer| peer.connection.is_none());
        let mut addresses: Vec<_> = unconnected.filter_map(|peer| peer.transport.clone()).collect();
        addresses.extend(self.config.peers.iter().cloned());
        for address in addresses {
            self.dial_peer(&address);
        }
    }

    pub(super) fn handle_link_established(
        &mut self,
        connection: ConnectionId,
        address: TransportAddress,
    ) {
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
        let Some(link) = self.peers.links.remove(&connection) else { return };
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
        let downloading = peer.download == Some(connection);
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
            Some(address) if again => self.make_link(&address),
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
            Body::ListResponse(list) => self.handle_list_response(now, list),
            Body::HandleTableRequest(request) => {
                self.handle_handle_table_request(now, from, &request);
            }
            Body::HandleTableResponse(page) => self.handle_handle_table_response(now, from, page),
            Body::HandleUpdate(update) => self.handle_handle_update(now, update),
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
        let asked = link.dialled;
        let new = link.peer.is_none();
        let address = new.then(|| link.address.clone());
        if *link.peer.get_or_insert(route.sender) != route.sender {
            self.complain_of_link(from, format!("changed its identifier to {}", route.sender));
            return false;
        }
        if self.peers.known.contains_key(&route.sender) {
            self.heard(now, route.sender);
        } else if self.add_peer(now, route.sender, None) {
            if !asked {
                self.send_presence(from, route.sender, true);
            }
        } else {
            self.complain_of_link(from, "is one peer too many".to_owned());
            return false;
        }
        if let Some(peer) = self.peers.known.get_mut(&route.sender) {
            // If there is another one, this is newer, and perhaps the only one that works: unless
            // it is from somewhere else, which anyone could make.
            let from_there = peer.transport.as_ref().zip(address);
            let newer = from_there.is_some_and(|(its, address)| its.shares_address(&address));
            if peer.connection.is_none() || newer {
                peer.connection = Some(from);
            }
        }
        self.consider_mentor(now, route.sender, from);
        true
    }

    /// Adds a peer to the list. If it is only said to be there, it has to be heard in time, or
    /// its elements are taken over. False where there are too many.
    pub(super) fn add_peer(
        &mut self,
        now: Instant,
        identifier: RegistrarId,
        transport: Option<TransportAddress>,
    ) -> bool {
        if self.peers.known.len() >= MAX_PEERS {
            return false;
        }
        let peer = Peer {
            transport,
            connection: None,
            last_heard: now,
            status: Status::Active,
            download: None,
            stale: true,
        };
        self.peers.known.insert(identifier, peer);
        self.timers.set(Timer::Peer(identifier), now + self.config.max_time_last_heard);
        self.out.event(Event::PeerFound(identifier));
        true
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
        if self.peers.known.remove(&identifier).is_none() {
            return;
        }
        self.timers.cancel(Timer::Peer(identifier));
        self.timers.cancel(Timer::Download(identifier));
        let links = self.peers.links.iter().filter(|(_, link)| link.peer == Some(identifier));
        let mut links: Vec<_> = links.map(|(connection, _)| *connection).collect();
        links.sort_unstable();
        for connection in links {
            self.peers.links.remove(&connection);
            self.timers.cancel(Timer::Page(connection));
            self.out.close(connection);
        }
        self.out.event(Event::PeerLost(identifier));
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

    fn presence(&self, receiver: RegistrarId, reply_required: bool) -> Presence {
        let registrar = self.config.identifier;
        let checksum = self.handlespace.checksum(registrar);
        let transport = self.config.enrp.clone();
        Presence {
            reply_required,
            route: self.route(receiver),
            checksum: Some(self.config.compatibility.checksum(checksum)),
            server: transport.map(|transport| ServerInformation { registrar, transport }),
        }
    }

    fn send_presence(&mut self, to: ConnectionId, receiver: RegistrarId, reply_required: bool) {
        let presence = self.presence(receiver, reply_required);
        self.out.send_enrp(to, presence).expect("as many addresses as a host has fit");
    }

    /// PEER-HEARTBEAT-CYCLE is over: our presence goes to all peers (RFC 5353 section 3.4.2).
    pub(super) fn handle_heartbeat(&mut self, now: Instant) {
        self.close_surplus_links();
        self.announce_presence();
        self.dial_peers();
        self.ask_for_others();
        let cycle = self.spread_a_little(self.config.heartbeat);
        self.timers.set(Timer::Heartbeat, now + cycle);
    }

    /// Where two registrars connected to each other at a time, the smaller identifier closes what
    /// is not needed.
    fn close_surplus_links(&mut self) {
        let ours = self.config.identifier;
        let used: BTreeSet<_> =
            self.peers.known.values().flat_map(|peer| [peer.connection, peer.download]).collect();
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
            self.peers.links.remove(&connection);
            self.timers.cancel(Timer::Page(connection));
            self.out.close(connection);
        }
    }

    /// Asks one peer for those that it knows: some may have been out of reach when we joined, or
    /// joined while we were.
    fn ask_for_others(&mut self) {
        let peers: Vec<_> = self.peers.active().collect();
        if self.is_ready() && !peers.is_empty() {
            let (peer, connection) = peers[self.rng.random_range(0..peers.len())];
            let route = self.route(peer);
            self.out.send_enrp(connection, enrp::ListRequest { route }).expect("it is short");
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
            let presence = enrp::Message::from(self.presence(RegistrarId(0), false));
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
        self.dial_peer(&address);
    }

    fn handle_list_request(&mut self, from: ConnectionId, sender: RegistrarId) {
        let mut servers = self.peers.server_information();
        servers.retain(|server| server.registrar != sender);
        let reject = !self.is_ready();
        if reject {
            servers.clear();
        }
        let response = enrp::ListResponse { reject, route: self.route(sender), servers };
        if let Err(error) = self.out.send_enrp(from, response) {
            self.complain_of_link(from, format!("the peer list does not fit: {error}"));
        }
    }

    fn handle_list_response(&mut self, now: Instant, list: enrp::ListResponse) {
        for server in list.servers {
            let ours = self.config.identifier;
            if server.registrar != ours && !self.peers.known.contains_key(&server.registrar) {
                // It counts as a peer once it says so itself.
                self.dial_peer(&server.transport);
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
                    (None, Some(address)) => self.dial_peer(&address),
                    (None, None) => {}
                }
            }
            Status::Suspected => self.handle_peer_dead(now, identifier),
            Status::TakingOver { .. } => self.begin_takeover(now, identifier),
        }
    }
}
