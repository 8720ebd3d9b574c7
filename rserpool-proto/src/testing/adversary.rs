//! Simulated hosts that send arbitrary ASAP or ENRP messages.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use crate::wire::asap::{self, Resolved};
use crate::wire::enrp::{self, Route, UpdateAction};
use crate::wire::parameter::{ItemCount, PeChecksum};
use crate::wire::{
    PolicyParameters, PolicyType, PoolElement, PoolElementId, PoolHandle, Ppid, RegistrarId,
    RegistrationLife, ServerInformation, TransportAddress, UserMessage,
};
use crate::{ConnectionEvent, ConnectionId, Footprint, Identity, Machine, Output};
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, IteratorRandom};
use rand::{Rng, RngExt, SeedableRng};

use crate::testing::event::Event;

/// The maximum number of connections of an adversary.
const MAX_CONNECTIONS: usize = 12;

/// The identifiers of an adversary's own elements, which distinguish them from those of honest
/// hosts.
const IDENTIFIERS: std::ops::Range<u32> = 0xad00_0000..0xad00_0028;

/// Returns whether an element is one of an adversary's own.
#[must_use]
pub fn is_own(identifier: PoolElementId) -> bool {
    IDENTIFIERS.contains(&identifier.0)
}

/// A simulated host that sends arbitrary messages, and knows the addresses of all registrars.
#[derive(Debug)]
pub struct Adversary {
    protocol: Ppid,
    address: TransportAddress,
    /// The addresses of the registrars. Elements are learnt from received messages.
    targets: Vec<TransportAddress>,
    pools: Vec<PoolHandle>,
    rng: StdRng,
    connections: BTreeMap<ConnectionId, Line>,
    /// Elements named in received messages.
    elements: Vec<(PoolHandle, PoolElementId)>,
    /// Registrars named in received messages.
    registrars: Vec<RegistrarId>,
    ours: RegistrarId,
    next: Option<Instant>,
    last: u64,
    outputs: VecDeque<Output<Event>>,
}

#[derive(Debug, Clone, Copy)]
struct Line {
    protocol: Ppid,
    established: bool,
}

