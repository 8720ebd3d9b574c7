//! Services whose sessions survive a crash of their server.

pub(crate) mod client;
pub mod cookie;
pub(crate) mod requests;
pub(crate) mod serve;

use std::fmt;
use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures::FutureExt;
use rserpool_proto::replay::{Action, MAX_CHECKPOINT_INTERVAL, Server};
use rserpool_proto::wire::Ppid;

use crate::cookie::{Lineage, Seal};
use crate::element::PoolElement;
use crate::element_session::{ElementEvent, ElementSession};
use crate::session::{SessionClosed, SessionSendError};
use crate::transport::SendError;
use serve::Stopping;

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
///     fn save(&self) -> Vec<u8> {
///         self.0.to_be_bytes().to_vec()
///     }
///
///     fn restore(&mut self, state: &[u8]) -> Result<(), InvalidState> {
///         self.0 = u64::from_be_bytes(state.try_into().map_err(|_| InvalidState)?);
///         Ok(())
///     }
/// }
/// ```
pub trait Service: Send + 'static {
    /// Handles a request and returns the reply. Effects other than on the service's own state may
    /// be repeated by another server, if this one crashes before the reply is out.
    fn handle(&mut self, request: Bytes) -> impl Future<Output = Bytes> + Send;

    /// Returns the state. It is sealed and sent to the client, and restored by another server.
    /// Together with the replies on their way, it has to fit a cookie: less than 64 KiB.
    fn save(&self) -> Vec<u8>;

    /// Restores a state that [`Self::save`] returned, perhaps in an older or newer version of the
    /// program.
    ///
    /// # Errors
    ///
    /// Returns an error if the service cannot restore the state. The session is then refused.
    fn restore(&mut self, state: &[u8]) -> Result<(), InvalidState>;
}

/// Error of [`Service::restore`]: the service cannot continue from this state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the service cannot restore this state")]
#[allow(clippy::exhaustive_structs, reason = "services return it")]
pub struct InvalidState;

/// Settings with which a [`Service`] is offered.
#[derive(Debug, Clone)]
pub struct ServiceConfig {
    seal: Arc<Seal>,
    ppid: Ppid,
    checkpoint_every: u32,
}

impl ServiceConfig {
    /// Returns the default settings, with checkpoints sealed by `seal`.
    #[must_use]
    pub fn new(seal: impl Into<Arc<Seal>>) -> Self {
        Self { seal: seal.into(), ppid: Ppid::NONE, checkpoint_every: 1 }
    }

    /// Sets the payload protocol identifier of the service. Default: 0, unspecified.
    #[must_use]
    pub fn ppid(mut self, ppid: Ppid) -> Self {
        self.ppid = ppid;
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
    /// Returns true if all requests were done in time.
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
    ) -> bool {
        let serve = |session, stopping| {
            let peer = Served { session, service: new(), config: config.clone() };
            peer.run(stopping)
        };
        self.serve_sessions(serve, stop, grace).await
    }
}

/// Maximum number of messages that a session handles before other tasks run.
const BUDGET: u64 = 32;

/// A session of a service.
struct Served<S> {
    session: ElementSession,
    service: S,
    config: ServiceConfig,
}

impl<S> fmt::Debug for Served<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Served").field("session", &self.session).finish_non_exhaustive()
    }
}

