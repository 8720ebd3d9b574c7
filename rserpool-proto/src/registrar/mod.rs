//! The registrar: ASAP as the server (RFC 5352 section 3), and ENRP (RFC 5353).

mod announce;
mod config;
mod counters;
mod denial;
mod dials;
mod distance;
mod event;
mod keep_alive;
mod leave;
mod links;
mod membership;
mod mentor;
mod operator;
mod owners;
mod peer_state;
mod peers;
mod presence;
mod reconfigure;
mod registration;
mod resolution;
mod rivals;
mod scope;
mod shares;
mod stall;
mod status;
mod subscription;
mod table;
mod takeover;
mod update;

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use rand::RngExt;

use super::{
    ConnectionEvent, ConnectionId, Machine, Outbox, Output, Received, Timers, announcement,
    receive_from_client,
};
use crate::Identity;
use crate::access::AccessRole;
use crate::handlespace::{ElementKey, Handlespace};
use crate::policy::RandomSource;
use crate::wire::{
    ErrorCause, PoolHandle, Ppid, RegistrarId, TransportAddress, UserMessage, asap, asap::Body,
    enrp::UpdateAction,
};
use announce::Announcements;
use dials::Dials;
use leave::Leaving;
use membership::{Client, Membership, Origin};
use mentor::Joining;
use owners::Owners;
use peers::Peers;
use registration::Claimant;
use rivals::Rivals;
use shares::Shares;
use stall::Stall;
use subscription::Subscriptions;

pub use config::RegistrarConfig;
pub use counters::RegistrarCounters;
pub use event::{Denial, ElementName, Event, RemovalReason};
pub use operator::{ElementForecast, Forecast, NotHome};
pub use shares::{Limit, Limits};
pub use status::{ElementStatus, PeerCondition, PeerStatus, PoolStatus, RegistrarStatus};

/// A registrar: it keeps the handlespace, supervises its elements and answers resolutions.
#[derive(Debug)]
pub struct Registrar {
    config: RegistrarConfig,
    rng: RandomSource,
    handlespace: Handlespace<Membership>,
    connections: HashMap<ConnectionId, Client>,
    dials: Dials,
    /// For each element, the waiting registration that its host sent over another connection while
    /// the element's own connection still counts as open.
    claimants: HashMap<ElementKey, Claimant>,
    announcements: Announcements,
    peers: Peers,
    /// Elements that peers announced but that cannot join the pool with their handle, since the
    /// pool has another policy or transport. They are kept in case that pool is removed.
    rivals: Rivals,
    joining: Joining,
    mentor_is_slow: bool,
    /// True if the registrar answers that unknown pools do not exist: elements have had time to
    /// register.
    ready: bool,
    /// Resolutions of unknown pools that wait until this registrar is ready.
    deferred: Vec<(ConnectionId, asap::HandleResolution)>,
    shares: Shares,
    owners: Owners,
    counters: RegistrarCounters,
    /// The elements whose addresses have host or link scope.
    near: BTreeSet<ElementKey>,
    /// The elements of this registrar that an operator drains: they stay, and are told to nobody.
    drained: BTreeSet<ElementKey>,
    subscriptions: Subscriptions,
    leaving: Leaving,
    stall: Stall,
    /// Connections over which more keep-alives can be sent, and pools that lost their last element.
    /// Both are processed at the end of each input.
    unblocked: BTreeSet<ConnectionId>,
    vacated: Vec<PoolHandle>,
    timers: Timers<Timer>,
    out: Outbox<Event>,
}

