//! A virtual network: hosts, their processes, and the delivery of what they send.
//!
//! The network is as reliable as SCTP and TCP. Messages on a connection arrive in order, late if
//! packets are lost, or the connection breaks. If two hosts do not reach each other, in one
//! direction or in both, nothing arrives or is acknowledged between them, and each end closes the
//! connection after a timeout of its own.

mod links;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::time::{Duration, Instant};

use crate::wire::{Ppid, TransportAddress, UserMessage};
use crate::{ConnectionEvent, ConnectionId, Machine, Output, element, registrar};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use links::{End, Item, Link, LinkId, MAX_BACKLOG, Side};

use super::clock::Clock;
use super::trace::{Trace, describe, describe_event};
use crate::testing::event::Event;
use crate::testing::role::Role;

/// Number of a host of the network.
pub(super) type HostId = usize;

/// Properties of the network.
#[derive(Debug, Clone)]
pub(super) struct Weather {
    /// The time that a packet takes.
    pub(super) latency: Range<Duration>,
    /// The time without a packet after which an end closes a connection as lost.
    pub(super) silence: Range<Duration>,
    /// The maximum time to establish a connection.
    pub(super) connecting: Duration,
    /// Delay of a retransmission after packets get through again.
    pub(super) retransmission: Duration,
    /// Probability that a multicast packet is lost, and that it is duplicated.
    pub(super) loss: f64,
    pub(super) duplication: f64,
    /// Maximum additional delay of a multicast packet, which lets later packets overtake it.
    pub(super) disorder: Duration,
}

/// The maximum number of outputs that a machine may produce for one input.
const MAX_OUTPUTS: usize = 2_000;

/// The maximum number of events of the network at one point of virtual time; more count as an
/// endless loop.
const MAX_AT_ONCE: u32 = 100_000;

/// A simulated host, which runs at most one state machine.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) name: String,
    pub(super) address: TransportAddress,
    /// True if the host has power.
    pub(super) up: bool,
    pub(super) process: Option<Process>,
    incarnation: u64,
    /// The time at which the host was last started, stopped or disturbed in another way.
    pub(super) disturbed: Duration,
}

/// A running machine.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) role: Role,
    clock: Clock,
    pub(super) paused: bool,
    /// True if the machine has deregistered or left, so that its process can end.
    finished: bool,
    /// Input that the kernel holds while the host is paused.
    inbox: VecDeque<Incoming>,
    connections: BTreeMap<ConnectionId, (LinkId, Side)>,
    wake: Option<Duration>,
}

#[derive(Debug)]
enum Incoming {
    Item(LinkId, Side, Item),
    Announcement(TransportAddress, UserMessage),
}

#[derive(Debug)]
enum Occurrence {
    Wake(HostId, u64),
    Resume(HostId, u64),
    Attempt {
        link: LinkId,
        deadline: Duration,
    },
    Arrival(LinkId, Side, Item),
    Announcement {
        to: HostId,
        source: TransportAddress,
        message: UserMessage,
    },
    /// The timeout of an end of a connection: if this end has received nothing since `since`, it
    /// closes the connection as lost.
    Silence {
        link: LinkId,
        side: Side,
        since: Duration,
    },
}

/// Counters of messages.
#[derive(Debug, Default, Clone)]
pub(super) struct Traffic {
    /// The number of messages of each protocol and type.
    pub(super) messages: BTreeMap<(u32, u8), u64>,
    /// Pairs of sender and receiver of keep-alives since the set was last cleared.
    pub(super) keep_alives: BTreeSet<(HostId, HostId)>,
    pub(super) steps: u64,
}

/// The network.
#[derive(Debug)]
pub(super) struct Network {
    now: Duration,
    base: Instant,
    rng: StdRng,
    weather: Weather,
    hosts: Vec<Host>,
    links: BTreeMap<LinkId, Link>,
    last_link: LinkId,
    queue: BTreeMap<(Duration, u64), Occurrence>,
    sequence: u64,
    at_once: u32,
    /// Pairs of sender and receiver between which a fault drops all packets.
    cuts: BTreeSet<(HostId, HostId)>,
    /// Pairs of sender and receiver between which no packet arrives, because of a fault or because
    /// a host has no power.
    deaf: BTreeSet<(HostId, HostId)>,
    /// The time at which a cut last began or ended.
    pub(super) parted: Duration,
    /// Pairs of hosts that do not reach each other in both directions, with the start time of that
    /// state.
    apart: BTreeMap<(HostId, HostId), Duration>,
    pub(super) traffic: Traffic,
    pub(super) trace: Trace,
    /// Events of the machines, by host.
    pub(super) events: Vec<(HostId, Event)>,
    /// The first violation of a rule.
    pub(super) violation: Option<String>,
}