impl<S: Service> Served<S> {
    async fn run(mut self, mut stopping: Stopping) {
        let peer = self.session.peer().clone();
        let mut machine = Server::new();
        let mut lineage = Lineage::new();
        // The state with which a session starts, and to which it returns if it starts afresh.
        let initial = self.service.save();
        let mut handled = 0_u64;
        loop {
            handled += 1;
            if handled.is_multiple_of(BUDGET) {
                yield_now().await;
            }
            let event = poll_fn(|cx| match stopping.poll_unpin(cx) {
                Poll::Ready(()) => Poll::Ready(None),
                Poll::Pending => self.session.poll_recv(cx).map(Some),
            });
            let Some(event) = event.await else { return };
            let sent = match event {
                // A cookie must be the first message. A later one would undo the requests since the
                // start of the session.
                Ok(ElementEvent::CookieEcho(_)) if handled > 1 => {
                    return tracing::warn!(%peer, "session closed: cookie after the first message");
                }
                Ok(ElementEvent::BusinessCard(_) | ElementEvent::NotDelivered(_)) => Ok(()),
                Ok(ElementEvent::CookieEcho(cookie)) => {
                    match self.take_over(&cookie) {
                        Ok(taken) => (machine, lineage) = taken,
                        Err(reason) => {
                            tracing::warn!(%peer, reason, "cannot continue a session");
                            machine.refuse_checkpoint();
                        }
                    }
                    Ok(())
                }
                Ok(ElementEvent::Message(message)) if message.ppid == self.config.ppid => {
                    match machine.handle_message(message.payload) {
                        Ok(Action::Begin(request)) => match self.service.restore(&initial) {
                            Ok(()) => self.handle(&mut machine, &mut lineage, request).await,
                            Err(error) => {
                                tracing::error!(%error, "the service rejected its own initial state");
                                return;
                            }
                        },
                        Ok(Action::Do(request)) => {
                            self.handle(&mut machine, &mut lineage, request).await
                        }
                        Ok(Action::Send(message) | Action::Refuse(message)) => {
                            self.session.send(self.config.ppid, message).await
                        }
                        Ok(Action::Nothing) => Ok(()),
                        Err(error) => {
                            tracing::info!(%peer, %error, "session ended");
                            return;
                        }
                    }
                }
                Ok(ElementEvent::Message(_)) => Ok(()),
                Err(SessionClosed::ByPeer) => return,
                Err(error) => return tracing::debug!(%peer, %error, "session lost"),
            };
            if let Err(error) = sent {
                return tracing::debug!(%peer, %error, "session ended");
            }
        }
    }

    fn take_over(&mut self, cookie: &Bytes) -> Result<(Server, Lineage), String> {
        let opened = self.config.seal.open(wall_clock(), cookie).map_err(|e| e.to_string())?;
        let restored = Server::restore(&opened.clear, opened.state);
        let (machine, state) = restored.map_err(|error| error.to_string())?;
        self.service.restore(&state).map_err(|error| error.to_string())?;
        Ok((machine, opened.lineage))
    }

    async fn handle(
        &mut self,
        machine: &mut Server,
        lineage: &mut Lineage,
        request: Bytes,
    ) -> Result<(), SessionSendError> {
        let reply = self.service.handle(request).await;
        let message = machine.finish(reply);
        if machine.since_checkpoint() >= self.config.checkpoint_every {
            let (clear, rest) = machine.checkpoint(&self.service.save());
            match self.config.seal.seal(wall_clock(), lineage, &clear, &rest) {
                // The cookie is sent before the reply, so that the next server knows everything
                // that the client has seen.
                Ok(cookie) => match self.session.send_cookie(cookie).await {
                    Err(error @ SessionSendError::Message(SendError::TooLong { .. })) => {
                        return self.refuse(machine, &error).await;
                    }
                    sent => sent?,
                },
                Err(error) => return self.refuse(machine, &error).await,
            }
        }
        match self.session.send(self.config.ppid, message).await {
            // Another server could not send the message either, since it is too long.
            Err(error @ SessionSendError::Message(SendError::TooLong { .. })) => {
                self.refuse(machine, &error).await
            }
            sent => sent,
        }
    }

    async fn refuse(
        &mut self,
        machine: &mut Server,
        error: &(dyn std::error::Error + Sync),
    ) -> Result<(), SessionSendError> {
        tracing::error!(%error, "cannot continue the session");
        let refusal = machine.refuse_state();
        self.session.send(self.config.ppid, refusal).await
    }
}

/// Lets other tasks run.
async fn yield_now() {
    let mut yielded = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Returns the time of day, for cookies that other hosts check.
#[allow(clippy::disallowed_methods, reason = "a runtime's clock means nothing on another host")]
fn wall_clock() -> SystemTime {
    SystemTime::now()
}
