//! The connections of the virtual network: which hosts reach each other, and the delivery of what
//! they send.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use crate::wire::{Ppid, TransportAddress, TransportProtocol, UserMessage};
use crate::{ConnectionEvent, ConnectionId, Machine};
use rand::RngExt;

use super::{HostId, Incoming, Network, Occurrence, pair};
use crate::testing::role::Role;

/// The maximum number of items that may wait to be sent on one connection.
pub(super) const MAX_BACKLOG: usize = 2_000;

pub(super) type LinkId = u64;

/// An end of a connection: of the host that made it, or of the one that accepted it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Dialler,
    Acceptor,
}

impl Side {
    pub(super) fn other(self) -> Self {
        match self {
            Self::Dialler => Self::Acceptor,
            Self::Acceptor => Self::Dialler,
        }
    }
}

#[derive(Debug)]
pub(super) struct Link {
    pub(super) protocol: Ppid,
    pub(super) to: TransportAddress,
    pub(super) ends: [Option<End>; 2],
}

#[derive(Debug)]
pub(super) struct End {
    pub(super) host: HostId,
    pub(super) incarnation: u64,
    pub(super) name: Option<ConnectionId>,
    pub(super) open: bool,
    /// True if the kernel of this end gave the connection up; the process may not have noticed yet.
    pub(super) broken: bool,
    /// True if this end has been sent a notification that the other end is closed.
    pub(super) told: bool,
    /// The time at which the last item that was sent to this end arrives.
    pub(super) arrival: Duration,
    /// Items that were sent to this end and lost, which the other end will send again.
    pub(super) backlog: VecDeque<Item>,
}

impl End {
    pub(super) fn new(host: HostId, incarnation: u64, name: Option<ConnectionId>) -> Self {
        let arrival = Duration::ZERO;
        Self {
            host,
            incarnation,
            name,
            open: true,
            broken: false,
            told: false,
            arrival,
            backlog: VecDeque::new(),
        }
    }
}

impl Link {
    pub(super) fn end(&self, side: Side) -> Option<&End> {
        self.ends[side as usize].as_ref()
    }

    pub(super) fn end_mut(&mut self, side: Side) -> Option<&mut End> {
        self.ends[side as usize].as_mut()
    }
}

/// An item that arrives at an end of a connection.
#[derive(Debug)]
pub(super) enum Item {
    Accept(TransportAddress),
    Established { local: TransportAddress, peer: TransportAddress },
    Message(UserMessage),
    Over(ConnectionEvent),
}

impl Network {
    /// Breaks a random connection. Returns false if there is none.
    pub(in super::super) fn break_connection(&mut self) -> bool {
        let open: Vec<_> = self
            .links
            .iter()
            .filter(|(_, link)| link.ends.iter().flatten().filter(|end| end.open).count() == 2)
            .map(|(id, _)| *id)
            .collect();
        if open.is_empty() {
            return false;
        }
        let link = open[self.rng.random_range(0..open.len())];
        for side in [Side::Dialler, Side::Acceptor] {
            self.transmit(link, side, Item::Over(ConnectionEvent::Lost));
        }
        true
    }

    /// Drops all packets from `from` to `to` from now on.
    pub(in super::super) fn cut(&mut self, from: HostId, to: HostId) {
        self.cuts.insert((from, to));
        self.parted = self.now;
        self.listen_again();
    }

    /// Lets all packets through again, except to and from hosts without power.
    pub(in super::super) fn mend(&mut self) {
        if !self.cuts.is_empty() {
            self.parted = self.now;
        }
        self.cuts.clear();
        self.listen_again();
    }

    /// Returns whether no cut has separated hosts with power since `time`.
    pub(in super::super) fn whole_since(&self, time: Duration) -> bool {
        self.cuts.is_empty() && self.parted <= time
    }

    /// Updates the pairs of hosts that reach each other, after a cut or a change of power.
    pub(super) fn listen_again(&mut self) {
        let up = |id: HostId| self.hosts[id].up;
        let mut deaf = BTreeSet::new();
        for from in 0..self.hosts.len() {
            for to in 0..self.hosts.len() {
                if from != to && (self.cuts.contains(&(from, to)) || !up(from) || !up(to)) {
                    deaf.insert((from, to));
                }
            }
        }
        let before = std::mem::replace(&mut self.deaf, deaf);
        let apart: BTreeSet<_> = self.deaf.iter().map(|(one, other)| pair(*one, *other)).collect();
        let known: Vec<_> = self.apart.keys().copied().collect();
        for together in known.into_iter().filter(|pair| !apart.contains(pair)) {
            self.apart.remove(&together);
            self.tell_orphans(together);
        }
        for pair in apart {
            if !self.apart.contains_key(&pair) {
                self.apart.insert(pair, self.now);
                self.begin_silence(pair);
            }
        }
        let heard: Vec<_> = before.difference(&self.deaf).copied().collect();
        for (from, to) in heard {
            self.send_backlog(from, to);
        }
    }

