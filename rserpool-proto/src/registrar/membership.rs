//! The registrar's state for each element, and for each connection that elements use.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Instant;

use super::event::Denial;
use crate::access::{AccessRole, Permissions};
use crate::handlespace::ElementKey;
use crate::wire::{PoolHandle, RegistrarId, TransportAddress};
use crate::{ConnectionId, Identity};

/// The parties against whose limits an element counts.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Charge {
    /// The host, and the size of the element in bytes.
    pub(super) host: Option<(IpAddr, u32)>,
    /// The party that registered the element; `None` if the transport does not authenticate, or if
    /// another registrar announced the element and this one has not reached it.
    pub(super) owner: Option<Identity>,
}

/// The registrar's state for an element.
#[derive(Debug)]
pub(super) struct Membership {
    /// The connection to the element's ASAP endpoint, if there is one.
    pub(super) connection: Option<ConnectionId>,
    pub(super) watch: Watch,
    pub(super) charge: Charge,
}

/// The registrar that supervises an element.
#[derive(Debug)]
pub(super) enum Watch {
    /// This registrar, as its home registrar.
    Home(Custody),
    /// Another registrar.
    Elsewhere(Remote),
}

/// State of an element whose home is this registrar.
#[derive(Debug, Default)]
pub(super) struct Custody {
    pub(super) keep_alive: KeepAlive,
    /// True if the element has not yet been told that this registrar is its home.
    pub(super) claim: bool,
    /// The time of the element's last registration with this registrar; `None` if the element was
    /// taken over.
    pub(super) registered: Option<Instant>,
    /// The element's previous home registrar, if the element moved from there to this one by
    /// itself.
    pub(super) came_from: Option<RegistrarId>,
    /// The hosts whose users reported the element as unreachable since its last answer.
    pub(super) reporters: BTreeSet<IpAddr>,
    /// The time at which this registrar last sent the element a keep-alive because a pool user had
    /// reported it as unreachable.
    pub(super) asked_for_report: Option<Instant>,
}

/// State of an element whose home is another registrar.
#[derive(Debug, Default)]
pub(super) struct Remote {
    pub(super) confirmation: Confirmation,
    /// True if the element may be unreachable: a user reported it and it has not answered since, or
    /// its home registrar does not have it.
    pub(super) doubted: bool,
    pub(super) asked_for_report: Option<Instant>,
}

/// Result of the last audit (comparison with the home registrar's table) for an element.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Confirmation {
    /// The home registrar has the element, as far as is known.
    #[default]
    Confirmed,
    /// An audit (a comparison with the home registrar's table) is in progress, and the table has
    /// not contained the element so far.
    Pending,
    /// The home registrar's table did not contain the element. It is removed soon, unless a
    /// registrar announces it.
    Denied,
}

/// State of an element's next keep-alive.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum KeepAlive {
    /// No keep-alive is due, or the element has answered the last one.
    #[default]
    Idle,
    /// A keep-alive is due and waits for a connection or for its turn on it. There is no deadline.
    Waiting,
    /// A keep-alive was sent, and the answer is due at the deadline.
    Asked { deadline: Instant },
}

impl Membership {
    /// Creates the state of an element that another registrar supervises.
    pub(super) fn elsewhere(charge: Charge) -> Self {
        Self { connection: None, watch: Watch::Elsewhere(Remote::default()), charge }
    }

    /// Creates the state of an element that registered over this connection.
    pub(super) fn home(connection: ConnectionId, charge: Charge) -> Self {
        let watch = Watch::Home(Custody::default());
        Self { connection: Some(connection), watch, charge }
    }

    pub(super) fn custody_mut(&mut self) -> Option<&mut Custody> {
        if let Watch::Home(custody) = &mut self.watch { Some(custody) } else { None }
    }

    pub(super) fn remote_mut(&mut self) -> Option<&mut Remote> {
        if let Watch::Elsewhere(remote) = &mut self.watch { Some(remote) } else { None }
    }

    /// Returns whether the element is offered to users after others: it was reported as unreachable
    /// and has not answered since, or its home registrar does not have it.
    pub(super) fn is_doubted(&self) -> bool {
        match &self.watch {
            Watch::Home(custody) => !custody.reporters.is_empty(),
            Watch::Elsewhere(remote) => remote.doubted,
        }
    }
}

/// The other end of an ASAP connection: pool elements, a pool user, or both.
#[derive(Debug)]
pub(super) struct Client {
    /// The host against whose limits the connection counts. It stays the same if the addresses
    /// change.
    pub(super) host: IpAddr,
    pub(super) address: TransportAddress,
    /// The authenticated identity, and what the rules permit to it at its host.
    pub(super) identity: Option<Identity>,
    /// The identity without the names that grant roles: the owner of the elements that the client
    /// registers.
    pub(super) party: Option<Identity>,
    pub(super) permissions: Permissions,
    pub(super) origin: Origin,
    /// The elements that are reached through the connection.
    pub(super) elements: BTreeSet<ElementKey>,
    /// The elements on this connection that have not answered a keep-alive, and those whose
    /// keep-alives are queued until fewer are unanswered.
    pub(super) asked: BTreeSet<ElementKey>,
    pub(super) queued: BTreeSet<ElementKey>,
    /// The time at which the last message was received from this client.
    pub(super) heard: Instant,
    /// True if the first protocol violation of this client was reported; later ones are not.
    pub(super) has_misbehaved: bool,
    /// True if this client does not understand keep-alives that name an element.
    pub(super) strict: bool,
}

impl Client {
    pub(super) fn new(
        now: Instant,
        address: TransportAddress,
        origin: Origin,
        identity: Option<Identity>,
        permissions: Permissions,
    ) -> Self {
        Self {
            host: address.host(),
            address,
            party: identity.as_ref().map(Identity::party),
            identity,
            permissions,
            origin,
            elements: BTreeSet::new(),
            asked: BTreeSet::new(),
            queued: BTreeSet::new(),
            heard: now,
            has_misbehaved: false,
            strict: false,
        }
    }

    /// Returns the denial of a role to this client.
    pub(super) fn denial(&self, role: AccessRole, pool: Option<&PoolHandle>) -> Denial {
        Denial { role, host: self.host, identity: self.identity.clone(), pool: pool.cloned() }
    }
}

/// Origin of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// The other end made the connection.
    Accepted,
    /// This registrar is making the connection, to ask an element whether it is alive.
    Connecting,
    /// This registrar made the connection, which is established.
    Dialled,
}
