//! The state of a registrar, for operators and for programs that embed one.

use std::time::{Duration, Instant};

use super::membership::{KeepAlive, Watch};
use super::mentor::Joining;
use super::peers::Peer;
use super::{Registrar, RegistrarCounters};
use crate::handlespace::{Checksum, ElementKey};
use crate::wire::{
    PolicyType, PoolElement, PoolHandle, RegistrarId, TransportAddress, TransportProtocol,
};
use crate::{Footprint, Identity};

/// The state of a registrar as a whole.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct RegistrarStatus {
    /// The registrar's identifier.
    pub identifier: RegistrarId,
    /// True if the registrar has the handlespace of the other registrars, or found no other.
    pub joined: bool,
    /// True if the registrar answers that unknown pools do not exist: elements have had time to
    /// register.
    pub ready: bool,
    /// Number of pools.
    pub pools: usize,
    /// Number of elements.
    pub elements: usize,
    /// Number of elements whose home registrar this one is.
    pub own_elements: usize,
    /// Number of connections to elements, users and other registrars.
    pub connections: usize,
    /// Number of subscriptions of users to pools.
    pub subscriptions: usize,
    /// The other registrars.
    pub peers: Vec<PeerStatus>,
    /// Numbers of events and messages since the start.
    pub counters: RegistrarCounters,
}

/// The state of another registrar, as this one sees it.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct PeerStatus {
    /// The peer's identifier.
    pub identifier: RegistrarId,
    /// Condition of the peer.
    pub condition: PeerCondition,
    /// The peer's ENRP address: as it announced it, or as this registrar reaches it.
    pub address: Option<TransportAddress>,
    /// True if there is a connection to the peer.
    pub connected: bool,
    /// Time since the last message of the peer.
    pub heard: Duration,
    /// Number of elements whose home registrar the peer is.
    pub elements: usize,
    /// The identity of the peer; `None` if the transport does not authenticate.
    pub identity: Option<Identity>,
}

/// Condition of another registrar: whether it is believed to be alive (RFC 5353 sections 3.4 and 3.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PeerCondition {
    /// Messages arrive.
    Alive,
    /// The peer is silent, and was asked for its presence.
    Suspected,
    /// The peer is dead, and this registrar takes over its elements.
    TakenOver,
    /// The peer is dead, and another registrar takes over its elements.
    Inactive,
}

/// The state of a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolStatus {
    /// The pool handle.
    pub handle: PoolHandle,
    /// The policy of the pool.
    pub policy: PolicyType,
    /// The transport protocol of its elements; `None` if they have a kind of address that this
    /// implementation does not know.
    pub transport: Option<TransportProtocol>,
    /// Number of elements.
    pub elements: usize,
}

/// The state of an element.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ElementStatus {
    /// The pool of the element.
    pub pool: PoolHandle,
    /// The element as it registered last, with its home registrar.
    pub element: PoolElement,
    /// Time since the last registration at this registrar; `None` if it is not the home, or took
    /// the element over.
    pub registered: Option<Duration>,
    /// Time since the last message over the connection to the element, or since the connection
    /// began; `None` if there is none.
    pub heard: Option<Duration>,
    /// True if the element has not answered a keep-alive yet.
    pub asked: bool,
    /// True if the element is offered after others: users reported it as unreachable and it has not
    /// answered since, or its home registrar does not have it.
    pub doubted: bool,
    /// True if an operator drains the element, so that nobody is told of it.
    pub drained: bool,
    /// The identity that registered the element, if this registrar knows it.
    pub owner: Option<Identity>,
}

impl Registrar {
    /// Returns the state of the registrar, without its pools and elements.
    #[must_use]
    pub fn status(&self, now: Instant) -> RegistrarStatus {
        let footprint = self.footprint();
        let peers = self.peers.known.iter();
        RegistrarStatus {
            identifier: self.config.identifier,
            joined: matches!(self.joining, Joining::Done),
            ready: self.ready,
            pools: self.handlespace.pool_count(),
            elements: self.handlespace.len(),
            own_elements: self.handlespace.count_owned_by(self.config.identifier),
            connections: footprint.connections,
            subscriptions: footprint.subscriptions,
            peers: peers
                .map(|(identifier, peer)| self.peer_status(now, *identifier, peer))
                .collect(),
            counters: self.counters.clone(),
        }
    }

    fn peer_status(&self, now: Instant, identifier: RegistrarId, peer: &Peer) -> PeerStatus {
        let link = peer.connection.and_then(|connection| self.peers.links.get(&connection));
        PeerStatus {
            identifier,
            condition: peer.state.condition(),
            address: peer.transport.clone().or_else(|| Some(link?.address.clone())),
            connected: link.is_some(),
            heard: now.saturating_duration_since(peer.last_heard),
            elements: self.handlespace.count_owned_by(identifier),
            identity: link.and_then(|link| link.identity.clone()),
        }
    }