fn pair(one: HostId, other: HostId) -> (HostId, HostId) {
    (one.min(other), one.max(other))
}

impl Network {
    pub(super) fn new(seed: u64, weather: Weather, trace: Trace) -> Self {
        #[allow(clippy::disallowed_methods, reason = "any instant will do")]
        let base = Instant::now();
        Self {
            now: Duration::ZERO,
            base,
            rng: StdRng::seed_from_u64(seed),
            weather,
            hosts: Vec::new(),
            links: BTreeMap::new(),
            last_link: 0,
            queue: BTreeMap::new(),
            sequence: 0,
            at_once: 0,
            cuts: BTreeSet::new(),
            deaf: BTreeSet::new(),
            parted: Duration::ZERO,
            apart: BTreeMap::new(),
            traffic: Traffic::default(),
            trace,
            events: Vec::new(),
            violation: None,
        }
    }

    pub(super) fn now(&self) -> Duration {
        self.now
    }

    pub(super) fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// Returns the machine that runs on a host, paused or not.
    pub(super) fn role(&self, host: HostId) -> Option<&Role> {
        self.hosts[host].process.as_ref().map(|process| &process.role)
    }

    pub(super) fn is_running(&self, host: HostId) -> bool {
        self.hosts[host].process.as_ref().is_some_and(|process| !process.paused)
    }

    /// Returns whether two hosts reach each other in both directions.
    pub(super) fn reach(&self, one: HostId, other: HostId) -> bool {
        !self.apart.contains_key(&pair(one, other))
    }

    /// Describes the connections of a process, for an error message.
    pub(super) fn connections(&self, host: HostId) -> Vec<String> {
        let Some(process) = &self.hosts[host].process else { return Vec::new() };
        let describe = |(name, (link, side)): (&ConnectionId, &(LinkId, Side))| {
            let other = self.links.get(link).and_then(|link| link.end(side.other()));
            match other {
                Some(end) if end.open => format!("{} to {}", name.0, self.hosts[end.host].name),
                Some(end) => format!("{} to {}, closed there", name.0, self.hosts[end.host].name),
                None => format!("{} to nobody", name.0),
            }
        };
        process.connections.iter().map(describe).collect()
    }

    /// Adds a host without a process.
    pub(super) fn add_host(&mut self, name: String, address: TransportAddress) -> HostId {
        let (up, process, incarnation) = (true, None, 0);
        let disturbed = self.now;
        self.hosts.push(Host { name, address, up, process, incarnation, disturbed });
        self.hosts.len() - 1
    }

    /// Starts a process on a host that has none.
    pub(super) fn start(&mut self, id: HostId, role: Role, speed: u32) {
        let clock = Clock::new(self.base, self.now, speed);
        let host = &mut self.hosts[id];
        assert!(host.process.is_none(), "one process on each host");
        host.up = true;
        host.disturbed = self.now;
        host.incarnation += 1;
        let mut process = Process {
            role,
            clock,
            paused: false,
            finished: false,
            inbox: VecDeque::new(),
            connections: BTreeMap::new(),
            wake: None,
        };
        process.role.start(clock.at(self.now));
        host.process = Some(process);
        self.listen_again();
        self.settle(id);
    }

    /// Calls `act` with a running machine.
    pub(super) fn with<R>(&mut self, id: HostId, act: impl FnOnce(&mut Role, Instant) -> R) -> R {
        let process = self.hosts[id].process.as_mut().expect("a process");
        let result = act(&mut process.role, process.clock.at(self.now));
        self.settle(id);
        result
    }

    /// Kills a process, as SIGKILL does: its kernel closes its connections.
    pub(super) fn kill(&mut self, id: HostId) {
        self.hosts[id].disturbed = self.now;
        let Some(process) = self.hosts[id].process.take() else { return };
        for (link, side) in process.connections.into_values() {
            self.shut(link, side);
            self.transmit(link, side.other(), Item::Over(ConnectionEvent::Lost));
        }
        // Connections to the host that its process has not accepted yet are closed, too.
        let unknown: Vec<_> = self
            .links
            .iter()
            .filter(|(_, link)| link.end(Side::Acceptor).is_some_and(|e| e.host == id && e.open))
            .map(|(link, _)| *link)
            .collect();
        for link in unknown {
            self.shut(link, Side::Acceptor);
            self.transmit(link, Side::Dialler, Item::Over(ConnectionEvent::Lost));
        }
    }

