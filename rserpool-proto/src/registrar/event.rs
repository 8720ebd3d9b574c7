//! Events of a registrar, for its owner.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use super::Limit;
use crate::wire::{PoolElementId, PoolHandle, RegistrarId, TransportAddress, asap};

/// An event that a registrar tells its owner, for logs and statistics.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "drivers handle each")]
pub enum Event {
    /// An element joined a pool, from this address.
    Registered(ElementName, TransportAddress),
    /// An element renewed its registration.
    Reregistered(ElementName),
    /// An element was refused.
    Refused(ElementName, asap::RegistrationResponse),
    /// An element is gone, which served its users at this address.
    Removed(ElementName, RemovalReason, Option<TransportAddress>),
    /// A peer tells of an element that cannot be taken, for this reason.
    NotTaken(RegistrarId, String),
    /// There is another registrar, which was heard from this host.
    PeerFound(RegistrarId, Option<IpAddr>),
    /// There is a connection to another registrar.
    PeerConnected(RegistrarId, TransportAddress),
    /// Another registrar is gone.
    PeerLost(RegistrarId, Option<IpAddr>),
    /// Nobody answers at the address of a configured peer.
    PeerSilent(TransportAddress),
    /// Another registrar, which had elements, does not answer any more.
    PeerDead(RegistrarId),
    /// An element, which is reached on its own host or link alone, is told to nobody elsewhere. Told
    /// by a registrar that others reach.
    Near(ElementName, TransportAddress),
    /// We know what the other registrars know, or there are none.
    Joined {
        /// The number of elements.
        elements: usize,
    },
    /// The elements had the time to find this registrar: a pool that is not known does not exist.
    Ready {
        /// The number of elements.
        elements: usize,
    },
    /// The registrar was late, because of its host or because there is too much to do. It takes
    /// nobody for dead for that, and asks elements less often, by this factor.
    Behind {
        /// The delay.
        late: Duration,
        /// The factor.
        stretch: u32,
    },
    /// A host met a limit.
    LimitHit(Limit, IpAddr),
    /// There were too many connections: the longest silent ones of the host that has the most
    /// were closed.
    Crowded {
        /// The host.
        host: IpAddr,
        /// Number of connections.
        closed: usize,
    },
    /// We took over the elements of a dead registrar.
    TookOver {
        /// The registrar.
        registrar: RegistrarId,
        /// Number of elements.
        elements: usize,
    },
    /// Another registrar took over our elements.
    TakenOver {
        /// The registrar that took over.
        by: RegistrarId,
    },
    /// It left the others, and closed all connections. The last event.
    Left,
    /// Someone does not keep to ASAP or ENRP; told once for each connection.
    Misbehaved {
        /// Address of the peer.
        peer: TransportAddress,
        /// Reason for the refusal.
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
#[allow(clippy::exhaustive_enums, reason = "drivers handle each")]
pub enum RemovalReason {
    /// It left.
    Deregistered,
    /// It did not renew its registration in time.
    Expired,
    /// It did not answer a keep-alive in time.
    KeepAliveTimeout,
    /// Its connection broke and it does not accept another.
    Unreachable,
    /// Pool users of several hosts reported that it is unreachable, and it did not answer.
    Reported,
    /// Its pool has another policy or transport, as was found out when registrars met.
    OtherPolicy,
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
            Self::Reported => "reported as unreachable, and no answer to a keep-alive",
            Self::OtherPolicy => "the pool has another policy or transport",
            Self::ElsewhereRemoved => "removed by its home registrar",
        })
    }
}
