//! The pool element as a client of its registrar (RFC 5352 section 3).

mod config;
mod home;
mod registration;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::{
    ConnectionEvent, ConnectionId, Footprint, Hunt, HuntProgress, Identity, Incompatible, Machine,
    Outbox, Output, Received, Timers, receive,
};
use crate::wire::{
    OperationError, PolicyParameters, PoolElementId, PoolHandle, Ppid, RegistrarId,
    TransportAddress, UserMessage, asap::Body,
};
use registration::draw_identifier;

pub use config::ElementConfig;

/// The time that an element waits after a refusal before it registers again. It is doubled with
/// each refusal, as in RFC 5352 section 7.3. The value is not from the RFCs.
const RETRY_DELAY: Duration = Duration::from_secs(2);

/// The maximum number of connections from registrars. Not from the RFCs. Each registrar that
/// supervises the element has one.
const MAX_ACCEPTED: usize = 64;

/// The number of attempts to deregister, each with another registrar if there is one. Not from the
/// RFCs.
const MAX_DEREGISTRATION_ATTEMPTS: u32 = 2;

/// The time within which a host that connects to the element must send a keep-alive. Not from the
/// RFCs.
const FIRST_MESSAGE_TIMEOUT: Duration = Duration::from_secs(10);

/// Interval at which the element checks whether its host's addresses changed, over a transport that
/// follows such changes. Not from the RFCs.
const ADDRESS_INTERVAL: Duration = Duration::from_secs(1);

/// A pool element: it registers, renews its registration, answers keep-alives, and finds another
/// registrar when its own fails.
#[derive(Debug)]
pub struct Element {
    config: ElementConfig,
    identifier: PoolElementId,
    identifiers_drawn: u32,
    policy: PolicyParameters,
    /// The last time that the element registered because of a changed load.
    load_told: Option<Instant>,
    state: State,
    home: Option<Home>,
    /// The local address and the registrar's address on the connection to the last home registrar.
    last_home: Option<(TransportAddress, TransportAddress)>,
    /// Registrations sent since the last answer.
    attempts: u32,
    /// Registrations that were never answered. A registrar may hold one of them.
    unanswered: u32,
    /// True if the element was a member of the pool before. It then keeps its identifier and tries
    /// again if a registrar refuses the identifier as taken.
    was_member: bool,
    /// Number of refusals since the last acceptance.
    refusals: u32,
    /// The time to wait after the next refusal.
    retry_delay: Duration,
    /// Accepted connections.
    accepted: BTreeMap<ConnectionId, Accepted>,
    hunt: Hunt,
    rng: StdRng,
    timers: Timers<Timer>,
    out: Outbox<Event>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Not a member, but registering or looking for a registrar.
    Joining,
    Registered,
    /// The registration cannot be sent, because the compatibility profile forbids it or because it
    /// cannot be encoded.
    Rejected,
    Leaving,
    Left,
}

/// An accepted connection, presumably from a registrar.
#[derive(Debug)]
struct Accepted {
    host: IpAddr,
    peer: TransportAddress,
    /// The registrar that offered to become the home while the element did not know its own address
    /// yet.
    offer: Option<RegistrarId>,
    /// True if the first protocol violation on this connection was reported.
    has_misbehaved: bool,
}