/// The time for which the registrar keeps unused memory, which it may need again soon.
const TIDY_AFTER: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Timer {
    Announce,
    /// Deadline for an element to answer over its own connection, after its host registered it over
    /// another one.
    Claimant(ElementKey),
    /// Deadline for the first message on an ENRP connection that was accepted.
    FirstMessage(ConnectionId),
    /// Deadline for a peer to ask for the next page of the handlespace over this connection.
    Page(ConnectionId),
    /// Deadline for this peer to send the next page of its handlespace.
    Download(RegistrarId),
    Heartbeat,
    /// Deadline for other registrars to take over the elements of this one.
    Leave,
    /// Check whether a host still uses its allowance.
    Host(IpAddr),
    Mentor,
    NextMentor,
    Peer(RegistrarId),
    /// Deadline for elements to find this registrar; after that, unknown pools do not exist.
    Ready,
    /// Unused memory is to be released.
    Tidy,
    /// Subscribers of a pool that changed may be notified again.
    Subscriptions,
    KeepAlive(ElementKey),
    /// An element that its home registrar does not have is to be removed, unless another registrar
    /// announced it.
    Denied(ElementKey),
}

impl Registrar {
    /// Creates a registrar with an empty handlespace. `seed` determines all random choices,
    /// including the identifier unless `config` has one.
    #[must_use]
    pub fn new(mut config: RegistrarConfig, seed: u64) -> Self {
        let mut rng = RandomSource::from_seed(seed);
        if config.identifier == RegistrarId(0) {
            config.identifier = RegistrarId(rng.rng().random_range(1..=u32::MAX));
        }
        Self {
            rng,
            handlespace: Handlespace::new(config.policies.clone(), config.limits.elements),
            connections: HashMap::new(),
            dials: Dials::default(),
            claimants: HashMap::new(),
            announcements: Announcements::default(),
            peers: Peers::default(),
            rivals: Rivals::default(),
            joining: Joining::Done,
            mentor_is_slow: false,
            ready: false,
            deferred: Vec::new(),
            shares: Shares::default(),
            owners: Owners::default(),
            counters: RegistrarCounters::default(),
            near: BTreeSet::new(),
            drained: BTreeSet::new(),
            subscriptions: Subscriptions::default(),
            leaving: Leaving::No,
            stall: Stall::default(),
            unblocked: BTreeSet::new(),
            vacated: Vec::new(),
            timers: Timers::new(),
            out: Outbox::new(config.compatibility),
            config,
        }
    }

    /// Returns the registrar's identifier.
    #[must_use]
    pub fn identifier(&self) -> RegistrarId {
        self.config.identifier
    }

    fn take_message(&mut self, now: Instant, from: ConnectionId, message: &UserMessage) {
        if self.peers.has_link(from) {
            self.counters.enrp_messages += 1;
            return self.handle_enrp(now, from, message);
        }
        let Some(client) = self.connections.get_mut(&from) else { return };
        client.heard = now;
        let host = client.host;
        match receive_from_client(&mut self.out, from, message) {
            Ok(Received::Message(body)) => {
                self.process(now, from, body);
            }
            Ok(Received::Refused(reason)) => self.report_misbehavior(from, reason),
            Err(bad) => {
                let allowed = self.allows(now, host, Limit::Registrations);
                let cause = if allowed { bad.cause } else { ErrorCause::LackOfResources };
                self.report_misbehavior(from, bad.reason);
                self.refuse(from, &bad.pool_handle, bad.identifier, cause);
            }
        }
    }

    fn take_connection_event(
        &mut self,
        now: Instant,
        connection: ConnectionId,
        event: ConnectionEvent,
    ) {
        match event {
            ConnectionEvent::Established { peer: address, identity, .. } => {
                if self.peers.has_link(connection) {
                    return self.handle_link_established(now, connection, address, identity);
                }
                let Some(peer) = self.connections.get_mut(&connection) else { return };
                self.dials.end(&peer.address);
                peer.permissions = self.config.access.permissions(peer.host, identity.as_ref());
                peer.party = identity.as_ref().map(Identity::party);
                (peer.address, peer.identity) = (address, identity);
                peer.origin = Origin::Dialled;
                for key in peer.elements.clone() {
                    self.handle_element_connected(now, key, connection);
                }
                self.dial_waiting(now);
            }
            ConnectionEvent::Addresses { peer, .. } => {
                if let Some(client) = self.connections.get_mut(&connection) {
                    client.address = peer;
                }
            }
            event @ (ConnectionEvent::Closed
            | ConnectionEvent::Lost
            | ConnectionEvent::Refused
            | ConnectionEvent::Impossible) => {
                if self.peers.has_link(connection) {
                    return self.handle_link_over(now, connection, &event);
                }
                let Some(peer) = self.forget_connection(connection) else { return };
                for key in peer.elements {
                    self.handle_element_disconnected(now, key, peer.origin, &event);
                }
                self.dial_waiting(now);
                self.leave_if_alone();
            }
        }
    }

