//! A network of state machines in virtual time. Messages arrive at once and in order, and nothing
//! happens unless a test asks for it.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use crate::element::ElementConfig;
use crate::registrar::RegistrarConfig;
use crate::wire::{PoolElementId, Ppid, RegistrarId, TransportAddress, UserMessage};
use crate::{
    ConnectionEvent, ConnectionId, Element, HuntConfig, Identity, Machine, Output, Registrar, User,
};

use crate::testing::role::Role;

pub use crate::testing::event::Event;

/// Number of a machine in the network; its host has the same number.
pub type NodeId = usize;

#[derive(Debug)]
struct Node {
    role: Role,
    address: TransportAddress,
    state: NodeState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NodeState {
    Running,
    /// The machine handles no messages and no timers; its connections stay open.
    Paused,
    Dead,
}

type End = (NodeId, ConnectionId);

#[derive(Debug)]
enum Delivery {
    Message(End, UserMessage),
    Connection(End, ConnectionEvent),
    Connect(End, Ppid, TransportAddress),
}

/// A network of state machines and a clock.
#[derive(Debug)]
pub struct World {
    now: Instant,
    start: Instant,
    nodes: Vec<Node>,
    links: Vec<(End, End)>,
    /// The number of connections that the test has made.
    connections: u64,
    /// The authenticated identities of hosts.
    pub identities: BTreeMap<IpAddr, Identity>,
    /// Round-trip time to any other host that the network reports to the machines. `None`: unknown.
    pub round_trip: Option<Duration>,
    /// True if connections of the transport survive a change of addresses.
    pub follows_addresses: bool,
    deliveries: VecDeque<Delivery>,
    held: Vec<Delivery>,
    /// Events of all machines, and their times.
    pub events: Vec<(Duration, NodeId, Event)>,
    /// Messages received on connections of the test.
    pub received: Vec<(ConnectionId, UserMessage)>,
    /// The number of ENRP_HANDLE_TABLE_REQUEST messages that machines sent.
    pub requests: usize,
    /// Announcements of registrars, and their times.
    pub announced: Vec<(Duration, NodeId, UserMessage)>,
}

/// The node that stands for the test itself.
const TEST: NodeId = usize::MAX;

impl Default for World {
    fn default() -> Self {
        #[allow(clippy::disallowed_methods, reason = "any instant will do")]
        let start = Instant::now();
        Self {
            now: start,
            start,
            nodes: Vec::new(),
            links: Vec::new(),
            connections: 0,
            identities: BTreeMap::new(),
            round_trip: None,
            follows_addresses: false,
            deliveries: VecDeque::new(),
            held: Vec::new(),
            events: Vec::new(),
            received: Vec::new(),
            requests: 0,
            announced: Vec::new(),
        }
    }
}

/// Returns the address of the host with the number `host`.
#[must_use]
pub fn address(host: usize) -> TransportAddress {
    let host = u8::try_from(host).expect("fewer than 256 hosts");
    TransportAddress::tcp(SocketAddr::from(([10, 0, 0, host], 3863)))
}

impl World {
    /// Adds a registrar on the next host.
    pub fn registrar(&mut self, registrar: Registrar) -> NodeId {
        self.add(Role::Registrar(Box::new(registrar)))
    }

    /// Adds a pool element on the next host.
    pub fn element(&mut self, element: Element) -> NodeId {
        self.add(Role::Element(Box::new(element)))
    }

    /// Adds a pool user on the next host.
    pub fn user(&mut self, user: User) -> NodeId {
        self.add(Role::User(Box::new(user)))
    }

    /// Adds a registrar with this identifier and the registrars `peers` as its configured peers.
    pub fn join(&mut self, identifier: u32, peers: &[NodeId]) -> NodeId {
        let host = self.hosts();
        let config = RegistrarConfig::default()
            .identifier(RegistrarId(identifier))
            .enrp(address(host))
            .peers(peers.iter().map(|peer| address(*peer)));
        self.registrar(Registrar::new(config, u64::from(identifier)))
    }

