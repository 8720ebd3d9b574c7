//! The registrar's state for each element, and for each connection that elements use.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Instant;

use crate::ConnectionId;
use crate::handlespace::ElementKey;
use crate::wire::{RegistrarId, TransportAddress};

/// The host that pays for an element, and the bytes that it pays for.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Charge(pub(super) Option<(IpAddr, u32)>);

/// The registrar's state for an element.
#[derive(Debug)]
pub(super) struct Membership {
    /// The connection to its ASAP endpoint; none while there is no connection.
    pub(super) connection: Option<ConnectionId>,
    pub(super) watch: Watch,
    pub(super) charge: Charge,
}

/// The registrar that supervises an element.
#[derive(Debug)]
pub(super) enum Watch {
    /// We do, being its home registrar.
    Home(Custody),
    /// Another registrar does.
    Elsewhere(Remote),
}

/// State of an element for its home registrar.
#[derive(Debug, Default)]
pub(super) struct Custody {
    pub(super) keep_alive: KeepAlive,
    /// True if it is yet to be told that we are its home.
    pub(super) claim: bool,
    /// When it registered with us last; never where we took it over.
    pub(super) registered: Option<Instant>,
    /// Its home before it came to us by itself, if it had one.
    pub(super) came_from: Option<RegistrarId>,
    /// The hosts that reported it as unreachable since it answered last.
    pub(super) reporters: BTreeSet<IpAddr>,
    /// When a report made us ask it last.
    pub(super) asked_for_report: Option<Instant>,
}

/// State of an element whose home is another registrar.
#[derive(Debug, Default)]
pub(super) struct Remote {
    pub(super) confirmation: Confirmation,
    /// True if it was reported as unreachable and has not answered since.
    pub(super) doubted: bool,
    pub(super) asked_for_report: Option<Instant>,
}

/// True if its home has an element, as audits find out.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Confirmation {
    /// As far as we know.
    #[default]
    Confirmed,
    /// An audit is going on, and has not named it so far.
    Pending,
    /// An audit did not name it. It is removed soon, if nobody tells of it.
    Denied,
}

/// State of an element's next keep-alive.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum KeepAlive {
    /// It is not its turn, or it has answered.
    #[default]
    Idle,
    /// It is to be asked, and waits for a connection or for its turn on it. Nothing can be late.
    Waiting,
    /// It was asked, and owes an answer until then.
    Asked { deadline: Instant },
}

impl Membership {
    /// Of an element that another registrar looks after.
    pub(super) fn elsewhere(charge: Charge) -> Self {
        Self { connection: None, watch: Watch::Elsewhere(Remote::default()), charge }
    }

    /// Of an element that registered over this connection.
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

    /// Returns whether users are better sent to others first: it was reported, and has not answered
    /// yet.
    pub(super) fn is_doubted(&self) -> bool {
        match &self.watch {
            Watch::Home(custody) => !custody.reporters.is_empty(),
            Watch::Elsewhere(remote) => remote.doubted,
        }
    }
}

/// The other end of a connection for ASAP: pool elements, a pool user, or both.
#[derive(Debug)]
pub(super) struct Client {
    /// The host that its share counts for. It stays one where the addresses change.
    pub(super) host: IpAddr,
    pub(super) address: TransportAddress,
    pub(super) origin: Origin,
    /// The elements reached through it.
    pub(super) elements: BTreeSet<ElementKey>,
    /// Those which owe the answer to a keep-alive, and those which are to be asked then.
    pub(super) asked: BTreeSet<ElementKey>,
    pub(super) queued: BTreeSet<ElementKey>,
    /// When it was heard last.
    pub(super) heard: Instant,
    /// True if its first fault was told.
    pub(super) has_misbehaved: bool,
    /// True if it does not understand keep-alives that name an element.
    pub(super) strict: bool,
}

impl Client {
    pub(super) fn new(now: Instant, address: TransportAddress, origin: Origin) -> Self {
        Self {
            host: address.host(),
            address,
            origin,
            elements: BTreeSet::new(),
            asked: BTreeSet::new(),
            queued: BTreeSet::new(),
            heard: now,
            has_misbehaved: false,
            strict: false,
        }
    }
}

/// Origin of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// Its other end made it.
    Accepted,
    /// We are making it, to ask an element whether it is alive.
    Connecting,
    /// We made it.
    Dialled,
}
