//! A runtime and its transports, from which all handles are made.

use std::future::Future;
use std::io;
use std::net::SocketAddrV4;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::{Either, select};
use rand::Rng;
use rserpool_proto::HuntConfig;
use rserpool_proto::wire::{
    InvalidPoolHandle, InvalidText, Ppid, TransportAddress, TransportProtocol,
};

use crate::runtime::Runtime;
use crate::timer::after;
use crate::transport::multicast::Multicast;
use crate::transport::{Endpoint, Purpose, Transport};

/// A runtime, and the transports that are used on it.
///
/// ```
/// use rserpool::Network;
/// # use rserpool::transport::Memory;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let runtime = rserpool_tokio::TokioRuntime::current();
/// let network = Network::new(runtime, Memory::new());
/// # assert_eq!(network.protocols().count(), 1);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Network {
    runtime: Arc<dyn Runtime>,
    transport: Arc<dyn Transport>,
    /// Further transports, which registrars offer and sessions may use.
    others: Vec<Arc<dyn Transport>>,
}

impl Network {
    /// Creates a network of `transport` on `runtime`.
    #[must_use]
    pub fn new(runtime: impl Runtime, transport: impl Transport) -> Self {
        Self::shared(Arc::new(runtime), Arc::new(transport))
    }

    /// Creates a network of a runtime and a transport that are chosen at run time.
    #[must_use]
    pub fn shared(runtime: Arc<dyn Runtime>, transport: Arc<dyn Transport>) -> Self {
        Self { runtime, transport, others: Vec::new() }
    }

    /// Adds a transport for sessions with the pools that are served over it: for instance, for a
    /// pool of TCP servers if registrars are asked over SCTP. A registrar can offer its protocols
    /// over this transport as well, see [`Registrar::start`](crate::Registrar::start).
    #[must_use]
    pub fn with_sessions_over(mut self, transport: Arc<dyn Transport>) -> Self {
        self.others.push(transport);
        self
    }

    /// Returns the runtime.
    #[must_use]
    pub fn runtime(&self) -> &Arc<dyn Runtime> {
        &self.runtime
    }

    /// Returns the protocol of the network's own transport.
    #[must_use]
    pub fn protocol(&self) -> TransportProtocol {
        self.transport.protocol()
    }

    /// Returns the protocols of all transports. The one that is used towards registrars comes
    /// first.
    pub fn protocols(&self) -> impl Iterator<Item = TransportProtocol> {
        self.transports().map(|transport| transport.protocol())
    }

    /// Returns the transports for sessions. The network's own comes first.
    pub(crate) fn transports(&self) -> impl Iterator<Item = &Arc<dyn Transport>> {
        std::iter::once(&self.transport).chain(&self.others)
    }

    /// Waits for `duration`, by a timer of the runtime.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, there is no effect.
    pub async fn sleep(&self, duration: Duration) {
        self.runtime.timer(after(self.now(), duration)).await;
    }

    /// Awaits `future` for `duration` at most, then drops it.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use rserpool::{Elapsed, Network};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// # let runtime = rserpool_tokio::TokioRuntime::current();
    /// # let network = Network::new(runtime, rserpool::transport::Memory::new());
    /// let never = std::future::pending::<()>();
    /// assert_eq!(network.timeout(Duration::from_millis(5), never).await, Err(Elapsed));
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Returns an error if the time has elapsed before `future` was ready.
    ///
    /// # Cancel safety
    ///
    /// If this future is dropped, `future` is dropped with it.
    pub async fn timeout<F: Future>(
        &self,
        duration: Duration,
        future: F,
    ) -> Result<F::Output, Elapsed> {
        match select(pin!(future), self.runtime.timer(after(self.now(), duration))).await {
            Either::Left((output, _)) => Ok(output),
            Either::Right(_) => Err(Elapsed),
        }
    }

    pub(crate) fn now(&self) -> Instant {
        self.runtime.now()
    }

    /// Opens an endpoint at `address`, over the transport that the address names. For programs that
    /// use ASAP or ENRP messages without the state machines.
    ///
    /// # Errors
    ///
    /// Returns an error if the address cannot be bound.
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

    /// Joins the multicast groups of `protocol`, and opens a socket to send to them if `send_from`
    /// is given. Returns `None` if multicast is not available.
    pub(crate) fn multicast(
        &self,
        protocol: Ppid,
        groups: Vec<SocketAddrV4>,
        send_from: Option<&TransportAddress>,
    ) -> Option<Multicast> {
        let opened = Multicast::open(&self.runtime, protocol, groups, send_from);
        opened
            .inspect_err(|error| tracing::warn!(%protocol, %error, "multicast not available"))
            .ok()
    }

    /// Listens for announcements of registrars if `hunt` (the configuration of the search for a
    /// registrar) enables it.
    pub(crate) fn announcements(&self, hunt: &HuntConfig) -> Option<Multicast> {
        let groups = hunt.profile().announcement_groups();
        hunt.listens().then(|| self.multicast(Ppid::ASAP, groups, None)).flatten()
    }

    /// Opens an endpoint that only dials. For programs that use ASAP or ENRP messages without the
    /// state machines.
    ///
    /// # Errors
    ///
    /// Returns an error if the transport cannot be used at all.
    pub fn dialler(&self, purpose: Purpose) -> io::Result<Box<dyn Endpoint>> {
        self.transport.open(&self.runtime, purpose, None)
    }
}

/// Purpose of the connections to registrars.
pub(crate) const ASAP: Purpose = Purpose::Protocol(Ppid::ASAP);

/// Error of listening at an address. No endpoint is open.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen at {address}")]
pub struct ListenError {
    pub(crate) address: TransportAddress,
    #[source]
    pub(crate) error: io::Error,
}

impl ListenError {
    /// Returns the address.
    #[must_use]
    pub fn address(&self) -> &TransportAddress {
        &self.address
    }

    /// Returns the transport's error.
    #[must_use]
    pub fn io_error(&self) -> &io::Error {
        &self.error
    }
}

/// Error of starting a handle. Nothing runs, and nothing is open.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A string is not an address.
    #[error(transparent)]
    InvalidAddress(#[from] InvalidText),
    /// The pool handle is empty or too long.
    #[error(transparent)]
    InvalidPoolHandle(#[from] InvalidPoolHandle),
    /// An address cannot be listened on.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The transport cannot be used at all.
    #[error("cannot open an endpoint")]
    Transport(#[from] io::Error),
}

/// The task behind a handle has stopped: it panicked, or its runtime has stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the background task has stopped")]
#[allow(clippy::exhaustive_structs, reason = "it has no more to say")]
pub struct Stopped;

/// Error of [`Network::timeout`]: the time has elapsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the time has elapsed")]
#[allow(clippy::exhaustive_structs, reason = "it has no more to say")]
pub struct Elapsed;

/// Returns a random seed for a state machine.
pub(crate) fn random_seed() -> u64 {
    rand::rng().next_u64()
}
