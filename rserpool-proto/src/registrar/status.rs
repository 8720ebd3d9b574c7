//! The state of a registrar, for operators and for programs that embed one.

use std::time::{Duration, Instant};

use super::membership::{KeepAlive, Watch};
use super::mentor::Joining;
use super::peers::Peer;
use super::{Registrar, RegistrarCounters};
use crate::Identity;
use crate::handlespace::ElementKey;
use crate::wire::{
    PolicyType, PoolElement, PoolHandle, RegistrarId, TransportAddress, TransportProtocol,
};

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
    /// Numbers of what happened.
    pub counters: RegistrarCounters,
}

/// The state of another registrar, as this one sees it.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct PeerStatus {
    /// The peer's identifier.
    pub identifier: RegistrarId,
    /// Whether the peer is believed to be alive.
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

/// Whether another registrar is believed to be alive (RFC 5353 sections 3.4 and 3.5).
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

    /// Returns the state of up to `limit` pools, beginning after the last one of an earlier call,
    /// and where to go on if there are more. Pools that are added between two calls may be missed.
    #[must_use]
    pub fn pools(&self, after: Option<usize>, limit: usize) -> (Vec<PoolStatus>, Option<usize>) {
        let first = after.map_or(0, |after| after + 1);
        let mut last = None;
        let pools = self.handlespace.pools_from(first).take(limit);
        let pools = pools.map(|(number, handle, kind, elements)| {
            last = Some(number);
            PoolStatus {
                handle: handle.clone(),
                policy: kind.policy_type(),
                transport: kind.protocol(),
                elements,
            }
        });
        let pools: Vec<_> = pools.collect();
        let next = last.filter(|_| pools.len() == limit);
        (pools, next)
    }

    /// Returns the state of up to `limit` elements of all pools, beginning after the last one of an
    /// earlier call, and where to go on if there are more. Elements that are added between two calls
    /// may be missed.
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

    /// Returns the elements of a pool.
    #[must_use]
    pub fn members_of(&self, pool: &PoolHandle) -> Vec<ElementKey> {
        self.handlespace.members(pool).collect()
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

    fn element_status(&self, now: Instant, key: ElementKey) -> Option<ElementStatus> {
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
            owner: state.charge.owner.clone(),
        })
    }
}
