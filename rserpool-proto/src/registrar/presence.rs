//! Discovery and liveness of registrars: presence and lists (RFC 5353 sections 3.2.2 and 3.4).

use std::net::IpAddr;
use std::time::Instant;

use rand::RngExt;

use super::peer_state::TimerAction;
use super::{Event, Registrar, Timer};
use crate::ConnectionId;
use crate::compatibility::ENRP_PORT;
use crate::wire::enrp::{self, Body, Presence};
use crate::wire::{Ppid, RegistrarId, ServerInformation, TransportAddress, UserMessage};

impl Registrar {
    /// Creates an ENRP_PRESENCE message to the registrar `receiver` on the host `to`, or for
    /// multicast if `to` is `None`.
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

    pub(super) fn send_presence(
        &mut self,
        to: ConnectionId,
        receiver: RegistrarId,
        reply_required: bool,
    ) {
        let host = self.peers.host_of_link(to);
        let presence = self.presence(host, receiver, reply_required);
        self.out.send_enrp(to, presence);
    }

    /// Sends this registrar's presence to all peers at the end of PEER-HEARTBEAT-CYCLE (RFC 5353
    /// section 3.4.2).
    pub(super) fn handle_heartbeat(&mut self, now: Instant) {
        self.close_surplus_links();
        self.announce_presence();
        self.dial_peers(now);
        self.ask_for_others();
        let cycle = self.spread_a_little(self.config.heartbeat().cycle);
        self.timers.set(Timer::Heartbeat, now + cycle);
    }

    /// Asks one peer for the peers that it knows: some may have been unreachable while this
    /// registrar joined, or may have joined while this registrar was unreachable.
    fn ask_for_others(&mut self) {
        let peers: Vec<_> = self.peers.active().collect();
        if self.knows_others() && !peers.is_empty() {
            let (peer, connection) = peers[self.rng.rng().random_range(0..peers.len())];
            let route = self.route(peer);
            self.out.send_enrp(connection, enrp::ListRequest { route });
        }
    }

    /// Sends this registrar's presence to all peers.
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
                Err(error) => tracing::warn!(%error, "cannot encode the presence"),
            }
        }
    }

    pub(super) fn handle_presence(&mut self, now: Instant, from: ConnectionId, presence: Presence) {
        let sender = presence.route.sender;
        let Some(peer) = self.peers.known.get_mut(&sender) else { return };
        if let Some(server) = presence.server
            && server.registrar == sender
        {
            let first = peer.transport.replace(server.transport).is_none();
            let link = self.peers.links.get(&from).filter(|link| first && !link.dialled);
            if let Some(link) = link {
                self.out.event(Event::PeerConnected(sender, link.address.clone()));
            }
        }
        // A presence proves that the peer is alive, even if it was to be taken over (RFC 5353
        // section 3.5.1).
        if peer.state.revive() {
            self.timers.set(Timer::Peer(sender), now + self.config.heartbeat().max_last_heard);
        }
        if presence.reply_required {
            self.send_presence(from, sender, false);
        }
        if let Some(checksum) = presence.checksum {
            self.audit(now, sender, checksum);
        }
    }

    /// Handles a presence message by multicast. Connects to the sender if it is unknown.
    pub(super) fn handle_multicast_presence(
        &mut self,
        now: Instant,
        source: &TransportAddress,
        message: &UserMessage,
    ) {
        let Ok(message) = enrp::Message::decode(&message.payload) else { return };
        let Body::Presence(presence) = message.body else { return };
        let sender = presence.route.sender;
        let ours = self.config.identifier;
        if self.config.enrp.is_none() || [ours, RegistrarId(0)].contains(&sender) {
            return;
        }
        if !self.allows_registrar_at(source.host()) {
            return;
        }
        if let Some(peer) = self.peers.known.get(&sender) {
            // A multicast message is not authenticated: it proves nothing about an authenticated
            // peer.
            if peer.party.is_none() {
                self.heard(now, sender);
            }
            return;
        }
        // The sender chooses which addresses it announces, but it is known to be reachable at the
        // source of the message.
        let mut address = match presence.server {
            Some(server) => server.transport,
            // The default port (RFC 5353 section 5.3).
            None => TransportAddress { port: ENRP_PORT, ..source.clone() },
        };
        if address.protocol != source.protocol {
            return;
        }
        if !address.addresses.iter().any(|its| source.addresses.contains(its)) {
            address.addresses.clone_from(&source.addresses);
        }
        self.dial_named(now, source.host(), &address);
    }

    /// Handles the timer of a peer: checks whether it is still alive (RFC 5353 section 3.4.3).
    pub(super) fn handle_peer_timer(&mut self, now: Instant, identifier: RegistrarId) {
        let Some(peer) = self.peers.known.get_mut(&identifier) else { return };
        let silent_from = peer.last_heard + self.config.heartbeat().max_last_heard;
        match peer.state.handle_timer(now < silent_from) {
            TimerAction::Wait => self.timers.set(Timer::Peer(identifier), silent_from),
            TimerAction::Ask => {
                let deadline = now + self.config.heartbeat().max_no_response;
                self.timers.set(Timer::Peer(identifier), deadline);
                match (peer.connection, peer.transport.clone()) {
                    (Some(connection), _) => self.send_presence(connection, identifier, true),
                    (None, Some(address)) => self.dial_peer(now, &address),
                    (None, None) => {}
                }
            }
            TimerAction::Dead => self.handle_peer_dead(now, identifier),
            TimerAction::AskAgain => self.begin_takeover(now, identifier),
        }
    }

    pub(super) fn handle_list_request(&mut self, from: ConnectionId, sender: RegistrarId) {
        let mut servers = self.peers.server_information();
        servers.retain(|server| server.registrar != sender);
        let reject = !self.knows_others();
        if reject {
            servers.clear();
        }
        let response = enrp::ListResponse { reject, route: self.route(sender), servers };
        if let Err(error) = self.out.try_send_enrp(from, response) {
            self.report_link(from, format!("cannot send the peer list: {error}"));
        }
    }

    pub(super) fn handle_list_response(
        &mut self,
        now: Instant,
        from: ConnectionId,
        list: enrp::ListResponse,
    ) {
        let Some(host) = self.peers.host_of_link(from) else { return };
        for server in list.servers {
            let ours = self.config.identifier;
            if server.registrar != ours && !self.peers.known.contains_key(&server.registrar) {
                // The named registrar becomes a peer once it has identified itself.
                self.dial_named(now, host, &server.transport);
            }
        }
        if list.reject {
            self.handle_mentor_refused(now, list.route.sender);
        }
    }
}
