//! Runs the state machines on a runtime, and gives out the handles that programs hold.
//!
//! | handle | what it is |
//! |---|---|
//! | [`Registrar`] | a registrar that runs in the background |
//! | [`PoolElement`] | a member of a pool, registered as long as it lives; accepts sessions |
//! | [`PoolUser`] | resolves pool handles, opens sessions |
//! | [`Subscription`] | the changes of a pool, as they happen |
//! | [`Session`] | a pool user's session, which fails over |
//! | [`ElementSession`] | the same session as the element that serves it sees it |
//! | [`Messenger`] | messages to a pool without a session |
//! | [`RequestSession`] | a session of requests and replies, each answered exactly once |
//! | [`Service`] | what answers them |

mod acceptor;
mod connections;
mod dump;
mod element;
mod element_session;
mod gate;
mod messenger;
mod registrar;
mod requests;
mod serve;
mod service;
mod session;
mod subscription;
mod task;
mod timer;
mod user;

use std::io;
use std::net::SocketAddrV4;
use std::sync::Arc;
use std::time::Instant;

use rand::Rng;

use crate::protocol::HuntConfig;
use crate::runtime::Runtime;
use crate::transport::multicast::Multicast;
use crate::transport::{Endpoint, Purpose, Transport};
use crate::wire::{Ppid, RegistrarId, TransportAddress, TransportProtocol};

pub use dump::{Dump, DumpError, dump};
pub use element::{ElementControl, JoinError, PoolElement, PoolElementBuilder};
pub use element_session::{ElementEvent, ElementSession};
pub use messenger::{Correspondent, Messenger, MessengerError, SentToAll};
pub use registrar::Registrar;
pub use requests::{NoRoom, RequestConfig, RequestError, RequestEvent, RequestSession};
pub use serve::Stopping;
pub use service::{InvalidState, Service, ServiceConfig};
pub use session::{Session, SessionClosed};
pub use subscription::{PoolChange, Subscription};
pub use user::PoolUser;

/// A runtime, and the transport that is used on it.
#[derive(Debug, Clone)]
pub struct Network {
    runtime: Arc<dyn Runtime>,
    transport: Arc<dyn Transport>,
    /// What registrars offer, and sessions may use, besides.
    others: Vec<Arc<dyn Transport>>,
}

impl Network {
    /// Runs `transport` on `runtime`.
    #[must_use]
    pub fn new(runtime: impl Runtime, transport: impl Transport) -> Self {
        Self::shared(Arc::new(runtime), Arc::new(transport))
    }

    /// The same for a runtime and a transport that were chosen when the program ran.
    #[must_use]
    pub fn shared(runtime: Arc<dyn Runtime>, transport: Arc<dyn Transport>) -> Self {
        Self { runtime, transport, others: Vec::new() }
    }

    /// Has sessions use this transport as well, with pools that are served over it: a pool of TCP
    /// servers whose registrars are asked over SCTP, for instance. A registrar may offer its
    /// protocols over it, see [`Registrar::start_at`].
    #[must_use]
    pub fn with_sessions_over(mut self, transport: Arc<dyn Transport>) -> Self {
        self.others.push(transport);
        self
    }

    /// The runtime.
    #[must_use]
    pub fn runtime(&self) -> &Arc<dyn Runtime> {
        &self.runtime
    }

    /// The protocol of the transport.
    #[must_use]
    pub fn protocol(&self) -> TransportProtocol {
        self.transport.protocol()
    }

    /// The protocols of all transports, that which is used towards registrars first.
    pub fn protocols(&self) -> impl Iterator<Item = TransportProtocol> {
        self.transports().map(|transport| transport.protocol())
    }

    /// The transports of sessions, that of the network first.
    fn transports(&self) -> impl Iterator<Item = &Arc<dyn Transport>> {
        std::iter::once(&self.transport).chain(&self.others)
    }

    pub(crate) fn now(&self) -> Instant {
        self.runtime.now()
    }

    /// An endpoint at `address`, over the transport that it names, for who speaks ASAP or ENRP
    /// without a state machine.
    ///
    /// # Errors
    ///
    /// When the address cannot be had.
    pub fn listen(
        &self,
        purpose: Purpose,
        address: &TransportAddress,
    ) -> Result<Box<dyn Endpoint>, ListenError> {
        let mut transports = self.transports();
        let named = transports.find(|transport| transport.protocol() == address.protocol);
        let transport = named.unwrap_or(&self.transport);
        let opened = transport.open(&self.runtime, purpose, Some(address));
        opened.map_err(|error| ListenError { address: address.clone(), error })
    }

    /// Listens to the groups of `protocol`, and may send to them from `send_from`. None where
    /// there is no multicast.
    fn multicast(
        &self,
        protocol: Ppid,
        groups: Vec<SocketAddrV4>,
        send_from: Option<&TransportAddress>,
    ) -> Option<Multicast> {
        let opened = Multicast::open(&self.runtime, protocol, groups, send_from);
        opened.inspect_err(|error| tracing::warn!(%protocol, %error, "no multicast")).ok()
    }

    /// Listens for announcements, if `hunt` wants to.
    fn announcements(&self, hunt: &HuntConfig) -> Option<Multicast> {
        let groups = hunt.profile().announcement_groups();
        hunt.listens().then(|| self.multicast(Ppid::ASAP, groups, None)).flatten()
    }

    /// An endpoint that dials only, for who speaks ASAP or ENRP without a state machine.
    ///
    /// # Errors
    ///
    /// When the transport cannot be used at all.
    pub fn dialler(&self, purpose: Purpose) -> io::Result<Box<dyn Endpoint>> {
        self.transport.open(&self.runtime, purpose, None)
    }
}

/// The purpose of the connections to registrars.
const ASAP: Purpose = Purpose::Protocol(Ppid::ASAP);

/// An address at which no connections can be accepted. Nothing is open.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen at {address}: {error}")]
pub struct ListenError {
    address: TransportAddress,
    error: io::Error,
}

impl ListenError {
    /// The address.
    #[must_use]
    pub fn address(&self) -> &TransportAddress {
        &self.address
    }

    /// What the transport says.
    #[must_use]
    pub fn io_error(&self) -> &io::Error {
        &self.error
    }
}

/// The task behind a handle has stopped: it panicked, or its runtime is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the background task has stopped")]
pub struct Stopped;

/// A registrar's identifier, drawn at random (RFC 5353 section 3.2.1).
#[must_use]
pub fn random_registrar_id() -> RegistrarId {
    RegistrarId(rand::rng().next_u32().max(1))
}

/// A seed for a state machine.
fn random_seed() -> u64 {
    rand::rng().next_u64()
}
