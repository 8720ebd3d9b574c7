//! The registrar (RFC 5352 section 3, the server's side, and RFC 5353).

mod announce;
mod config;
mod distance;
mod keep_alive;
mod leave;
mod limits;
mod mentor;
mod peers;
mod registration;
mod resolution;
mod stall;
mod subscription;
mod table;
mod takeover;
mod update;

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::{
    ConnectionEvent, ConnectionId, Footprint, Machine, Outbox, Output, Received, Timers,
    announcement, receive,
};
use crate::handlespace::{Checksum, ElementKey, Handlespace};
use crate::wire::{
    ErrorCause, PoolElement, PoolElementId, PoolHandle, Ppid, RegistrarId, TransportAddress,
    UserMessage, asap, asap::Body, enrp::UpdateAction,
};
use announce::Announcements;
use leave::Leaving;
use limits::Limits;
use mentor::Joining;
use peers::Peers;
use subscription::Subscriptions;

pub use config::RegistrarConfig;

/// A registrar: it keeps the handlespace, watches over the elements and answers resolutions.
#[derive(Debug)]
pub struct Registrar {
    config: RegistrarConfig,
    rng: StdRng,
    handlespace: Handlespace<Membership>,
    connections: HashMap<ConnectionId, Client>,
    /// Connections that are being made, by where they go.
    dials: HashMap<TransportAddress, ConnectionId>,
    announcements: Announcements,
    peers: Peers,
    joining: Joining,
    /// Resolutions that wait until we have joined the other registrars.
    deferred: Vec<(ConnectionId, asap::HandleResolution)>,
    limits: Limits,
    subscriptions: Subscriptions,
    leaving: Leaving,
    /// Until when we read what came while we stood still.
    catching_up: Option<Instant>,
    timers: Timers<Timer>,
    out: Outbox<Event>,
}

/// What the registrar keeps of each element.
#[derive(Debug)]
struct Membership {
    /// The connection to its ASAP endpoint; none while there is no connection.
    connection: Option<ConnectionId>,
    /// Whether it owes the answer to a keep-alive.
    awaiting_ack: bool,
    /// Whether it is yet to be told that we are its home.
    claim: bool,
    /// Whether its home has yet to confirm it, in an audit.
    marked: bool,
    /// Its home before it came to us by itself; zero where it had none.
    came_from: RegistrarId,
    /// The connections over which it was reported as unreachable.
    reporters: BTreeSet<ConnectionId>,
}

/// The other end of a connection for ASAP: pool elements, a pool user, or both.
#[derive(Debug)]
struct Client {
    address: TransportAddress,
    origin: Origin,
    /// The elements reached through it.
    elements: BTreeSet<ElementKey>,
    /// Those which owe the answer to a keep-alive, and those which are to be asked then.
    asked: BTreeSet<ElementKey>,
    queued: BTreeSet<ElementKey>,
    /// Whether its first fault was logged.
    complained: bool,
}

impl Client {
    fn new(address: TransportAddress, origin: Origin) -> Self {
        Self {
            address,
            origin,
            elements: BTreeSet::new(),
            asked: BTreeSet::new(),
            queued: BTreeSet::new(),
            complained: false,
        }
    }
}

/// How a connection came to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// Its other end made it.
    Accepted,
    /// We are making it, to ask an element whether it is alive.
    Connecting,
    /// We made it.
    Dialled,
}

/// The longest pool element that is taken, in bytes of its parameter: room for 64 IPv6
/// addresses twice, and long policies. Ours: it bounds what an answer costs.
const MAX_ELEMENT_SIZE: usize = 4096;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Timer {
    Announce,
    FirstMessage(ConnectionId),
    /// The next page, over this connection, is not asked for.
    Page(ConnectionId),
    /// The next page of a peer does not come.
    Download(RegistrarId),
    Heartbeat,
    /// The others have not taken all of our elements in time.
    Leave,
    /// It is time to see whether a host still uses its allowance.
    Limit(IpAddr),
    Mentor,
    NextMentor,
    Peer(RegistrarId),
    /// Subscribers may be told of more.
    Subscriptions,
    KeepAlive(ElementKey),
}