impl Adversary {
    /// Creates an adversary at `address` that speaks `protocol` with the registrars at `targets`.
    #[must_use]
    pub fn new(
        protocol: Ppid,
        address: TransportAddress,
        targets: Vec<TransportAddress>,
        pools: Vec<PoolHandle>,
        seed: u64,
    ) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let ours = RegistrarId(rng.next_u32().max(1));
        Self {
            protocol,
            address,
            targets,
            pools,
            rng,
            connections: BTreeMap::new(),
            elements: Vec::new(),
            registrars: Vec::new(),
            ours,
            next: None,
            last: 0,
            outputs: VecDeque::new(),
        }
    }

    /// Returns the number of connections of the adversary.
    #[must_use]
    pub fn footprint(&self) -> Footprint {
        Footprint { connections: self.connections.len(), ..Footprint::default() }
    }

    fn name(&mut self, protocol: Ppid, established: bool) -> ConnectionId {
        self.last += 1;
        let connection = ConnectionId(self.last);
        self.connections.insert(connection, Line { protocol, established });
        connection
    }

    fn act(&mut self) {
        match self.rng.random_range(0..10) {
            0 if self.connections.len() < MAX_CONNECTIONS => self.connect(),
            1 => {
                if let Some(connection) = self.connections.keys().copied().choose(&mut self.rng) {
                    self.connections.remove(&connection);
                    let abort = self.rng.random_bool(0.5);
                    self.outputs.push_back(Output::Close { connection, abort });
                }
            }
            _ => {
                let ready = self.connections.iter().filter(|(_, line)| line.established);
                match ready.map(|(name, line)| (*name, *line)).choose(&mut self.rng) {
                    Some((connection, line)) => self.speak(connection, line),
                    None if self.connections.len() < MAX_CONNECTIONS => self.connect(),
                    None => {}
                }
            }
        }
    }

    fn connect(&mut self) {
        let Some(to) = self.targets.choose(&mut self.rng).cloned() else { return };
        let protocol = self.protocol;
        let connection = self.name(protocol, false);
        self.outputs.push_back(Output::Connect { connection, protocol, to });
    }

    fn speak(&mut self, connection: ConnectionId, line: Line) {
        let payload = if self.rng.random_bool(0.1) {
            let length = self.rng.random_range(0..200);
            Some((0..length).map(|_| self.rng.random::<u8>()).collect::<Vec<_>>().into())
        } else if line.protocol == Ppid::ASAP {
            self.asap().encode().ok()
        } else {
            self.enrp().encode().ok()
        };
        if let Some(payload) = payload {
            let message = UserMessage::new(line.protocol, payload);
            self.outputs.push_back(Output::Send { connection, message });
        }
    }

    fn pool(&mut self) -> PoolHandle {
        match self.pools.choose(&mut self.rng) {
            Some(pool) if self.rng.random_bool(0.9) => pool.clone(),
            _ => {
                let length = self.rng.random_range(1..PoolHandle::MAX_LENGTH);
                PoolHandle::new(vec![b'x'; length]).expect("of such a length")
            }
        }
    }

    /// Chooses an element to attack, and returns it with its pool. In most cases the element
    /// exists.
    fn victim(&mut self) -> (PoolHandle, PoolElementId) {
        match self.elements.choose(&mut self.rng) {
            Some(element) if self.rng.random_bool(0.9) => element.clone(),
            _ => (self.pool(), PoolElementId(self.rng.next_u32())),
        }
    }

    fn policy(&mut self) -> PolicyParameters {
        match self.rng.random_range(0..5) {
            0 => PolicyParameters::round_robin(),
            1 => PolicyParameters::least_used(self.rng.next_u32()),
            2 => PolicyParameters::new(PolicyType::WEIGHTED_RANDOM, &[self.rng.random_range(0..9)]),
            3 => {
                let length = self.rng.random_range(0..60_000);
                PolicyParameters::from_bytes(PolicyType(0x9999_9999), &vec![0; length])
            }
            _ => PolicyParameters::new(PolicyType(self.rng.random_range(0..20)), &[]),
        }
    }

    /// Returns an element of the adversary itself, or a forged version of another host's element.
    fn element(&mut self, own: bool) -> (PoolHandle, PoolElement) {
        let (pool_handle, identifier) = match own {
            true => {
                let number = self.rng.random_range(IDENTIFIERS);
                let pool = format!("Evil{}", number % 4).parse().expect("a handle");
                let pool = if self.protocol == Ppid::ASAP { pool } else { self.pool() };
                (pool, PoolElementId(number))
            }
            false => self.victim(),
        };
        let life = [-1, 0, 1, 90, i32::MAX, i32::MIN];
        // The first element that registers a pool handle and an identifier over ASAP gets them.
        // Without permissions, registrars cannot prevent an adversary from being the first. For
        // names that honest elements may use, the adversary therefore never registers its own
        // address, but a foreign one.
        let foreign = std::net::IpAddr::from([10, 1, 2, 3]);
        let mut somewhere = self.address.clone();
        match self.rng.random_range(0..5) {
            0 => somewhere.port = 0,
            _ if !own => somewhere.addresses = [foreign].into_iter().collect(),
            _ => {}
        }
        let element = PoolElement {
            identifier,
            home_registrar: RegistrarId(0),
            registration_life: RegistrationLife(*life.choose(&mut self.rng).expect("some")),
            user_transport: somewhere.clone().into(),
            policy: self.policy(),
            asap_transport: self.rng.random_bool(0.8).then_some(somewhere),
        };
        (pool_handle, element)
    }

    fn asap(&mut self) -> asap::Message {
        match self.rng.random_range(0..9) {
            0 | 1 => {
                let own = self.rng.random_bool(0.5);
                let (pool_handle, pool_element) = self.element(own);
                asap::Registration { pool_handle, pool_element }.into()
            }
            2 => {
                let (pool_handle, identifier) = self.victim();
                asap::Deregistration { pool_handle, identifier }.into()
            }
            3 | 4 => {
                let subscribe = self.rng.random_bool(0.3);
                let items = self.rng.random_bool(0.5).then(|| ItemCount(self.rng.next_u32()));
                asap::HandleResolution { subscribe, pool_handle: self.pool(), items }.into()
            }
            5 | 6 => {
                let (pool_handle, identifier) = self.victim();
                asap::EndpointUnreachable { pool_handle, identifier }.into()
            }
            7 => {
                let (pool_handle, identifier) = self.victim();
                asap::EndpointKeepAliveAck { pool_handle, identifier }.into()
            }
            _ => {
                let (pool_handle, identifier) = self.victim();
                let registrar = RegistrarId(self.rng.next_u32());
                let identifier = Some(identifier);
                asap::EndpointKeepAlive { home: false, registrar, pool_handle, identifier }.into()
            }
        }
    }

    fn registrar(&mut self) -> RegistrarId {
        match self.registrars.choose(&mut self.rng) {
            Some(registrar) if self.rng.random_bool(0.7) => *registrar,
            _ => RegistrarId(self.rng.next_u32()),
        }
    }

    fn route(&mut self) -> Route {
        let sender = if self.rng.random_bool(0.8) { self.ours } else { self.registrar() };
        Route { sender, receiver: RegistrarId(0) }
    }

    fn server(&mut self) -> ServerInformation {
        let [a, b] = self.rng.random::<u16>().to_be_bytes();
        let nobody = std::net::SocketAddr::from(([10, 1, a, b], 3863));
        let nobody = TransportAddress::new(self.address.protocol, nobody);
        let addresses = [self.address.clone(), nobody];
        let transport = addresses.choose(&mut self.rng).expect("two").clone();
        ServerInformation { registrar: self.registrar(), transport }
    }

    fn enrp(&mut self) -> enrp::Message {
        let route = self.route();
        match self.rng.random_range(0..10) {
            0 => enrp::Presence {
                reply_required: self.rng.random_bool(0.5),
                route,
                checksum: Some(PeChecksum(self.rng.random())),
                server: self.rng.random_bool(0.5).then(|| self.server()),
            }
            .into(),
            1 => enrp::ListRequest { route }.into(),
            2 => {
                let count = self.rng.random_range(0..30);
                let servers = (0..count).map(|_| self.server()).collect();
                enrp::ListResponse { reject: false, route, servers }.into()
            }
            3 => {
                let own_children_only = self.rng.random_bool(0.5);
                enrp::HandleTableRequest { own_children_only, route }.into()
            }
            4 => self.page(route),
            5..=7 => {
                let own = self.rng.random_bool(0.6);
                let (pool_handle, mut pool_element) = self.element(own);
                if self.rng.random_bool(0.3) {
                    pool_element.home_registrar = self.registrar();
                }
                let action = if self.rng.random_bool(0.7) {
                    UpdateAction::Add
                } else {
                    UpdateAction::Delete
                };
                let takeover_suggested = self.rng.random_bool(0.2);
                enrp::HandleUpdate {
                    takeover_suggested,
                    route,
                    action,
                    reserved: 0,
                    pool_handle,
                    pool_element,
                }
                .into()
            }
            8 => enrp::InitTakeover { route, target: self.registrar() }.into(),
            _ => enrp::TakeoverServer { route, target: self.registrar() }.into(),
        }
    }

    fn page(&mut self, route: Route) -> enrp::Message {
        let count = self.rng.random_range(0..4);
        let entry = |adversary: &mut Self| {
            let own = adversary.rng.random_bool(0.8);
            let (pool_handle, element) = adversary.element(own);
            enrp::PoolEntry { pool_handle, elements: vec![element] }
        };
        let pools = (0..count).map(|_| entry(self)).collect();
        let more_to_send = self.rng.random_bool(0.5);
        enrp::HandleTableResponse { more_to_send, reject: false, route, pools }.into()
    }

    fn hear_asap(&mut self, from: ConnectionId, body: asap::Body) {
        match body {
            asap::Body::HandleResolutionResponse(asap::HandleResolutionResponse {
                pool_handle,
                result: Resolved::Pool { elements, .. },
                ..
            }) => {
                self.elements.retain(|(pool, _)| *pool != pool_handle);
                let of_pool = elements.iter().map(|its| (pool_handle.clone(), its.identifier));
                self.elements.extend(of_pool);
            }
            asap::Body::EndpointKeepAlive(asked) if self.rng.random_bool(0.8) => {
                let Some(identifier) = asked.identifier else { return };
                let ack = asap::EndpointKeepAliveAck { pool_handle: asked.pool_handle, identifier };
                if let Ok(payload) = asap::Message::from(ack).encode() {
                    let message = UserMessage::new(Ppid::ASAP, payload);
                    self.outputs.push_back(Output::Send { connection: from, message });
                }
            }
            _ => {}
        }
    }

    fn hear_enrp(&mut self, from: ConnectionId, body: &enrp::Body) {
        let Some(route) = body.route() else { return };
        if !self.registrars.contains(&route.sender) {
            self.registrars.push(route.sender);
        }
        let route = self.route();
        let answer: enrp::Message = match body {
            enrp::Body::HandleTableRequest(_) => self.page(route),
            enrp::Body::InitTakeover(init) => {
                enrp::InitTakeoverAck { route, target: init.target }.into()
            }
            _ => return,
        };
        if self.rng.random_bool(0.7)
            && let Ok(payload) = answer.encode()
        {
            let message = UserMessage::new(Ppid::ENRP, payload);
            self.outputs.push_back(Output::Send { connection: from, message });
        }
    }

    fn pause(&mut self, now: Instant) {
        self.next = Some(now + Duration::from_millis(self.rng.random_range(5..400)));
    }
}