    /// Cuts the power of a host: its connections are not closed.
    pub(super) fn power_off(&mut self, id: HostId) {
        self.hosts[id].disturbed = self.now;
        self.hosts[id].up = false;
        self.listen_again();
        if let Some(process) = self.hosts[id].process.take() {
            for (link, side) in process.connections.into_values() {
                self.shut(link, side);
            }
        }
        for link in self.links.values_mut() {
            if let Some(end) = link.end_mut(Side::Acceptor)
                && end.host == id
            {
                end.open = false;
            }
        }
    }

    /// Pauses a process for a while, as SIGSTOP does.
    pub(super) fn pause(&mut self, id: HostId, duration: Duration) {
        let Some(process) = &mut self.hosts[id].process else { return };
        process.paused = true;
        self.hosts[id].disturbed = self.now;
        let incarnation = self.hosts[id].incarnation;
        self.schedule(self.now + duration, Occurrence::Resume(id, incarnation));
    }

    /// Resumes a process. Like the driver of this project, it handles its timers first.
    pub(super) fn resume(&mut self, id: HostId) {
        let Host { name, process: Some(process), disturbed, .. } = &mut self.hosts[id] else {
            return;
        };
        if !std::mem::replace(&mut process.paused, false) {
            return;
        }
        *disturbed = self.now;
        self.trace.line(self.now, || format!("{name} goes on"));
        let inbox = std::mem::take(&mut process.inbox);
        let now = process.clock.at(self.now);
        if process.role.poll_timeout().is_some_and(|due| due <= now) {
            process.role.handle_timeout(now);
        }
        self.settle(id);
        for incoming in inbox {
            match incoming {
                Incoming::Item(link, side, item) => self.arrive(link, side, item),
                Incoming::Announcement(source, message) => self.hear(id, source, message),
            }
        }
    }

    fn schedule(&mut self, at: Duration, occurrence: Occurrence) {
        self.sequence += 1;
        self.queue.insert((at, self.sequence), occurrence);
    }

    pub(super) fn violate(&mut self, what: String) {
        self.trace.line(self.now, || format!("VIOLATION {what}"));
        self.violation.get_or_insert(what);
    }

    /// Lets time pass until `end`, or until a rule is violated.
    pub(super) fn run_until(&mut self, end: Duration) {
        while self.violation.is_none()
            && let Some(next) = self.queue.first_entry().filter(|next| next.key().0 <= end)
        {
            let (at, _) = *next.key();
            let occurrence = next.remove();
            self.at_once = if at == self.now { self.at_once + 1 } else { 0 };
            self.now = at;
            self.traffic.steps += 1;
            if self.at_once > MAX_AT_ONCE {
                self.violate(format!("no end of things that happen at once: {occurrence:?}"));
                return;
            }
            self.occur(occurrence);
        }
        if self.violation.is_none() {
            self.now = end;
        }
    }

    fn occur(&mut self, occurrence: Occurrence) {
        match occurrence {
            Occurrence::Wake(id, incarnation) => self.wake(id, incarnation),
            Occurrence::Resume(id, incarnation) => {
                if self.hosts[id].incarnation == incarnation {
                    self.resume(id);
                }
            }
            Occurrence::Attempt { link, deadline } => self.attempt(link, deadline),
            Occurrence::Arrival(link, side, item) => self.arrive(link, side, item),
            Occurrence::Announcement { to, source, message } => self.hear(to, source, message),
            Occurrence::Silence { link, side, since } => self.give_up(link, side, since),
        }
    }

    fn wake(&mut self, id: HostId, incarnation: u64) {
        let host = &mut self.hosts[id];
        if host.incarnation != incarnation {
            return;
        }
        let Some(process) = &mut host.process else { return };
        if process.paused || process.wake != Some(self.now) {
            return;
        }
        process.wake = None;
        process.role.handle_timeout(process.clock.at(self.now));
        self.settle(id);
    }

    fn hear(&mut self, id: HostId, source: TransportAddress, message: UserMessage) {
        let Some(process) = &mut self.hosts[id].process else { return };
        if process.paused {
            if process.inbox.len() < MAX_BACKLOG {
                process.inbox.push_back(Incoming::Announcement(source, message));
            }
            return;
        }
        process.role.handle_announcement(process.clock.at(self.now), source, message);
        self.settle(id);
    }