    fn between(&self, (one, other): (HostId, HostId)) -> Vec<LinkId> {
        let joins = |link: &Link| match (link.end(Side::Dialler), link.end(Side::Acceptor)) {
            (Some(dialler), Some(acceptor)) => {
                pair(dialler.host, acceptor.host) == pair(one, other)
            }
            _ => false,
        };
        self.links.iter().filter(|(_, link)| joins(link)).map(|(id, _)| *id).collect()
    }

    fn begin_silence(&mut self, hosts: (HostId, HostId)) {
        let since = self.now;
        for link in self.between(hosts) {
            for side in [Side::Dialler, Side::Acceptor] {
                let timeout = self.rng.random_range(self.weather.silence.clone());
                self.schedule(since + timeout, Occurrence::Silence { link, side, since });
            }
        }
    }

    /// Notifies each open end of a connection between two hosts if the other end is closed. Called
    /// when packets between these hosts arrive again.
    fn tell_orphans(&mut self, hosts: (HostId, HostId)) {
        for link in self.between(hosts) {
            for side in [Side::Dialler, Side::Acceptor] {
                let Some(ends) = self.links.get(&link) else { continue };
                let over = ends.end(side.other()).is_some_and(|end| !end.open || end.broken);
                if over && ends.end(side).is_some_and(|end| end.open && !end.told) {
                    let delay = self.rng.random_range(Duration::ZERO..self.weather.retransmission);
                    self.put(link, side, delay, Item::Over(ConnectionEvent::Lost));
                }
            }
        }
    }

    fn send_backlog(&mut self, from: HostId, to: HostId) {
        for link in self.between((from, to)) {
            let delay = self.rng.random_range(Duration::ZERO..self.weather.retransmission);
            for side in [Side::Dialler, Side::Acceptor] {
                let Some(end) = self.links.get_mut(&link).and_then(|link| link.end_mut(side))
                else {
                    continue;
                };
                if end.host == to {
                    for item in std::mem::take(&mut end.backlog) {
                        self.put(link, side, delay, item);
                    }
                }
            }
        }
    }

    /// Sends an item to an end of a connection.
    pub(super) fn transmit(&mut self, id: LinkId, to: Side, item: Item) {
        let Some(link) = self.links.get_mut(&id) else { return };
        let from = link.end(to.other()).map(|end| end.host);
        let Some(end) = link.end_mut(to).filter(|end| end.open && !end.broken) else { return };
        if from.is_some_and(|from| self.deaf.contains(&(from, end.host))) {
            match item {
                // A reset of the connection is not retransmitted. The first later packet that
                // arrives at the closed end triggers another one.
                Item::Over(ConnectionEvent::Lost) => {}
                item => end.backlog.push_back(item),
            }
            if end.backlog.len() > MAX_BACKLOG {
                self.violate(format!("{MAX_BACKLOG} messages wait on one connection"));
            }
            return;
        }
        self.put(id, to, Duration::ZERO, item);
    }

    pub(super) fn put(&mut self, id: LinkId, to: Side, delay: Duration, item: Item) {
        let latency = self.rng.random_range(self.weather.latency.clone());
        let Some(end) = self.links.get_mut(&id).and_then(|link| link.end_mut(to)) else { return };
        end.told |= matches!(item, Item::Over(_));
        end.arrival = end.arrival.max(self.now + latency + delay);
        let arrival = end.arrival;
        self.schedule(arrival, Occurrence::Arrival(id, to, item));
    }

    /// Closes one end. The link is forgotten when both ends are closed.
    pub(super) fn shut(&mut self, id: LinkId, side: Side) {
        let Some(link) = self.links.get_mut(&id) else { return };
        if let Some(end) = link.end_mut(side) {
            end.open = false;
            end.backlog.clear();
        }
        if link.ends.iter().flatten().all(|end| !end.open) {
            self.links.remove(&id);
        }
    }