/// The connection to the home registrar.
#[derive(Debug)]
struct Home {
    connection: ConnectionId,
    local: TransportAddress,
    peer: TransportAddress,
    /// The identifier of the registrar; `None` until a keep-alive from the registrar contains it.
    registrar: Option<RegistrarId>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Timer {
    /// T2-registration: the registrar has not answered a registration in time.
    Registration,
    /// T3-deregistration: the registrar has not answered a deregistration in time.
    Deregistration,
    /// T4-reregistration: the element registers again.
    Reregistration,
    /// Reports a changed load. It was not reported at once because the last report was less than
    /// [`ElementConfig::load_interval`] ago.
    Load,
    /// The addresses of this host are to be checked again.
    Addresses,
    FirstMessage(ConnectionId),
}

/// An event that a pool element reports to its driver.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "drivers handle each")]
pub enum Event {
    /// The element is registered as a member of the pool.
    Registered {
        /// Identifier of the element.
        identifier: PoolElementId,
        /// Address of the home registrar.
        registrar: TransportAddress,
    },
    /// The registrar rejected the registration, or the registration cannot be encoded. If another
    /// element has the configured identifier, the event is reported only after 14 seconds. The
    /// element tries again after a rejection, since the pool may change. If the registration cannot
    /// be encoded, the element tries again only after [`Element::set_policy`].
    Rejected(OperationError),
    /// The registrar lacks resources for the registration, or refused a deregistration. After a
    /// refused registration, the element tries again.
    Refused(OperationError),
    /// The compatibility profile forbids the pool handle or the policy. Nothing was sent: the
    /// element keeps its state and its policy.
    Incompatible(Incompatible),
    /// The element is registered, but the registrar left out some of its addresses (RFC 5352
    /// section 2.2.3).
    AddressesLeftOut(OperationError),
    /// Another registrar has become the home registrar (RFC 5352 section 3.5).
    HomeChanged(RegistrarId),
    /// A registrar reported an error that belongs to no request.
    RegistrarError(OperationError),
    /// The other end of a connection sent a message that is not valid ASAP.
    Misbehaved(String),
    /// A connection was closed, since the access rules do not permit the other end to be a
    /// registrar.
    Denied {
        /// The address of the other end.
        peer: TransportAddress,
        /// The identity of the other end, if the transport authenticates.
        identity: Option<Identity>,
    },
    /// The connection to the home registrar failed, or the registrar does not answer. The element
    /// looks for another registrar.
    RegistrarLost,
    /// No registrar was found so far. The search continues.
    NoRegistrar,
    /// The registrar removed the element, for instance because the registration was not renewed in
    /// time. The element registers again.
    Expired,
    /// The element left the pool. This is the last event.
    Deregistered(Departure),
}

/// Manner in which an element left its pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(clippy::exhaustive_enums, reason = "there are no other ways")]
pub enum Departure {
    /// A registrar confirmed the deregistration.
    Confirmed,
    /// No registrar confirmed the deregistration in time. The registration may remain until it
    /// expires.
    Unconfirmed,
    /// The element was not registered.
    NotRegistered,
}

impl Element {
    /// Creates an element that is not registered yet. `seed` determines its random choices,
    /// including its identifier unless `config` has one.
    #[must_use]
    pub fn new(config: ElementConfig, seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let identifier = config.identifier.unwrap_or_else(|| draw_identifier(&mut rng));
        Self {
            identifier,
            identifiers_drawn: 0,
            policy: config.policy.clone(),
            load_told: None,
            state: State::Joining,
            home: None,
            last_home: None,
            attempts: 0,
            unanswered: 0,
            was_member: false,
            refusals: 0,
            retry_delay: RETRY_DELAY,
            accepted: BTreeMap::new(),
            hunt: Hunt::new(config.hunt.clone()),
            rng,
            timers: Timers::new(),
            out: Outbox::new(config.hunt.profile()),
            config,
        }
    }

    /// Returns the identifier of the element in its pool.
    #[must_use]
    pub fn identifier(&self) -> PoolElementId {
        self.identifier
    }

    /// Returns the handle of the pool.
    #[must_use]
    pub fn pool_handle(&self) -> &PoolHandle {
        &self.config.pool_handle
    }

    /// Returns whether the element is a member of its pool, as far as it knows.
    #[must_use]
    pub fn is_registered(&self) -> bool {
        self.state == State::Registered
    }

    /// Returns the address of the home registrar, if the element is connected to one.
    #[must_use]
    pub fn home(&self) -> Option<&TransportAddress> {
        self.home.as_ref().map(|home| &home.peer)
    }

    /// Returns the numbers of connections and timers that the element holds.
    #[must_use]
    pub fn footprint(&self) -> Footprint {
        let home = self.home.as_ref().map(|home| home.connection);
        let dialled = home.is_some_and(|home| !self.accepted.contains_key(&home));
        Footprint {
            connections: self.accepted.len() + self.hunt.attempts() + usize::from(dialled),
            timers: self.timers.len(),
            waiting: 0,
            subscriptions: 0,
            counted_hosts: 0,
            rivals: 0,
        }
    }

    /// Registers again with another policy or other values, a new load for instance.
    pub fn set_policy(&mut self, now: Instant, policy: PolicyParameters) {
        self.out.begin();
        if let Err(error) = self.check(&policy) {
            return self.out.event(Event::Incompatible(error));
        }
        self.policy = policy;
        match self.state {
            State::Rejected => {
                self.state = State::Joining;
                self.register(now);
            }
            // A registration that is under way has the old values, so another one follows.
            State::Registered | State::Joining if self.home.is_some() => self.register(now),
            State::Registered | State::Joining | State::Leaving | State::Left => {}
        }
    }