    #[allow(clippy::wildcard_enum_match_arm, reason = "all other messages are not for registrars")]
    fn process(&mut self, now: Instant, from: ConnectionId, body: Body) {
        match body {
            Body::Registration(registration) => self.handle_registration(now, from, registration),
            Body::Deregistration(deregistration) => {
                self.handle_deregistration(from, deregistration);
            }
            Body::HandleResolution(request) => self.handle_resolution(now, from, request),
            Body::EndpointKeepAliveAck(ack) => self.handle_keep_alive_ack(now, from, &ack),
            Body::EndpointUnreachable(report) => self.handle_unreachable(now, from, &report),
            Body::Error(error) => {
                if !self.ask_strictly(now, from) {
                    self.report_misbehavior(from, format!("reported an error: {}", error.error));
                }
            }
            other => {
                let name = crate::wire::Body::name(&other);
                self.report_misbehavior(from, format!("sent {name}, which is not for registrars"));
            }
        }
    }

    fn report_misbehavior(&mut self, about: ConnectionId, reason: String) {
        if let Some(peer) = self.connections.get_mut(&about)
            && !std::mem::replace(&mut peer.has_misbehaved, true)
        {
            self.out.event(Event::Misbehaved { peer: peer.address.clone(), reason });
        }
    }

    fn name_of(&self, key: ElementKey) -> Option<ElementName> {
        let pool_handle = self.handlespace.handle_of(key)?.clone();
        let identifier = self.handlespace.get(key)?.identifier();
        Some(ElementName { pool_handle, identifier })
    }

    /// Tells an element over its connection, if it has one, that this registrar removed it. An
    /// element that is alive after all then registers again at once.
    fn tell_removed(&mut self, key: ElementKey) {
        let connection = self.handlespace.get(key).and_then(|element| element.state.connection);
        let connected = |id: &ConnectionId| {
            self.connections.get(id).is_some_and(|client| client.origin != Origin::Connecting)
        };
        if let Some(connection) = connection.filter(connected)
            && let Some(ElementName { pool_handle, identifier }) = self.name_of(key)
        {
            let error = None;
            let response = asap::DeregistrationResponse { pool_handle, identifier, error };
            self.out.send(connection, response);
        }
    }

    /// Removes an element, cancels its timers, and refuses a waiting registration of it over
    /// another connection.
    fn remove(&mut self, key: ElementKey, reason: RemovalReason) {
        // An element that deregistered received the response already.
        if reason != RemovalReason::Deregistered {
            self.tell_removed(key);
        }
        let update = self.encode_update(UpdateAction::Delete, false, key);
        let told = self.told_of(key);
        let Some((pool_handle, element)) = self.handlespace.remove(key) else { return };
        self.near.remove(&key);
        self.drained.remove(&key);
        self.subscriptions.note(&pool_handle);
        self.timers.cancel(Timer::KeepAlive(key));
        self.timers.cancel(Timer::Denied(key));
        self.dials.forget(key);
        self.refuse_claimant(key);
        let identifier = element.identifier();
        let connection = element.state.connection;
        let is_home = element.home_registrar() == self.config.identifier;
        let address = element.value().user_transport.address().cloned();
        if let Some(owner) = element.state.charge.owner {
            self.owners.remove(&pool_handle, key, owner);
        }
        self.shares.discharge(element.state.charge.host);
        if is_home && let Some(update) = update {
            self.send_update(told, &update);
        }
        let vacant = self.handlespace.is_unknown(&pool_handle);
        let name = ElementName { pool_handle, identifier };
        if vacant {
            self.vacated.push(name.pool_handle.clone());
        }
        self.out.event(Event::Removed(name, reason, address));
        self.detach(key, connection);
    }