    /// Adds an element with this identifier to the pool "Pool", which looks for these registrars.
    pub fn member(&mut self, identifier: u32, registrars: &[NodeId]) -> NodeId {
        let host = self.hosts();
        let service = TransportAddress { port: 7, ..address(host) };
        let hunt = HuntConfig::new(registrars.iter().map(|host| address(*host)));
        let pool = "Pool".parse().expect("a pool handle");
        let config = ElementConfig::new(pool, service, hunt)
            .identifier(PoolElementId(identifier))
            .asap_transport(address(host));
        self.element(Element::new(config, u64::from(identifier)))
    }

    fn add(&mut self, role: Role) -> NodeId {
        let id = self.nodes.len();
        self.nodes.push(Node { role, address: address(id), state: NodeState::Running });
        let now = self.now;
        self.nodes[id].role.start(now);
        self.settle(id);
        id
    }

    /// Returns the number of hosts; the next one has this number.
    #[must_use]
    pub fn hosts(&self) -> usize {
        self.nodes.len()
    }

    /// Returns the virtual time.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.now
    }

    /// Calls `act` with an element.
    pub fn with_element<R>(
        &mut self,
        id: NodeId,
        act: impl FnOnce(&mut Element, Instant) -> R,
    ) -> R {
        let Role::Element(element) = &mut self.nodes[id].role else { panic!("no element") };
        let result = act(element, self.now);
        self.settle(id);
        result
    }

    /// Calls `act` with a registrar.
    pub fn with_registrar_mut<R>(
        &mut self,
        id: NodeId,
        act: impl FnOnce(&mut Registrar, Instant) -> R,
    ) -> R {
        let Role::Registrar(registrar) = &mut self.nodes[id].role else { panic!("no registrar") };
        let result = act(registrar, self.now);
        self.settle(id);
        result
    }

    /// Calls `act` with a user.
    pub fn with_user<R>(&mut self, id: NodeId, act: impl FnOnce(&mut User, Instant) -> R) -> R {
        let Role::User(user) = &mut self.nodes[id].role else { panic!("no user") };
        let result = act(user, self.now);
        self.settle(id);
        result
    }

    /// Returns the number of elements that a registrar has.
    #[must_use]
    pub fn elements(&self, id: NodeId) -> usize {
        self.with_registrar(id).elements()
    }

    /// Returns the identifiers of a registrar's elements and of their home registrars.
    #[must_use]
    pub fn homes(&self, id: NodeId) -> Vec<(u32, u32)> {
        let mut homes: Vec<_> = self
            .with_registrar(id)
            .members()
            .map(|(_, element)| (element.identifier.0, element.home_registrar.0))
            .collect();
        homes.sort_unstable();
        homes
    }

    /// Returns a registrar.
    #[must_use]
    pub fn with_registrar(&self, id: NodeId) -> &Registrar {
        self.nodes[id].role.registrar().expect("a registrar")
    }

    /// Connects the test to a node, for ASAP.
    pub fn connect(&mut self, to: NodeId) -> ConnectionId {
        self.connect_for(Ppid::ASAP, to)
    }

    /// Connects the test to a node.
    pub fn connect_for(&mut self, protocol: Ppid, to: NodeId) -> ConnectionId {
        self.connect_from(99, protocol, to)
    }

    /// Connects the test to a node, from the address of the host with the number `host`.
    pub fn connect_from(&mut self, host: usize, protocol: Ppid, to: NodeId) -> ConnectionId {
        self.connect_at(address(host), protocol, to)
    }

    /// Connects the test to a node, from this address.
    pub fn connect_at(
        &mut self,
        from: TransportAddress,
        protocol: Ppid,
        to: NodeId,
    ) -> ConnectionId {
        let now = self.now;
        let identity = self.identities.get(&from.host()).cloned();
        let theirs = self.nodes[to].role.accept(now, protocol, from, identity);
        self.connections += 1;
        let ours = ConnectionId(1000 + self.connections);
        self.links.push(((TEST, ours), (to, theirs)));
        self.settle(to);
        ours
    }

    /// Returns whether a connection of the test is open at the other end.
    #[must_use]
    pub fn is_open(&self, on: ConnectionId) -> bool {
        self.other_end((TEST, on)).is_some()
    }

    /// Sends a message on a connection of the test.
    pub fn send(&mut self, on: ConnectionId, message: UserMessage) {
        let end = self.other_end((TEST, on)).expect("an open connection");
        self.deliveries.push_back(Delivery::Message(end, message));
        self.run(Duration::ZERO);
    }