/// What a registrar tells its owner, for logs and statistics.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// An element joined a pool.
    Registered(ElementName),
    /// An element renewed its registration.
    Reregistered(ElementName),
    /// An element was refused.
    Refused(ElementName, asap::RegistrationResponse),
    /// An element is gone.
    Removed(ElementName, RemovalReason),
    /// There is another registrar.
    PeerFound(RegistrarId),
    /// Another registrar is gone.
    PeerLost(RegistrarId),
    /// Another registrar, which had elements, does not answer any more.
    PeerDead(RegistrarId),
    /// We know what the other registrars know, or there are none.
    Joined {
        /// How many elements there are.
        elements: usize,
    },
    /// We took over the elements of a dead registrar.
    TookOver {
        /// The registrar.
        registrar: RegistrarId,
        /// How many.
        elements: usize,
    },
    /// Another registrar took over our elements.
    TakenOver {
        /// Which.
        by: RegistrarId,
    },
    /// It left the others, and closed all connections. The last event.
    Left,
    /// Someone does not keep to ASAP or ENRP; told once for each connection.
    Misbehaved {
        /// Who.
        peer: TransportAddress,
        /// What.
        reason: String,
    },
}

/// The pool and the identifier of an element.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ElementName {
    /// The pool.
    pub pool_handle: PoolHandle,
    /// The element.
    pub identifier: PoolElementId,
}

impl fmt::Display for ElementName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of pool {}", self.identifier, self.pool_handle)
    }
}

/// Why an element is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RemovalReason {
    /// It left.
    Deregistered,
    /// It did not renew its registration in time.
    Expired,
    /// It did not answer a keep-alive in time.
    KeepAliveTimeout,
    /// Its connection broke and it does not accept another.
    Unreachable,
    /// Too many pool users reported that it is unreachable.
    Reported,
    /// Its home registrar, which is another one, removed it.
    ElsewhereRemoved,
}

impl fmt::Display for RemovalReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Deregistered => "deregistered",
            Self::Expired => "registration expired",
            Self::KeepAliveTimeout => "no answer to a keep-alive",
            Self::Unreachable => "connection lost and not to be had again",
            Self::Reported => "reported as unreachable too often",
            Self::ElsewhereRemoved => "removed by its home registrar",
        })
    }
}

impl Registrar {
    /// A registrar with an empty handlespace.
    #[must_use]
    pub fn new(config: RegistrarConfig) -> Self {
        Self {
            rng: StdRng::seed_from_u64(config.seed),
            handlespace: Handlespace::new(config.policies.clone(), config.capacity),
            connections: HashMap::new(),
            dials: HashMap::new(),
            announcements: Announcements::default(),
            peers: Peers::default(),
            joining: Joining::Done,
            deferred: Vec::new(),
            limits: Limits::default(),
            subscriptions: Subscriptions::default(),
            leaving: Leaving::No,
            catching_up: None,
            timers: Timers::new(),
            out: Outbox::new(),
            config,
        }
    }

    /// The registrar's identifier.
    #[must_use]
    pub fn identifier(&self) -> RegistrarId {
        self.config.identifier
    }

    /// How many elements there are.
    #[must_use]
    pub fn elements(&self) -> usize {
        self.handlespace.len()
    }

    /// The elements and their pools, in no particular order.
    pub fn members(&self) -> impl Iterator<Item = (&PoolHandle, PoolElement)> {
        self.handlespace.all(None).filter_map(|key| {
            Some((self.handlespace.handle_of(key)?, self.handlespace.get(key)?.value()))
        })
    }

    /// The checksum of the elements whose home registrar is `home`.
    #[must_use]
    pub fn checksum(&self, home: RegistrarId) -> Checksum {
        self.handlespace.checksum(home)
    }

    /// How much it holds besides the elements.
    #[must_use]
    pub fn footprint(&self) -> Footprint {
        Footprint {
            connections: self.connections.len() + self.peers.links(),
            timers: self.timers.len(),
            waiting: self.deferred.len(),
            subscriptions: self.subscriptions.len(),
            counted_hosts: self.limits.len(),
        }
    }

