//! Events of a registrar, for its owner.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use super::Limit;
use crate::Identity;
use crate::access::AccessRole;
use crate::wire::{PoolElementId, PoolHandle, RegistrarId, TransportAddress, asap};

/// An event of a registrar, for logs and statistics.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "drivers handle each")]
pub enum Event {
    /// An element registered from this address and joined a pool.
    Registered(ElementName, TransportAddress),
    /// An element renewed its registration.
    Reregistered(ElementName),
    /// This registrar refused a registration, with this response.
    Refused(ElementName, asap::RegistrationResponse),
    /// An element was removed. The address is the one at which it served its users.
    Removed(ElementName, RemovalReason, Option<TransportAddress>),
    /// An operator began to drain an element: it stays, but users and other registrars are not told
    /// of it any more.
    Drained(ElementName),
    /// An element is not drained any more.
    Undrained(ElementName),
    /// An element of a peer cannot be added, for this reason.
    NotTaken(RegistrarId, String),
    /// A peer was added to the list: another registrar, on this host.
    PeerFound(RegistrarId, Option<IpAddr>),
    /// A connection to another registrar is established, and the registrar has identified itself. Not
    /// reported for a party that does not announce an address of its own.
    PeerConnected(RegistrarId, TransportAddress),
    /// Another registrar, which had announced its address, was removed from the peer list.
    PeerLost(RegistrarId, Option<IpAddr>),
    /// A configured peer does not accept connections. Not reported again until the peer has
    /// accepted one.
    PeerSilent(TransportAddress),
    /// Another registrar is considered dead, and its elements are to be taken over.
    PeerDead(RegistrarId),
    /// An element has only addresses of host or link scope, so the registrar does not send them to
    /// other hosts or links. Only registrars with a global address report this.
    Near(ElementName, TransportAddress),
    /// The registrar has joined: it has downloaded the handlespace from another registrar, or found
    /// no other.
    Joined {
        /// The number of elements.
        elements: usize,
    },
    /// The registrar is ready: elements have had time to register, so it answers that unknown pools
    /// do not exist.
    Ready {
        /// The number of elements.
        elements: usize,
    },
    /// The registrar processed its timers late, because its host was suspended or overloaded. It
    /// considers no element or peer dead because of the delay, and multiplies the keep-alive
    /// intervals by `stretch`.
    Behind {
        /// The delay.
        late: Duration,
        /// The factor.
        stretch: u32,
    },
    /// The access rules do not permit a connection or a request. It was refused.
    Denied(Denial),
    /// A host reached a limit.
    LimitHit(Limit, IpAddr),
    /// There were too many connections, so the registrar closed some of the host with the most
    /// silent connections: those that were silent for the longest time.
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
    /// The registrar left the operational scope and closed all connections. This is its last event.
    Left,
    /// A peer violated ASAP or ENRP. Reported once for each connection.
    Misbehaved {
        /// Address of the peer.
        peer: TransportAddress,
        /// Description of the violation.
        reason: String,
    },
}

/// A connection or a request that the access rules do not permit.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs, reason = "part of an event")]
pub struct Denial {
    /// The role that the party does not have.
    pub role: AccessRole,
    /// The host of the party.
    pub host: IpAddr,
    /// The identity of the party, if the transport authenticates.
    pub identity: Option<Identity>,
    /// The pool for which the party does not have the role; `None` if it has it for no pool.
    pub pool: Option<PoolHandle>,
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
    /// The element did not fit its pool: another registrar had created the pool with another policy
    /// or transport, and that pool stays.
    OtherPolicy,
    /// Another registrar, the home of the element, removed it.
    ElsewhereRemoved,
    /// The rules on access were changed, and do not permit the element in its pool any more.
    Denied,
    /// An operator ordered it.
    Ordered,
}

impl RemovalReason {
    /// All reasons.
    pub const ALL: [Self; 9] = [
        Self::Deregistered,
        Self::Expired,
        Self::KeepAliveTimeout,
        Self::Unreachable,
        Self::Reported,
        Self::OtherPolicy,
        Self::ElsewhereRemoved,
        Self::Denied,
        Self::Ordered,
    ];
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
            Self::Denied => "denied by the access rules",
            Self::Ordered => "ordered by an operator",
        })
    }
}