    /// Performs the outputs of a machine, and checks the number of outputs and of connections.
    fn settle(&mut self, id: HostId) {
        let mut outputs = 0;
        while let Some(process) = &mut self.hosts[id].process
            && let Some(output) = process.role.poll_output()
        {
            outputs += 1;
            self.act(id, output);
        }
        if self.hosts[id].process.as_ref().is_some_and(|process| process.finished) {
            return self.kill(id);
        }
        let Some(process) = &mut self.hosts[id].process else { return };
        let held = process.role.footprint().connections;
        let open = process.connections.len();
        let next = process.role.poll_timeout().map(|due| process.clock.when(due).max(self.now));
        if next != process.wake {
            process.wake = next;
            let incarnation = self.hosts[id].incarnation;
            if let Some(at) = next {
                self.schedule(at, Occurrence::Wake(id, incarnation));
            }
        }
        if outputs > MAX_OUTPUTS {
            self.violate(format!("{} wants {outputs} things at once", self.hosts[id].name));
        }
        if held != open {
            let name = &self.hosts[id].name;
            self.violate(format!("{name} holds {held} connections, of which {open} are there"));
        }
    }

    fn act(&mut self, id: HostId, output: Output<Event>) {
        let process = self.hosts[id].process.as_mut().expect("it wants something");
        match output {
            Output::Connect { connection, protocol, to } => {
                self.trace.line(self.now, || {
                    let name = &self.hosts[id].name;
                    format!("{name} makes connection {} to {to}", connection.0)
                });
                let process = self.hosts[id].process.as_mut().expect("it wants something");
                self.last_link += 1;
                let link = self.last_link;
                process.connections.insert(connection, (link, Side::Dialler));
                let end = End::new(id, self.hosts[id].incarnation, Some(connection));
                self.links.insert(link, Link { protocol, to, ends: [Some(end), None] });
                let latency = self.rng.random_range(self.weather.latency.clone());
                let deadline = self.now + self.weather.connecting;
                self.schedule(self.now + latency, Occurrence::Attempt { link, deadline });
            }
            Output::Send { connection, message } => {
                let Some((link, side)) = process.connections.get(&connection).copied() else {
                    return;
                };
                self.count(id, link, side, &message);
                self.transmit(link, side.other(), Item::Message(message));
            }
            Output::Close { connection, abort } => {
                let Some((link, side)) = process.connections.remove(&connection) else { return };
                let event = if abort { ConnectionEvent::Lost } else { ConnectionEvent::Closed };
                self.trace.line(self.now, || {
                    format!("{} closes connection {}", self.hosts[id].name, connection.0)
                });
                self.transmit(link, side.other(), Item::Over(event));
                self.shut(link, side);
            }
            // The simulated transports neither measure round-trip times nor change addresses.
            Output::Measure(_) | Output::Addresses(_) => {}
            Output::Announce(message) => self.announce(id, &message),
            Output::Event(event) => {
                self.trace.line(self.now, || {
                    format!("{}: {}", self.hosts[id].name, describe_event(&event))
                });
                let process = self.hosts[id].process.as_mut().expect("it told something");
                process.finished |= matches!(
                    event,
                    Event::Element(element::Event::Deregistered(_))
                        | Event::Registrar(registrar::Event::Left)
                );
                self.events.push((id, event));
            }
        }
    }

    fn count(&mut self, from: HostId, link: LinkId, side: Side, message: &UserMessage) {
        let kind = message.payload.first().copied().unwrap_or(0);
        *self.traffic.messages.entry((message.ppid.0, kind)).or_default() += 1;
        let end = self.links.get(&link).and_then(|link| link.end(side.other()));
        let to = end.map(|end| end.host);
        if let Some(to) = to
            && (message.ppid, kind) == (Ppid::ASAP, ENDPOINT_KEEP_ALIVE)
        {
            self.traffic.keep_alives.insert((from, to));
        }
        self.trace.line(self.now, || {
            let to = to.map_or("nobody", |to| self.hosts[to].name.as_str());
            format!("{} -> {to} {}", self.hosts[from].name, describe(message))
        });
    }

    fn announce(&mut self, from: HostId, message: &UserMessage) {
        self.trace.line(self.now, || {
            format!("{} announces {}", self.hosts[from].name, describe(message))
        });
        for to in 0..self.hosts.len() {
            if to == from || self.deaf.contains(&(from, to)) {
                continue;
            }
            let copies = if self.rng.random_bool(self.weather.loss) {
                0
            } else {
                1 + u32::from(self.rng.random_bool(self.weather.duplication))
            };
            for _ in 0..copies {
                let latency = self.rng.random_range(self.weather.latency.clone());
                let late = self.rng.random_range(Duration::ZERO..self.weather.disorder);
                let source = self.hosts[from].address.clone();
                let message = message.clone();
                let occurrence = Occurrence::Announcement { to, source, message };
                self.schedule(self.now + latency + late, occurrence);
            }
        }
    }
}

/// The type of ASAP_ENDPOINT_KEEP_ALIVE.
const ENDPOINT_KEEP_ALIVE: u8 = 7;
