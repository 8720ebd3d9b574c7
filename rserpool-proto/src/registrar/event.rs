//! Events of a registrar, for its owner.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use super::Limit;
use crate::wire::{PoolElementId, PoolHandle, RegistrarId, TransportAddress, asap};

/// An event of a registrar, for logs and statistics.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "drivers handle each")]
pub enum Event {
    /// An element registered from this address and joined a pool.
    Registered(ElementName, TransportAddress),
    /// An element renewed its registration.
    Reregistered(ElementName),
    /// A registration was refused.
    Refused(ElementName, asap::RegistrationResponse),
    /// An element was removed. The address is the one at which it served its users.
    Removed(ElementName, RemovalReason, Option<TransportAddress>),
    /// An element of a peer cannot be added, for this reason.
    NotTaken(RegistrarId, String),
    /// Another registrar was found, on this host.
    PeerFound(RegistrarId, Option<IpAddr>),
    /// A connection to another registrar is established, and it has identified itself.
    PeerConnected(RegistrarId, TransportAddress),
    /// Another registrar was removed from the peer list.
    PeerLost(RegistrarId, Option<IpAddr>),
    /// A configured peer does not accept connections. Reported once until it does.
    PeerSilent(TransportAddress),
    /// Another registrar, which has elements, is considered dead.
    PeerDead(RegistrarId),
    /// An element has an address of host or link scope only, so it is not told to other hosts or
    /// links. Only registrars with a global address report this.
    Near(ElementName, TransportAddress),
    /// The registrar has downloaded the handlespace of the others, or found none.
    Joined {
        /// The number of elements.
        elements: usize,
    },
    /// The elements have had time to find this registrar, so unknown pools do not exist.
    Ready {
        /// The number of elements.
        elements: usize,
    },
    /// The registrar processed its timers late, because of its host or because of too much load. It
    /// considers nobody dead for that, and lengthens the keep-alive intervals by this factor.
    Behind {
        /// The delay.
        late: Duration,
        /// The factor.
        stretch: u32,
    },
    /// A host reached a limit.
    LimitHit(Limit, IpAddr),
    /// There were too many connections. Of the host with the most silent ones, those that were
    /// silent for the longest time were closed.
    Crowded {
        /// The host.
        host: IpAddr,
        /// Number of connections.
        closed: usize,
    },
    /// The registrar took over the elements of a dead one.
    TookOver {
        /// The registrar.
        registrar: RegistrarId,
        /// Number of elements.
        elements: usize,
    },
    /// Another registrar took over the elements of this one.
    TakenOver {
        /// The registrar that took over.
        by: RegistrarId,
    },
    /// The registrar left the others and closed all connections. The last event.
    Left,
    /// A peer violated ASAP or ENRP. Reported once for each connection.
    Misbehaved {
        /// Address of the peer.
        peer: TransportAddress,
        /// Description of the violation.
        reason: String,
    },
}

/// The pool and the identifier of an element.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
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

/// Reason of the removal of an element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "drivers handle each")]
pub enum RemovalReason {
    /// The element deregistered.
    Deregistered,
    /// The element did not renew its registration in time.
    Expired,
    /// The element did not answer a keep-alive in time.
    KeepAliveTimeout,
    /// The connection to the element failed, and a new one was refused or is not possible.
    Unreachable,
    /// Pool users of several hosts reported the element as unreachable, and it did not answer.
    Reported,
    /// The pool has another policy or transport, which was found when registrars met.
    OtherPolicy,
    /// Another registrar, its home registrar, removed the element.
    ElsewhereRemoved,
}

impl fmt::Display for RemovalReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Deregistered => "deregistered",
            Self::Expired => "registration expired",
            Self::KeepAliveTimeout => "no answer to a keep-alive",
            Self::Unreachable => "connection lost, cannot reconnect",
            Self::Reported => "reported as unreachable, no answer to a keep-alive",
            Self::OtherPolicy => "the pool has another policy or transport",
            Self::ElsewhereRemoved => "removed by its home registrar",
        })
    }
}