impl Machine for Adversary {
    type Event = Event;

    fn start(&mut self, now: Instant) {
        self.pause(now);
    }

    fn accept(
        &mut self,
        _: Instant,
        protocol: Ppid,
        _: TransportAddress,
        _: Option<Identity>,
    ) -> ConnectionId {
        self.name(protocol, true)
    }

    fn handle_message(&mut self, _: Instant, from: ConnectionId, message: UserMessage) {
        if message.ppid == Ppid::ASAP {
            if let Ok(message) = asap::Message::decode(&message.payload) {
                self.hear_asap(from, message.body);
            }
        } else if let Ok(message) = enrp::Message::decode(&message.payload) {
            self.hear_enrp(from, &message.body);
        }
    }

    fn handle_connection(&mut self, _: Instant, connection: ConnectionId, event: ConnectionEvent) {
        match event {
            ConnectionEvent::Established { .. } => {
                if let Some(line) = self.connections.get_mut(&connection) {
                    line.established = true;
                }
            }
            _ => {
                self.connections.remove(&connection);
            }
        }
    }

    fn handle_announcement(&mut self, _: Instant, _: TransportAddress, _: UserMessage) {}

    fn handle_timeout(&mut self, now: Instant) {
        if self.next.is_none_or(|next| now < next) {
            return;
        }
        for _ in 0..self.rng.random_range(1..6) {
            self.act();
        }
        self.pause(now);
    }

    fn poll_output(&mut self) -> Option<Output<Event>> {
        self.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.next
    }
}