    /// Detaches an element from its connection. Closes the connection if this registrar made it and
    /// it serves no other element.
    fn detach(&mut self, key: ElementKey, connection: Option<ConnectionId>) {
        let Some(connection) = connection else { return };
        let Some(client) = self.connections.get_mut(&connection) else { return };
        client.elements.remove(&key);
        client.queued.remove(&key);
        if client.asked.remove(&key) && !client.queued.is_empty() {
            self.unblocked.insert(connection);
        }
        let Some(client) = self.connections.get(&connection) else { return };
        if client.elements.is_empty() && client.origin != Origin::Accepted {
            let abort = client.origin == Origin::Connecting;
            self.forget_connection(connection);
            if abort { self.out.abort(connection) } else { self.out.close(connection) }
        }
    }

    fn forget_connection(&mut self, connection: ConnectionId) -> Option<Client> {
        let client = self.connections.remove(&connection)?;
        let host = client.host;
        let subscriptions = self.subscriptions.remove_user(connection);
        if subscriptions > 0 {
            self.shares.unsubscribe(host, subscriptions);
        }
        match client.origin {
            Origin::Accepted => self.shares.close_connection(host),
            Origin::Connecting => {
                self.dials.end(&client.address);
            }
            Origin::Dialled => {}
        }
        Some(client)
    }

    /// Aborts a connection without sending what is queued, and handles it as lost.
    fn drop_connection(&mut self, now: Instant, connection: ConnectionId) {
        if self.peers.has_link(connection) {
            self.handle_link_over(now, connection, &ConnectionEvent::Lost);
        } else {
            self.forget_connection(connection);
        }
        self.out.abort(connection);
    }

    /// Finishes the handling of an input: recreates pools that became empty from the rivals that
    /// were kept for them, resumes work that was deferred, and notifies subscribers.
    fn conclude(&mut self, now: Instant) {
        for handle in std::mem::take(&mut self.vacated) {
            if self.handlespace.is_unknown(&handle) {
                self.admit_rivals(now, &handle);
            }
        }
        for connection in std::mem::take(&mut self.unblocked) {
            self.send_queued_keep_alives(now, connection);
        }
        self.dial_waiting(now);
        self.tell_subscribers(now);
        if self.handlespace.is_sparse() && !self.timers.is_set(Timer::Tidy) {
            self.timers.set(Timer::Tidy, now + TIDY_AFTER);
        }
    }

    /// Releases memory that was needed for more elements than there are now.
    fn tidy(&mut self) {
        if self.handlespace.is_sparse() {
            self.handlespace.shrink();
            self.timers.shrink();
            self.connections.shrink_to_fit();
        }
    }

    fn handle_timer(&mut self, now: Instant, timer: Timer) {
        match timer {
            Timer::Announce => self.announce(now),
            Timer::Claimant(key) => {
                self.admit_claimant(now, key);
            }
            Timer::FirstMessage(connection) => self.drop_connection(now, connection),
            Timer::Page(connection) => self.handle_page_timeout(connection),
            Timer::Download(peer) => self.abandon_download(now, peer),
            Timer::Heartbeat => self.handle_heartbeat(now),
            Timer::Leave => self.finish_leaving(),
            Timer::Host(host) => self.handle_host_timer(now, host),
            Timer::Mentor => self.handle_mentor_timer(now),
            Timer::NextMentor => self.handle_pause_over(now),
            Timer::Peer(peer) => self.handle_peer_timer(now, peer),
            Timer::Ready => self.become_ready(now),
            Timer::Tidy => self.tidy(),
            // Every input ends with a notification of the subscribers.
            Timer::Subscriptions => {}
            Timer::KeepAlive(key) => self.handle_keep_alive_timer(now, key),
            Timer::Denied(key) => self.handle_denied(key),
        }
    }