    /// Replaces the registrars of the [`HuntConfig`](crate::HuntConfig). The home registrar stays
    /// until it is lost; a search that is running tries the new ones at once.
    pub fn set_registrars(&mut self, now: Instant, registrars: Vec<TransportAddress>) {
        self.out.begin();
        self.hunt.set_registrars(now, registrars, &mut self.out, &mut self.rng);
    }

    /// Registers again with another load, from 0.0 to 1.0, if the policy has one. If the last
    /// report was less than [`ElementConfig::load_interval`] ago, the element waits for the rest of
    /// that time and then reports the latest load.
    pub fn set_load(&mut self, now: Instant, load: f64) {
        self.out.begin();
        let Some(policy) = self.policy.with_load(load) else { return };
        if policy == self.policy {
            return;
        }
        self.policy = policy;
        match self.load_told.map(|told| told + self.config.load_interval) {
            Some(next) if now < next => self.timers.set(Timer::Load, next),
            _ => self.tell_load(now),
        }
    }

    fn tell_load(&mut self, now: Instant) {
        if self.state == State::Registered && self.home.is_some() {
            self.load_told = Some(now);
            self.register(now);
        }
    }

    fn check(&self, policy: &PolicyParameters) -> Result<(), Incompatible> {
        self.config.hunt.profile().check(&self.config.pool_handle, Some(policy))
    }

    /// Deregisters from the pool.
    pub fn deregister(&mut self, now: Instant) {
        self.out.begin();
        match self.state {
            State::Leaving | State::Left => {}
            State::Rejected => self.leave(Departure::NotRegistered),
            State::Joining if !self.was_member && self.unanswered == 0 => {
                self.leave(Departure::NotRegistered);
            }
            State::Registered | State::Joining => {
                self.state = State::Leaving;
                self.attempts = 0;
                self.timers.cancel(Timer::Registration);
                self.timers.cancel(Timer::Reregistration);
                self.timers.set(Timer::Deregistration, now + self.config.t3_deregistration());
                self.send_deregistration();
            }
        }
    }

    fn start_hunt(&mut self, now: Instant) {
        self.hunt.start(now, &mut self.out, &mut self.rng);
    }

    fn handle_connection_over(&mut self, now: Instant, connection: ConnectionId) {
        match self.hunt.handle_failed(now, connection, &mut self.out) {
            HuntProgress::GoesOn => {}
            HuntProgress::NobodyFound => self.out.event(Event::NoRegistrar),
            HuntProgress::NotOurs if self.is_home(connection) => {
                self.home = None;
                self.lose_home(now);
            }
            HuntProgress::NotOurs => {}
        }
    }

    #[allow(clippy::wildcard_enum_match_arm, reason = "all other messages are not for elements")]
    fn process(&mut self, now: Instant, from: ConnectionId, body: Body) {
        match body {
            Body::RegistrationResponse(response) => {
                self.handle_registration_response(now, from, response);
            }
            Body::DeregistrationResponse(response) => {
                self.handle_deregistration_response(now, from, response);
            }
            Body::EndpointKeepAlive(keep_alive) => self.handle_keep_alive(now, from, &keep_alive),
            Body::Error(error) => {
                self.out.event(Event::RegistrarError(error.error));
            }
            other => {
                let message = crate::wire::Body::name(&other);
                tracing::debug!(message, "message ignored: not meant for pool elements");
            }
        }
    }

    /// Forgets a connection that is closed, if it was an accepted one.
    fn forget(&mut self, connection: ConnectionId) {
        self.accepted.remove(&connection);
        self.timers.cancel(Timer::FirstMessage(connection));
    }

    /// Closes the oldest accepted connection of the host that has the most connections, so that no
    /// host can keep registrars out by opening many.
    fn make_room(&mut self) {
        let mut hosts: BTreeMap<IpAddr, Vec<ConnectionId>> = BTreeMap::new();
        for (connection, accepted) in &self.accepted {
            if !self.is_home(*connection) {
                hosts.entry(accepted.host).or_default().push(*connection);
            }
        }
        let most = hosts.into_values().max_by_key(Vec::len);
        if let Some(oldest) = most.and_then(|connections| connections.first().copied()) {
            self.forget(oldest);
            self.out.abort(oldest);
        }
    }
}

impl Machine for Element {
    type Event = Event;