    /// Closes a connection of the test.
    pub fn close(&mut self, on: ConnectionId) {
        let end = self.other_end((TEST, on)).expect("an open connection");
        self.links.retain(|(one, other)| ![*one, *other].contains(&(TEST, on)));
        self.deliveries.push_back(Delivery::Connection(end, ConnectionEvent::Closed));
        self.run(Duration::ZERO);
    }

    /// Breaks the connections of a node and stops it for good, as SIGKILL does.
    pub fn kill(&mut self, id: NodeId) {
        self.nodes[id].state = NodeState::Dead;
        let (broken, kept) = std::mem::take(&mut self.links)
            .into_iter()
            .partition(|(one, other)| one.0 == id || other.0 == id);
        self.links = kept;
        let broken: Vec<(End, End)> = broken;
        for (one, other) in broken {
            let survivor = if one.0 == id { other } else { one };
            self.deliveries.push_back(Delivery::Connection(survivor, ConnectionEvent::Lost));
        }
    }

    /// Breaks the connections of a node, which stays alive.
    pub fn disconnect(&mut self, id: NodeId) {
        let state = self.nodes[id].state;
        let ends: Vec<_> = self.links.iter().flat_map(|(one, other)| [*one, *other]).collect();
        self.kill(id);
        self.nodes[id].state = state;
        for end in ends.into_iter().filter(|end| end.0 == id) {
            self.deliveries.push_back(Delivery::Connection(end, ConnectionEvent::Lost));
        }
    }

    /// Stops a node for a while, as SIGSTOP does.
    pub fn pause(&mut self, id: NodeId) {
        self.nodes[id].state = NodeState::Paused;
    }

    /// Lets a paused node continue, or a dead one accept connections again.
    pub fn resume(&mut self, id: NodeId) {
        self.nodes[id].state = NodeState::Running;
        self.deliveries.extend(self.held.drain(..));
    }

    /// Changes the address of a host. Its connections stay open, and their other ends are told.
    pub fn readdress(&mut self, id: NodeId, address: TransportAddress) {
        self.nodes[id].address = address;
        let links = self.links.iter().flat_map(|(one, other)| [(*one, *other), (*other, *one)]);
        let others: Vec<_> = links.filter(|(end, _)| end.0 == id).map(|(_, other)| other).collect();
        for other in others {
            let event = self.addresses_between(other.0, id);
            self.deliveries.push_back(Delivery::Connection(other, event));
        }
    }

    fn addresses_between(&self, id: NodeId, other: NodeId) -> ConnectionEvent {
        // A node without a machine is the test, which is at the address of its connection.
        let address = |id: NodeId| match self.nodes.get(id) {
            Some(node) => node.address.clone(),
            None => address(99),
        };
        ConnectionEvent::Addresses { local: address(id), peer: address(other) }
    }

    fn other_end(&self, end: End) -> Option<End> {
        self.links.iter().find_map(|(one, other)| match end {
            end if end == *one => Some(*other),
            end if end == *other => Some(*one),
            _ => None,
        })
    }

    /// Performs the outputs of a node.
    fn settle(&mut self, id: NodeId) {
        let (mut measured, mut events) = (Vec::new(), Vec::new());
        loop {
            let Some(output) = self.nodes[id].role.poll_output() else {
                if let Some((connection, time)) = measured.pop() {
                    self.nodes[id].role.handle_round_trip(self.now, connection, time);
                } else if let Some((connection, event)) = events.pop() {
                    self.nodes[id].role.handle_connection(self.now, connection, event);
                } else {
                    break;
                }
                continue;
            };
            let at = self.now - self.start;
            match output {
                Output::Connect { connection, protocol, to } => {
                    self.deliveries.push_back(Delivery::Connect((id, connection), protocol, to));
                }
                Output::Send { connection, message } => {
                    let table_request = (message.ppid, message.payload[0]) == (Ppid::ENRP, 2);
                    self.requests += usize::from(table_request);
                    if let Some(end) = self.other_end((id, connection)) {
                        self.deliveries.push_back(Delivery::Message(end, message));
                    }
                }
                Output::Close { connection, abort } => {
                    let end = (id, connection);
                    self.held.retain(
                        |held| !matches!(held, Delivery::Connect(held, ..) if *held == end),
                    );
                    if let Some(other) = self.other_end(end) {
                        self.links.retain(|(one, two)| *one != end && *two != end);
                        let event =
                            if abort { ConnectionEvent::Lost } else { ConnectionEvent::Closed };
                        self.deliveries.push_back(Delivery::Connection(other, event));
                    }
                }
                Output::Measure(connection) => {
                    if let Some(time) = self.round_trip {
                        measured.push((connection, time));
                    }
                }
                Output::Addresses(connection) => {
                    if self.follows_addresses
                        && let Some((other, _)) = self.other_end((id, connection))
                    {
                        events.push((connection, self.addresses_between(id, other)));
                    }
                }
                Output::Announce(message) => self.announced.push((at, id, message)),
                Output::Event(event) => self.events.push((at, id, event)),
            }
        }
    }