    /// The other registrars that it knows and believes to be alive.
    #[must_use]
    pub fn peers(&self) -> Vec<RegistrarId> {
        self.peers.active().map(|(identifier, _)| identifier).collect()
    }

    fn take_message(&mut self, now: Instant, from: ConnectionId, message: &UserMessage) {
        if self.peers.has_link(from) {
            return self.handle_enrp(now, from, message);
        }
        if !self.connections.contains_key(&from) {
            return;
        }
        match receive(&mut self.out, from, message) {
            Received::Message(body) => {
                self.timers.cancel(Timer::FirstMessage(from));
                self.process(now, from, body);
            }
            Received::Refused(reason) => self.complain(from, reason),
        }
    }

    fn take_connection_event(
        &mut self,
        now: Instant,
        connection: ConnectionId,
        event: ConnectionEvent,
    ) {
        match event {
            ConnectionEvent::Established { peer: address, .. } => {
                if self.peers.has_link(connection) {
                    return self.handle_link_established(connection, address);
                }
                let Some(peer) = self.connections.get_mut(&connection) else { return };
                self.dials.remove(&peer.address);
                (peer.address, peer.origin) = (address, Origin::Dialled);
                for key in peer.elements.clone() {
                    self.send_keep_alive(now, key);
                }
            }
            event @ (ConnectionEvent::Closed | ConnectionEvent::Lost) => {
                if self.peers.has_link(connection) {
                    return self.handle_link_over(now, connection, &event);
                }
                let Some(peer) = self.forget_connection(connection) else { return };
                for key in peer.elements {
                    self.handle_element_disconnected(now, key, peer.origin);
                }
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
                self.complain(from, format!("reported an error: {}", error.error));
            }
            other => {
                let name = crate::wire::Body::name(&other);
                self.complain(from, format!("sent {name}, which is not for registrars"));
            }
        }
    }

    fn complain(&mut self, about: ConnectionId, reason: String) {
        if let Some(peer) = self.connections.get_mut(&about)
            && !std::mem::replace(&mut peer.complained, true)
        {
            self.out.event(Event::Misbehaved { peer: peer.address.clone(), reason });
        }
    }

    fn name_of(&self, key: ElementKey) -> Option<ElementName> {
        let pool_handle = self.handlespace.handle_of(key)?.clone();
        let identifier = self.handlespace.get(key)?.identifier();
        Some(ElementName { pool_handle, identifier })
    }

    /// Forgets an element, its timers and its claim on a connection.
    fn remove(&mut self, key: ElementKey, reason: RemovalReason) {
        let Some((pool_handle, element)) = self.handlespace.remove(key) else { return };
        self.subscriptions.note(&pool_handle);
        self.timers.cancel(Timer::KeepAlive(key));
        let identifier = element.identifier();
        if element.home_registrar() == self.config.identifier {
            self.send_update(UpdateAction::Delete, &pool_handle, &element.value());
        }
        self.out.event(Event::Removed(ElementName { pool_handle, identifier }, reason));
        self.detach(key, element.state.connection);
    }

    /// Takes the element's claim off its connection, and closes that if we made it and it serves
    /// no other.
    fn detach(&mut self, key: ElementKey, connection: Option<ConnectionId>) {
        let Some(connection) = connection else { return };
        self.settle_keep_alive(connection, key);
        let Some(client) = self.connections.get_mut(&connection) else { return };
        client.elements.remove(&key);
        client.queued.remove(&key);
        if client.elements.is_empty() && client.origin != Origin::Accepted {
            let abort = client.origin == Origin::Connecting;
            self.forget_connection(connection);
            if abort { self.out.abort(connection) } else { self.out.close(connection) }
        }
    }

    fn forget_connection(&mut self, connection: ConnectionId) -> Option<Client> {
        self.timers.cancel(Timer::FirstMessage(connection));
        let client = self.connections.remove(&connection)?;
        self.subscriptions.remove_user(connection);
        if client.origin == Origin::Connecting {
            self.dials.remove(&client.address);
        }
        Some(client)
    }

