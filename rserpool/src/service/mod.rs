//! Services whose sessions survive a crash of their server.

pub(crate) mod boxed;
pub(crate) mod checkpoint;
pub(crate) mod client;
pub mod cookie;
pub(crate) mod requests;
pub(crate) mod serve;
mod served;
#[cfg(feature = "typed")]
pub(crate) mod typed;

use std::array::TryFromSliceError;
use std::error::Error;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rserpool_proto::Identity;
use rserpool_proto::replay::MAX_CHECKPOINT_INTERVAL;
use rserpool_proto::wire::Ppid;

use crate::cookie::Seal;
use crate::element::PoolElement;
use serve::ServeOutcome;
use served::Served;

/// A service with state, which changes with each request and moves with the session from server to
/// server. Each session has a value of this type of its own.
///
/// ```
/// use bytes::Bytes;
/// use rserpool::{InvalidState, Service};
///
/// #[derive(Default)]
/// struct Counter(u64);
///
/// impl Service for Counter {
///     async fn handle(&mut self, _request: Bytes) -> Bytes {
///         self.0 += 1;
///         self.0.to_string().into()
///     }
///
///     fn save(&self) -> Result<Vec<u8>, InvalidState> {
///         Ok(self.0.to_be_bytes().to_vec())
///     }
///
///     fn restore(&mut self, state: &[u8]) -> Result<(), InvalidState> {
///         self.0 = u64::from_be_bytes(state.try_into()?);
///         Ok(())
///     }
/// }
/// ```
pub trait Service: Send + 'static {
    /// Begins the session of a user with this authenticated identity; `None` if the transport does
    /// not authenticate. Called before all other methods, also if the session continues from another
    /// server. The default implementation does nothing.
    fn begin(&mut self, user: Option<&Identity>) {
        let _ = user;
    }

    /// Handles a request and returns the reply. Effects other than on the service's own state may
    /// be repeated by another server, if this one crashes before the reply is sent.
    ///
    /// If this panics, the service returns to its state before the request, and the client receives
    /// [`RequestFailure::Panicked`](rserpool_proto::replay::RequestFailure::Panicked).
    fn handle(&mut self, request: Bytes) -> impl Future<Output = Bytes> + Send;

    /// Returns the state. It is sealed and sent to the client, and restored by another server.
    /// It has to fit a cookie, together with one reply: less than 64 KiB. A request that makes the
    /// state too large for that is undone and fails.
    ///
    /// # Errors
    ///
    /// Returns an error if the state cannot be saved. The request is then undone and fails with
    /// [`RequestFailure::StateNotSaved`](rserpool_proto::replay::RequestFailure::StateNotSaved),
    /// and the server logs the reason. If that does not help, because an earlier request since the
    /// last checkpoint is the cause ([`ServiceConfig::checkpoint_every`]), the session is refused.
    fn save(&self) -> Result<Vec<u8>, InvalidState>;

    /// Restores a state that [`Self::save`] returned, perhaps in an older or newer version of the
    /// program.
    ///
    /// # Errors
    ///
    /// Returns an error if the service cannot restore the state. The session is then refused.
    fn restore(&mut self, state: &[u8]) -> Result<(), InvalidState>;
}

/// Error of [`Service::save`] and [`Service::restore`]: there is no state to continue from. Its
/// source is the reason.
#[derive(Debug, thiserror::Error)]
#[error("the state is not valid")]
pub struct InvalidState(#[source] Box<dyn Error + Send + Sync>);

impl InvalidState {
    /// Creates the error with a reason, which is an error or a text.
    #[must_use]
    pub fn new(reason: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self(reason.into())
    }
}

impl From<TryFromSliceError> for InvalidState {
    fn from(error: TryFromSliceError) -> Self {
        Self::new(error)
    }
}

/// Settings with which a [`Service`] is offered.
#[derive(Debug, Clone)]
pub struct ServiceConfig {
    seal: Arc<Seal>,
    ppid: Ppid,
    checkpoint_every: u32,
    binds_cookies: bool,
}

impl ServiceConfig {
    /// Returns the default settings, with checkpoints sealed by `seal`.
    #[must_use]
    pub fn new(seal: impl Into<Arc<Seal>>) -> Self {
        Self { seal: seal.into(), ppid: Ppid::NONE, checkpoint_every: 1, binds_cookies: false }
    }

    /// Sets the payload protocol identifier of the service. Default: 0, unspecified.
    #[must_use]
    pub fn ppid(mut self, ppid: Ppid) -> Self {
        self.ppid = ppid;
        self
    }

    /// Binds each checkpoint to the authenticated identity of its user, so that no other user can
    /// continue the session with it. All users without a certificate are one user, and so are all users
    /// of SCTP-AUTH. Default: checkpoints are not bound. A session whose user gets a
    /// certificate with other names cannot continue on another server. Without authentication by the
    /// transport, there is no effect.
    #[must_use]
    pub fn bind_to_user(mut self) -> Self {
        self.binds_cookies = true;
        self
    }

    /// Sets the number of requests after which a checkpoint is sent. Default: 1, which is right for
    /// all services. Larger numbers, up to 64, are cheaper. They are right if replies depend on the
    /// state and the request alone, since the next server repeats the requests after the
    /// checkpoint.
    #[must_use]
    pub fn checkpoint_every(mut self, requests: u32) -> Self {
        self.checkpoint_every = requests.clamp(1, MAX_CHECKPOINT_INTERVAL);
        self
    }
}

impl PoolElement {
    /// Offers a service until `stop` is ready; `new` makes one `S` for each session. After that,
    /// the element leaves the pool, and each session moves to another server as soon as its current
    /// request is done, which may take `grace`.
    ///
    /// Returns the outcome of the deregistration, and the number of sessions that were aborted.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the element leaves the pool and all its sessions are aborted. They
    /// continue on other servers.
    pub async fn serve<S: Service>(
        self,
        config: ServiceConfig,
        mut new: impl FnMut() -> S,
        stop: impl Future,
        grace: Duration,
    ) -> ServeOutcome {
        let serve = |session, stopping| Served::new(session, new(), config.clone()).run(stopping);
        self.serve_sessions(serve, stop, grace).await
    }
}