    fn deliver(&mut self, delivery: Delivery) {
        let now = self.now;
        let target = match &delivery {
            Delivery::Message((id, _), _) | Delivery::Connection((id, _), _) => *id,
            Delivery::Connect(_, _, to) => {
                match self.nodes.iter().position(|node| node.address.reaches_same(to)) {
                    Some(id) => id,
                    None => return self.refuse(delivery),
                }
            }
        };
        if target == TEST {
            if let Delivery::Message((_, connection), message) = delivery {
                self.received.push((connection, message));
            }
            return;
        }
        match (self.nodes[target].state, delivery) {
            (NodeState::Paused, delivery) => self.held.push(delivery),
            (NodeState::Dead, delivery @ Delivery::Connect(..)) => self.refuse(delivery),
            (NodeState::Dead, _) => {}
            (NodeState::Running, Delivery::Message((id, connection), message)) => {
                let node = &mut self.nodes[id];
                node.role.handle_message(now, connection, message);
                self.settle(id);
            }
            (NodeState::Running, Delivery::Connection((id, connection), event)) => {
                let node = &mut self.nodes[id];
                node.role.handle_connection(now, connection, event);
                self.settle(id);
            }
            (NodeState::Running, Delivery::Connect(end, protocol, _)) => {
                let peer = TransportAddress { port: 40_000, ..self.nodes[end.0].address.clone() };
                let identity = self.identities.get(&peer.host()).cloned();
                let node = &mut self.nodes[target];
                let theirs = node.role.accept(now, protocol, peer.clone(), identity);
                let local = node.address.clone();
                self.links.push((end, (target, theirs)));
                self.settle(target);
                let identity = self.identities.get(&local.host()).cloned();
                let (local, peer) = (peer, local);
                let event = ConnectionEvent::Established { local, peer, identity };
                self.deliveries.push_back(Delivery::Connection(end, event));
            }
        }
    }

    fn refuse(&mut self, delivery: Delivery) {
        if let Delivery::Connect(end, ..) = delivery {
            self.deliveries.push_back(Delivery::Connection(end, ConnectionEvent::Refused));
        }
    }

    /// Lets `duration` pass.
    pub fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        let mut steps = (self.now, 0_u32);
        loop {
            // A machine that handles timers at one point of time for ever would block the test.
            steps = if steps.0 == self.now { (self.now, steps.1 + 1) } else { (self.now, 0) };
            assert!(steps.1 < 100_000, "no end at {:?}", self.now - self.start);
            let mut delivered = 0;
            while let Some(delivery) = self.deliveries.pop_front() {
                delivered += 1;
                assert!(delivered < 100_000, "no end of {delivery:?}");
                self.deliver(delivery);
            }
            let next = self
                .nodes
                .iter_mut()
                .enumerate()
                .filter(|(_, node)| node.state == NodeState::Running)
                .filter_map(|(id, node)| node.role.poll_timeout().map(|time| (time, id)))
                .min();
            match next {
                Some((time, id)) if time <= end => {
                    self.now = self.now.max(time);
                    let now = self.now;
                    self.nodes[id].role.handle_timeout(now);
                    self.settle(id);
                }
                _ => break,
            }
        }
        self.now = end;
    }

    /// Removes and returns the events of a node.
    pub fn take_events(&mut self, id: NodeId) -> Vec<Event> {
        let (taken, kept) =
            std::mem::take(&mut self.events).into_iter().partition(|(_, node, _)| *node == id);
        self.events = kept;
        let taken: Vec<(Duration, NodeId, Event)> = taken;
        taken.into_iter().map(|(_, _, event)| event).collect()
    }
}