    /// Returns `interval`, varied by 12.5 %, so that registrars do not send at the same time.
    fn spread_a_little(&mut self, interval: Duration) -> Duration {
        interval.mul_f64(self.rng.rng().random_range(0.875..1.125))
    }

    /// Returns `interval`, varied by 50 % (RFC 5352 section 3.5).
    fn spread(&mut self, interval: Duration) -> Duration {
        interval.mul_f64(self.rng.rng().random_range(0.5..1.5))
    }
}

impl Machine for Registrar {
    type Event = Event;

    fn start(&mut self, now: Instant) {
        self.out.begin();
        self.start_joining(now);
        self.start_announcing(now);
    }

    fn accept(
        &mut self,
        now: Instant,
        protocol: Ppid,
        address: TransportAddress,
        identity: Option<Identity>,
    ) -> ConnectionId {
        self.out.begin();
        if protocol == Ppid::ENRP {
            return self.accept_link(now, address, identity);
        }
        let connection = self.out.name_connection();
        let permissions = self.config.access.permissions(address.host(), identity.as_ref());
        let client = Client::new(now, address, Origin::Accepted, identity, permissions);
        let roles = [AccessRole::Element, AccessRole::User];
        let permitted = roles.iter().any(|role| client.permissions.permit(*role, None));
        let host = client.host;
        if !permitted {
            for role in roles {
                self.deny(client.denial(role, None));
            }
        }
        if permitted && self.takes_connection(host) {
            self.connections.insert(connection, client);
        } else {
            self.out.abort(connection);
        }
        connection
    }

    fn handle_message(&mut self, now: Instant, from: ConnectionId, message: UserMessage) {
        self.out.begin();
        self.take_message(now, from, &message);
        self.conclude(now);
    }

    fn handle_connection(
        &mut self,
        now: Instant,
        connection: ConnectionId,
        event: ConnectionEvent,
    ) {
        self.out.begin();
        self.take_connection_event(now, connection, event);
        self.conclude(now);
    }

    fn handle_round_trip(&mut self, now: Instant, connection: ConnectionId, round_trip: Duration) {
        self.out.begin();
        self.take_round_trip(connection, round_trip);
        self.conclude(now);
    }

    fn handle_announcement(
        &mut self,
        now: Instant,
        source: TransportAddress,
        message: UserMessage,
    ) {
        self.out.begin();
        if message.ppid == Ppid::ENRP {
            return self.handle_multicast_presence(now, &source, &message);
        }
        if let Some(announce) = announcement(&message)
            && announce.registrar != self.config.identifier
            && self.allows_registrar_at(source.host())
        {
            self.announcements.heard(now, announce.registrar);
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.out.begin();
        self.notice_stall(now);
        while let Some(timer) = self.timers.pop(now) {
            if self.is_catching_up(now) {
                self.postpone(now, timer);
            } else {
                self.handle_timer(now, timer);
            }
        }
        while let Some(key) = self.handlespace.pop_expired(now) {
            if self.is_catching_up(now) {
                self.postpone_expiry(now, key);
            } else {
                self.remove(key, RemovalReason::Expired);
            }
        }
        self.conclude(now);
    }

    fn handle_crowded(&mut self, now: Instant) {
        self.out.begin();
        self.close_silent(now);
        self.conclude(now);
    }

    fn poll_output(&mut self) -> Option<Output<Event>> {
        let output = self.out.poll();
        if let Some(Output::Event(event)) = &output {
            self.counters.count(event);
        }
        output
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.timers.next().into_iter().chain(self.handlespace.next_expiry()).min()
    }
}
