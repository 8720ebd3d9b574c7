//! The other registrars of the operational scope (RFC 5353 section 3.4).

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use super::table::Page;
use super::{Event, Registrar, Timer};
use crate::protocol::{ConnectionId, Received, receive_enrp};
use crate::wire::enrp::{self, Body, Presence, Route};
use crate::wire::{RegistrarId, ServerInformation, TransportAddress, UserMessage};

/// The most peers; ours, since anyone can claim to be one.
const MAX_PEERS: usize = 1024;

/// The peer list, and the connections to peers.
#[derive(Debug, Default)]
pub(super) struct Peers {
    known: BTreeMap<RegistrarId, Peer>,
    links: HashMap<ConnectionId, Link>,
}

/// A registrar that we know.
#[derive(Debug)]
struct Peer {
    /// Where it offers ENRP, if it said so.
    transport: Option<TransportAddress>,
    connection: Option<ConnectionId>,
}

/// A connection to a peer.
#[derive(Debug)]
pub(super) struct Link {
    address: TransportAddress,
    /// Who is at its other end, once it said so.
    peer: Option<RegistrarId>,
    /// The download that is going on over it.
    pub(super) page: Option<Page>,
    complained: bool,
}

impl Peers {
    pub(super) fn has_link(&self, connection: ConnectionId) -> bool {
        self.links.contains_key(&connection)
    }

    pub(super) fn link_mut(&mut self, connection: ConnectionId) -> Option<&mut Link> {
        self.links.get_mut(&connection)
    }

    fn server_information(&self) -> Vec<ServerInformation> {
        let peers = self.known.iter();
        peers
            .filter_map(|(registrar, peer)| {
                let transport = peer.transport.clone()?;
                Some(ServerInformation { registrar: *registrar, transport })
            })
            .collect()
    }
}

impl Registrar {
    pub(super) fn accept_link(&mut self, now: Instant, address: TransportAddress) -> ConnectionId {
        let connection = self.out.name_connection();
        let link = Link { address, peer: None, page: None, complained: false };
        self.peers.links.insert(connection, link);
        self.timers.set(Timer::FirstMessage(connection), now + self.config.first_message_timeout);
        connection
    }

    pub(super) fn handle_link_over(&mut self, connection: ConnectionId) {
        self.timers.cancel(Timer::FirstMessage(connection));
        self.timers.cancel(Timer::Download(connection));
        let Some(link) = self.peers.links.remove(&connection) else { return };
        let Some(identifier) = link.peer else { return };
        if self.peers.known.get(&identifier).is_some_and(|peer| peer.connection == Some(connection))
        {
            self.peers.known.remove(&identifier);
            self.out.event(Event::PeerLost(identifier));
        }
    }

    pub(super) fn handle_enrp(&mut self, now: Instant, from: ConnectionId, message: &UserMessage) {
        match receive_enrp(&mut self.out, from, message, self.config.identifier) {
            Received::Message(body) => self.process_enrp(now, from, body),
            Received::Refused(reason) => self.complain_of_link(from, reason),
        }
    }

    #[allow(clippy::wildcard_enum_match_arm, reason = "all others are not asked for")]
    fn process_enrp(&mut self, now: Instant, from: ConnectionId, body: Body) {
        let Some(route) = body.route() else { return };
        if !self.identify(from, route) {
            return;
        }
        self.timers.cancel(Timer::FirstMessage(from));
        match body {
            Body::Presence(presence) => self.handle_presence(from, presence),
            Body::ListRequest(_) => self.handle_list_request(from, route.sender),
            Body::HandleTableRequest(request) => {
                self.handle_handle_table_request(now, from, &request);
            }
            Body::Error(error) => {
                self.complain_of_link(from, format!("reported an error: {}", error.error));
            }
            other => {
                let name = crate::wire::Body::name(&other);
                self.complain_of_link(from, format!("sent {name}, which was not asked for"));
            }
        }
    }

    /// Notes who is at the other end of a link. A peer that was not known is asked for its
    /// presence (RFC 5353 section 3.4.1). False where the message is not for us.
    fn identify(&mut self, from: ConnectionId, route: Route) -> bool {
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
        if *link.peer.get_or_insert(route.sender) != route.sender {
            self.complain_of_link(from, format!("changed its identifier to {}", route.sender));
            return false;
        }
        if let Some(peer) = self.peers.known.get_mut(&route.sender) {
            peer.connection.get_or_insert(from);
            return true;
        }
        if self.peers.known.len() >= MAX_PEERS {
            self.complain_of_link(from, "is one peer too many".to_owned());
            return false;
        }
        let peer = Peer { transport: None, connection: Some(from) };
        self.peers.known.insert(route.sender, peer);
        self.out.event(Event::PeerFound(route.sender));
        self.send_presence(from, route.sender, true);
        true
    }

    fn complain_of_link(&mut self, about: ConnectionId, reason: String) {
        if let Some(link) = self.peers.links.get_mut(&about)
            && !std::mem::replace(&mut link.complained, true)
        {
            self.out.event(Event::Misbehaved { peer: link.address.clone(), reason });
        }
    }

    pub(super) fn route(&self, receiver: RegistrarId) -> Route {
        Route { sender: self.config.identifier, receiver }
    }

    fn send_presence(&mut self, to: ConnectionId, receiver: RegistrarId, reply_required: bool) {
        let registrar = self.config.identifier;
        let checksum = self.handlespace.checksum(registrar);
        let presence = Presence {
            reply_required,
            route: self.route(receiver),
            checksum: Some(self.config.compatibility.checksum(checksum)),
            server: self
                .config
                .enrp
                .clone()
                .map(|transport| ServerInformation { registrar, transport }),
        };
        self.out.send_enrp(to, presence).expect("as many addresses as a host has fit");
    }

    fn handle_presence(&mut self, from: ConnectionId, presence: Presence) {
        let sender = presence.route.sender;
        if let (Some(peer), Some(server)) = (self.peers.known.get_mut(&sender), presence.server)
            && server.registrar == sender
        {
            peer.transport = Some(server.transport);
        }
        if presence.reply_required {
            self.send_presence(from, sender, false);
        }
    }

    fn handle_list_request(&mut self, from: ConnectionId, sender: RegistrarId) {
        let mut servers = self.peers.server_information();
        servers.retain(|server| server.registrar != sender);
        let route = self.route(sender);
        let response = enrp::ListResponse { reject: false, route, servers };
        if let Err(error) = self.out.send_enrp(from, response) {
            self.complain_of_link(from, format!("the peer list does not fit: {error}"));
        }
    }
}