    /// Closes a connection that does not serve any element.
    fn abort_if_unused(&mut self, connection: ConnectionId) {
        if self.connections.get(&connection).is_some_and(|peer| peer.elements.is_empty()) {
            self.forget_connection(connection);
            self.out.abort(connection);
        }
    }

    /// Who connected said nothing that makes sense for too long.
    fn handle_no_message(&mut self, now: Instant, connection: ConnectionId) {
        if self.peers.has_link(connection) {
            self.handle_link_over(now, connection, &ConnectionEvent::Lost);
            return self.out.abort(connection);
        }
        self.complain(connection, "sent no message in time".to_owned());
        let error = ErrorCause::Unspecified.into();
        self.out.send(connection, asap::Error { error }).expect("an empty cause is short");
        self.forget_connection(connection);
        self.out.close(connection);
    }

    fn handle_timer(&mut self, now: Instant, timer: Timer) {
        match timer {
            Timer::Announce => self.announce(now),
            Timer::FirstMessage(connection) => self.handle_no_message(now, connection),
            Timer::Page(connection) => self.handle_page_timeout(connection),
            Timer::Download(peer) => self.abandon_download(now, peer),
            Timer::Heartbeat => self.handle_heartbeat(now),
            Timer::Leave => self.finish_leaving(),
            Timer::Limit(host) => self.handle_limit_timer(now, host),
            Timer::Mentor => self.handle_mentor_timer(now),
            Timer::NextMentor => self.handle_pause_over(now),
            Timer::Peer(peer) => self.handle_peer_timer(now, peer),
            // Every input ends with that.
            Timer::Subscriptions => {}
            Timer::KeepAlive(key) => self.handle_keep_alive_timer(now, key),
        }
    }

    /// `interval`, varied by 12.5 %, so that registrars do not speak in chorus.
    fn spread_a_little(&mut self, interval: Duration) -> Duration {
        interval.mul_f64(self.rng.random_range(0.875..1.125))
    }

    /// `interval`, varied by 50 % (RFC 5352 section 3.5).
    fn spread(&mut self, interval: Duration) -> Duration {
        interval.mul_f64(self.rng.random_range(0.5..1.5))
    }
}

impl Machine for Registrar {
    type Event = Event;

    fn start(&mut self, now: Instant) {
        self.out.begin();
        self.start_joining(now);
        self.start_announcing(now);
    }

    fn accept(&mut self, now: Instant, protocol: Ppid, address: TransportAddress) -> ConnectionId {
        self.out.begin();
        if protocol == Ppid::ENRP {
            return self.accept_link(now, address);
        }
        let connection = self.out.name_connection();
        self.connections.insert(connection, Client::new(address, Origin::Accepted));
        self.timers.set(Timer::FirstMessage(connection), now + self.config.first_message_timeout);
        connection
    }

    fn handle_message(&mut self, now: Instant, from: ConnectionId, message: UserMessage) {
        self.out.begin();
        self.take_message(now, from, &message);
        self.tell_subscribers(now);
    }

    fn handle_connection(
        &mut self,
        now: Instant,
        connection: ConnectionId,
        event: ConnectionEvent,
    ) {
        self.out.begin();
        self.take_connection_event(now, connection, event);
        self.tell_subscribers(now);
    }

    fn handle_round_trip(&mut self, now: Instant, connection: ConnectionId, round_trip: Duration) {
        self.out.begin();
        self.take_round_trip(connection, round_trip);
        self.tell_subscribers(now);
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
        {
            self.announcements.heard(now, announce.registrar);
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.out.begin();
        self.notice_stall(now);
        while let Some(timer) = self.timers.pop(now) {
            if self.is_catching_up(now) {
                self.excuse(now, timer);
            } else {
                self.handle_timer(now, timer);
            }
        }
        while let Some(key) = self.handlespace.pop_expired(now) {
            if self.is_catching_up(now) {
                self.excuse_expiry(now, key);
            } else {
                self.handle_expiry(key);
            }
        }
        self.tell_subscribers(now);
    }

    fn poll_output(&mut self) -> Option<Output<Event>> {
        self.out.poll()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.timers.next().into_iter().chain(self.handlespace.next_expiry()).min()
    }
}