    fn start(&mut self, now: Instant) {
        self.out.begin();
        if let Err(error) = self.check(&self.policy) {
            self.state = State::Rejected;
            return self.out.event(Event::Incompatible(error));
        }
        self.start_hunt(now);
    }

    fn accept(
        &mut self,
        now: Instant,
        _: Ppid,
        peer: TransportAddress,
        identity: Option<Identity>,
    ) -> ConnectionId {
        self.out.begin();
        let connection = self.out.name_connection();
        if !self.hunt.is_registrar(&peer, identity.as_ref()) {
            self.out.event(Event::Denied { peer, identity });
            self.out.abort(connection);
            return connection;
        }
        if self.accepted.len() >= MAX_ACCEPTED {
            self.make_room();
        }
        let host = peer.host();
        let accepted = Accepted { host, peer, offer: None, has_misbehaved: false };
        self.accepted.insert(connection, accepted);
        self.timers.set(Timer::FirstMessage(connection), now + FIRST_MESSAGE_TIMEOUT);
        connection
    }

    fn handle_crowded(&mut self, _: Instant) {
        self.out.begin();
        self.make_room();
    }

    fn handle_message(&mut self, now: Instant, from: ConnectionId, message: UserMessage) {
        self.out.begin();
        match receive(&mut self.out, from, &message) {
            Received::Message(body) => {
                self.timers.cancel(Timer::FirstMessage(from));
                self.process(now, from, body);
            }
            Received::Refused(reason) => {
                let accepted = self.accepted.get_mut(&from);
                if accepted.is_none_or(|its| !std::mem::replace(&mut its.has_misbehaved, true)) {
                    self.out.event(Event::Misbehaved(reason));
                }
            }
        }
    }

    fn handle_connection(
        &mut self,
        now: Instant,
        connection: ConnectionId,
        event: ConnectionEvent,
    ) {
        self.out.begin();
        match event {
            ConnectionEvent::Established { local, peer, identity } => {
                if !self.hunt.is_registrar(&peer, identity.as_ref()) {
                    self.out.event(Event::Denied { peer, identity });
                    self.out.abort(connection);
                    return self.handle_connection_over(now, connection);
                }
                if self.hunt.handle_established(now, connection, &mut self.out).is_none() {
                    return;
                }
                self.last_home = Some((local.clone(), peer.clone()));
                self.home = Some(Home { connection, local, peer, registrar: None });
                match self.state {
                    State::Leaving => self.send_deregistration(),
                    State::Joining | State::Registered => self.register(now),
                    State::Rejected | State::Left => {}
                }
            }
            ConnectionEvent::Addresses { local, peer } => {
                self.handle_addresses(now, connection, local, peer);
            }
            ConnectionEvent::Closed
            | ConnectionEvent::Lost
            | ConnectionEvent::Refused
            | ConnectionEvent::Impossible => {
                self.forget(connection);
                self.handle_connection_over(now, connection);
            }
        }
    }

    fn handle_announcement(
        &mut self,
        now: Instant,
        source: TransportAddress,
        message: UserMessage,
    ) {
        self.out.begin();
        self.hunt.handle_announcement(now, source, &message, &mut self.out, &mut self.rng);
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.out.begin();
        self.hunt.handle_timeout(now, &mut self.out, &mut self.rng);
        while let Some(timer) = self.timers.pop(now) {
            match timer {
                Timer::Registration => {
                    if self.attempts >= self.config.max_registration_attempts {
                        self.attempts = 0;
                        self.out.event(Event::NoRegistrar);
                    }
                    self.lose_home(now);
                }
                Timer::Deregistration => {
                    self.attempts += 1;
                    if self.home.is_none() || self.attempts >= MAX_DEREGISTRATION_ATTEMPTS {
                        self.leave(Departure::Unconfirmed);
                    } else {
                        self.lose_home(now);
                        let next = now + self.config.t3_deregistration();
                        self.timers.set(Timer::Deregistration, next);
                    }
                }
                Timer::Reregistration => self.register(now),
                Timer::Load => self.tell_load(now),
                Timer::Addresses => {
                    if let Some(home) = &self.home {
                        self.out.ask_addresses(home.connection);
                    }
                }
                Timer::FirstMessage(connection) => {
                    self.accepted.remove(&connection);
                    self.out.abort(connection);
                }
            }
        }
    }

    fn poll_output(&mut self) -> Option<Output<Event>> {
        self.out.poll()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        [self.timers.next(), self.hunt.poll_timeout()].into_iter().flatten().min()
    }
}