    pub(super) fn attempt(&mut self, id: LinkId, deadline: Duration) {
        let Some(link) = self.links.get(&id) else { return };
        let Some(dialler) = link.end(Side::Dialler).filter(|end| end.open) else { return };
        let from = dialler.host;
        let to = link.to.clone();
        let Some(target) = self.hosts.iter().position(|host| host.address.reaches_same(&to)) else {
            return self.put(id, Side::Dialler, Duration::ZERO, Item::Over(ConnectionEvent::Lost));
        };
        if target != from && !self.reach(from, target) {
            if self.now >= deadline {
                let over = Item::Over(ConnectionEvent::Lost);
                return self.put(id, Side::Dialler, Duration::ZERO, over);
            }
            let again = self.now + Duration::from_secs(1);
            return self.schedule(again, Occurrence::Attempt { link: id, deadline });
        }
        let host = &self.hosts[target];
        let listens = match host.process.as_ref().map(|process| &process.role) {
            Some(Role::Registrar(_)) => true,
            Some(Role::Element(_)) => link.protocol == Ppid::ASAP,
            Some(Role::Adversary(_)) => true,
            Some(Role::User(_)) | None => false,
        };
        if !listens {
            return self.transmit(id, Side::Dialler, Item::Over(ConnectionEvent::Refused));
        }
        let mut peer = self.hosts[from].address.clone();
        if peer.protocol == TransportProtocol::Tcp {
            peer.port = 40_000;
        }
        let (incarnation, address) = (host.incarnation, host.address.clone());
        let end = End::new(target, incarnation, None);
        self.links.get_mut(&id).expect("looked up").ends[Side::Acceptor as usize] = Some(end);
        self.arrive(id, Side::Acceptor, Item::Accept(peer.clone()));
        let established = Item::Established { local: peer, peer: address };
        self.transmit(id, Side::Dialler, established);
    }

    pub(super) fn give_up(&mut self, id: LinkId, side: Side, since: Duration) {
        let Some(link) = self.links.get(&id) else { return };
        let (Some(dialler), Some(acceptor)) = (link.end(Side::Dialler), link.end(Side::Acceptor))
        else {
            return;
        };
        let still = self.apart.get(&pair(dialler.host, acceptor.host)) == Some(&since);
        if !still || link.end(side).is_none_or(|end| !end.open || end.broken || end.told) {
            return;
        }
        if let Some(end) = self.links.get_mut(&id).and_then(|link| link.end_mut(side)) {
            end.broken = true;
        }
        self.arrive(id, side, Item::Over(ConnectionEvent::Lost));
        self.transmit(id, side.other(), Item::Over(ConnectionEvent::Lost));
    }

    /// Handles the arrival of an item at an end of a connection.
    pub(super) fn arrive(&mut self, id: LinkId, side: Side, item: Item) {
        let Some(link) = self.links.get_mut(&id) else { return };
        let protocol = link.protocol;
        let Some(end) = link.end_mut(side).filter(|end| end.open) else { return };
        let (host, name) = (end.host, end.name);
        if self.hosts[host].incarnation != end.incarnation {
            return;
        }
        let Some(process) = &mut self.hosts[host].process else { return };
        if process.paused {
            process.inbox.push_back(Incoming::Item(id, side, item));
            return;
        }
        let now = process.clock.at(self.now);
        match (item, name) {
            (Item::Accept(peer), _) => {
                let name = process.role.accept(now, protocol, peer, None);
                end.name = Some(name);
                process.connections.insert(name, (id, side));
                self.trace.line(self.now, || {
                    format!("{} accepts connection {}", self.hosts[host].name, name.0)
                });
            }
            (Item::Established { local, peer }, Some(name)) => {
                let event = ConnectionEvent::Established { local, peer, identity: None };
                process.role.handle_connection(now, name, event);
            }
            (Item::Message(message), Some(name)) => {
                process.role.handle_message(now, name, message);
            }
            (Item::Over(event), Some(name)) => {
                process.connections.remove(&name);
                process.role.handle_connection(now, name, event);
                self.trace.line(self.now, || {
                    format!("{}: connection {} is over", self.hosts[host].name, name.0)
                });
                self.shut(id, side);
            }
            (item, None) => panic!("{item:?} for a connection that was not accepted"),
        }
        self.settle(host);
    }
}