    /// Returns the state of a pool; `None` if there is no such pool.
    #[must_use]
    pub fn pool(&self, handle: &PoolHandle) -> Option<PoolStatus> {
        let kind = self.handlespace.kind(handle)?;
        Some(PoolStatus {
            handle: handle.clone(),
            policy: kind.policy_type(),
            transport: kind.protocol(),
            elements: self.handlespace.pool_size(handle),
        })
    }

    /// Returns the state of up to `limit` pools, beginning after the position `after`, and the
    /// position of the last one if there may be more. Pools that are added between two calls may be
    /// missed.
    #[must_use]
    pub fn pools(&self, after: Option<u32>, limit: usize) -> (Vec<PoolStatus>, Option<u32>) {
        let found: Vec<_> = self.handlespace.pools(after).take(limit).collect();
        let last = found.last().map(|(position, _)| *position);
        let pools: Vec<_> = found.iter().filter_map(|(_, handle)| self.pool(handle)).collect();
        (pools, last.filter(|_| found.len() == limit))
    }

    /// Returns the state of up to `limit` elements of all pools, beginning after `after`, and the last
    /// one if there may be more. Elements that are added between two calls may be missed.
    #[must_use]
    pub fn elements_after(
        &self,
        now: Instant,
        after: Option<ElementKey>,
        limit: usize,
    ) -> (Vec<ElementStatus>, Option<ElementKey>) {
        let keys: Vec<_> = self.handlespace.all(after).take(limit).collect();
        let elements = keys.iter().filter_map(|key| self.element_status(now, *key)).collect();
        (elements, keys.last().copied().filter(|_| keys.len() == limit))
    }

    /// Returns up to `limit` elements of a pool in the order of their positions, beginning after
    /// `after`.
    #[must_use]
    pub fn members_of(
        &self,
        pool: &PoolHandle,
        after: Option<ElementKey>,
        limit: usize,
    ) -> Vec<ElementKey> {
        let members = self.handlespace.members(pool).filter(|key| Some(*key) > after);
        let mut keys: Vec<_> = members.collect();
        if keys.len() > limit {
            keys.select_nth_unstable(limit);
            keys.truncate(limit);
        }
        keys.sort_unstable();
        keys
    }

    /// Returns the state of these elements, as far as they are in this pool.
    #[must_use]
    pub fn elements_at(
        &self,
        now: Instant,
        pool: &PoolHandle,
        keys: &[ElementKey],
    ) -> Vec<ElementStatus> {
        let elements = keys.iter().filter(|key| self.handlespace.handle_of(**key) == Some(pool));
        elements.filter_map(|key| self.element_status(now, *key)).collect()
    }

    pub(super) fn element_status(&self, now: Instant, key: ElementKey) -> Option<ElementStatus> {
        let pool = self.handlespace.handle_of(key)?;
        let element = self.handlespace.get(key)?;
        let state = &element.state;
        let since = |time: Instant| now.saturating_duration_since(time);
        let client = state.connection.and_then(|connection| self.connections.get(&connection));
        let custody = match &state.watch {
            Watch::Home(custody) => Some(custody),
            Watch::Elsewhere(_) => None,
        };
        Some(ElementStatus {
            pool: pool.clone(),
            element: element.value(),
            registered: custody.and_then(|custody| custody.registered).map(since),
            heard: client.map(|client| since(client.heard)),
            asked: custody.is_some_and(|it| matches!(it.keep_alive, KeepAlive::Asked { .. })),
            doubted: state.is_doubted(),
            drained: self.is_drained(key),
            owner: state.charge.owner.clone(),
        })
    }

    /// Returns what the registrar has counted since it started, as far as its outputs were taken.
    #[must_use]
    pub fn counters(&self) -> &RegistrarCounters {
        &self.counters
    }

    /// Returns the number of elements.
    #[must_use]
    pub fn elements(&self) -> usize {
        self.handlespace.len()
    }

    /// Returns the elements and their pools, in no particular order.
    pub fn members(&self) -> impl Iterator<Item = (&PoolHandle, PoolElement)> {
        self.handlespace.all(None).filter_map(|key| {
            Some((self.handlespace.handle_of(key)?, self.handlespace.get(key)?.value()))
        })
    }

    /// Returns the checksum of the elements whose home registrar is `home`.
    #[must_use]
    pub fn checksum(&self, home: RegistrarId) -> Checksum {
        self.handlespace.checksum(home)
    }

    /// Returns the number of items that the registrar holds besides the elements.
    #[must_use]
    pub fn footprint(&self) -> Footprint {
        Footprint {
            connections: self.connections.len() + self.peers.links(),
            timers: self.timers.len(),
            waiting: self.deferred.len(),
            subscriptions: self.subscriptions.len(),
            counted_hosts: self.shares.watched(),
            rivals: self.rivals.len(),
        }
    }

    /// Returns the other registrars that this one knows and believes to be alive.
    #[must_use]
    pub fn peers(&self) -> Vec<RegistrarId> {
        self.peers.active().map(|(identifier, _)| identifier).collect()
    }
}
