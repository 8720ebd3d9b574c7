//! A session of a service, at its server.

use std::any::Any;
use std::fmt;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Poll;
use std::time::SystemTime;

use bytes::Bytes;
use futures::FutureExt;
use rserpool_proto::replay::{
    Action, Frame, InvalidCheckpoint, REACH_LENGTH, RefusalReason, RequestFailure, Server,
    ServerConfig,
};
use tracing::Instrument;

use super::serve::Stopping;
use super::{InvalidState, Service, ServiceConfig};
use crate::cookie::{CookieRefused, Lineage, TooLong};
use crate::element_session::{ElementEvent, ElementSession};
use crate::log::warn_limited;
use crate::session_error::{SessionClosed, SessionSendError};

/// Maximum number of steps that a session takes before other tasks run.
const BUDGET: u32 = 32;

/// Maximum length of the beginning of a request that is logged, in bytes.
const LOGGED: usize = 64;

/// A session of a service, with what is needed to return the service to an earlier state.
pub(super) struct Served<S> {
    session: ElementSession,
    config: ServiceConfig,
    machine: Server,
    lineage: Lineage,
    service: S,
    /// The state with which a session starts, and to which it returns if it starts afresh.
    initial: Bytes,
    /// The state of the last checkpoint.
    saved: Bytes,
    /// The requests that were executed since the last checkpoint.
    since: Vec<Bytes>,
}

/// The reason why a server ends a session.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error(transparent)]
    Closed(#[from] SessionClosed),
    #[error(transparent)]
    Send(#[from] SessionSendError),
    #[error("the client breaks the protocol")]
    Protocol(#[from] rserpool_proto::replay::ServerError),
    #[error(transparent)]
    Cookie(#[from] TooLong),
    #[error("a cookie arrived after the first message")]
    LateCookie,
    #[error("the service cannot save or restore its own state")]
    State(#[from] InvalidState),
    #[error("the service panicked while it began, or saved or restored its own state")]
    Panicked,
}

/// Error of continuing a session from its checkpoint.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error(transparent)]
    Cookie(#[from] CookieRefused),
    #[error(transparent)]
    Checkpoint(#[from] InvalidCheckpoint),
    #[error(transparent)]
    State(#[from] InvalidState),
}

impl Refused {
    fn reason(&self) -> RefusalReason {
        match self {
            Self::Cookie(CookieRefused::Foreign) => RefusalReason::UnknownKey,
            Self::Cookie(CookieRefused::Expired) => RefusalReason::Expired,
            Self::Cookie(CookieRefused::Replayed) => RefusalReason::Replayed,
            Self::Cookie(_) | Self::Checkpoint(_) => RefusalReason::CheckpointRefused,
            Self::State(_) => RefusalReason::StateRejected,
        }
    }
}

impl<S> fmt::Debug for Served<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Served").field("session", &self.session).finish_non_exhaustive()
    }
}

impl<S: Service> Served<S> {
    pub(super) fn new(session: ElementSession, service: S, config: ServiceConfig) -> Self {
        let max_message = session.max_message_size();
        let machine = Server::new(ServerConfig {
            checkpoint_every: config.checkpoint_every,
            room: config.seal.room(REACH_LENGTH, session.max_cookie_length()),
            max_reply: max_message.saturating_sub(Frame::REPLY_HEADER),
        });
        Self {
            lineage: Lineage::new().bind(session.identity().filter(|_| config.binds_cookies)),
            session,
            config,
            machine,
            service,
            saved: Bytes::new(),
            initial: Bytes::new(),
            since: Vec::new(),
        }
    }

    /// Serves the session until it ends, or until the server is to stop.
    pub(super) async fn run(mut self, stopping: Stopping) {
        let peer = self.session.peer().clone();
        let span = tracing::info_span!("session", pool = %self.config.seal.pool(), %peer);
        match self.serve(stopping).instrument(span).await {
            Ok(()) | Err(Ended::Closed(SessionClosed::ByPeer)) => {}
            Err(error @ (Ended::Closed(_) | Ended::Send(_))) => {
                tracing::debug!(%peer, %error, "session lost");
            }
            Err(error) => {
                let (now, host) = (self.session.now(), peer.host());
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                warn_limited!(now, host, "session closed", %peer, %error, cause);
            }
        }
    }

    async fn serve(&mut self, mut stopping: Stopping) -> Result<(), Ended> {
        let (service, user) = (&mut self.service, self.session.identity());
        let told = catch_unwind(AssertUnwindSafe(|| service.begin(user)));
        told.map_err(|_| Ended::Panicked)?;
        self.initial = self.save()?;
        self.saved = self.initial.clone();
        let mut is_first = true;
        for step in 1_u32.. {
            if step.is_multiple_of(BUDGET) {
                yield_now().await;
            }
            // Stop before the next request is announced. Otherwise the client would count the end
            // of this server as a crash that the request caused.
            if self.machine.begins_request() && (&mut stopping).now_or_never().is_some() {
                return Ok(());
            }
            if let Some(action) = self.machine.poll_action() {
                self.act(action).await?;
                continue;
            }
            let event = poll_fn(|cx| match stopping.poll_unpin(cx) {
                Poll::Ready(()) => Poll::Ready(None),
                Poll::Pending => self.session.poll_recv(cx).map(Some),
            });
            let Some(event) = event.await else { return Ok(()) };
            match event? {
                // A cookie must be the first message. A later one would undo the requests since the
                // start of the session.
                ElementEvent::CookieEcho(_) if !is_first => return Err(Ended::LateCookie),
                ElementEvent::CookieEcho(cookie) => self.take_over(&cookie),
                ElementEvent::Message(message) if message.ppid == self.config.ppid => {
                    self.machine.handle_message(message.payload)?;
                }
                ElementEvent::Message(message) => {
                    let (peer, ppid) = (self.session.peer(), message.ppid);
                    warn_limited!(
                        self.session.now(), peer.host(),
                        "message of another protocol ignored: the client has another PPID",
                        %peer, %ppid, expected = %self.config.ppid
                    );
                }
                ElementEvent::BusinessCard(_) | ElementEvent::NotDelivered(_) => {}
            }
            is_first = false;
        }
        Ok(())
    }

    fn take_over(&mut self, cookie: &Bytes) {
        if let Err(error) = self.restore(cookie) {
            let peer = self.session.peer();
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            warn_limited!(
                self.session.now(), peer.host(), "cannot continue a session", %peer, %error, cause
            );
            self.machine.refuse_checkpoint(error.reason());
        }
    }

    fn restore(&mut self, cookie: &Bytes) -> Result<(), Refused> {
        let user = self.session.identity().filter(|_| self.config.binds_cookies);
        let opened = self.config.seal.open_for(user, wall_clock(), cookie)?;
        let config = self.machine.config();
        let (machine, state) = Server::restore(config, &opened.clear, opened.state)?;
        let restored = catch_unwind(AssertUnwindSafe(|| self.service.restore(&state)));
        restored.map_err(|panic| InvalidState::new(message(&*panic)))??;
        (self.machine, self.lineage) = (machine, opened.lineage);
        // A copy, because the rest of the cookie is not kept.
        self.saved = Bytes::copy_from_slice(&state);
        Ok(())
    }

    async fn act(&mut self, action: Action) -> Result<(), Ended> {
        match action {
            Action::Reset => {
                self.saved = self.initial.clone();
                self.since.clear();
                self.return_to_saved().await?;
            }
            Action::Execute(request) => self.execute(request).await?,
            Action::Fail(failure) => self.fail(failure)?,
            Action::Checkpoint { clear, rest } => {
                let seal = &self.config.seal;
                let cookie = seal.seal(wall_clock(), &mut self.lineage, &clear, &rest)?;
                self.session.send_cookie(cookie).await?;
            }
            Action::Send(message) => self.session.send(self.config.ppid, message).await?,
        }
        Ok(())
    }

    async fn execute(&mut self, request: Bytes) -> Result<(), Ended> {
        let (service, body) = (&mut self.service, request.clone());
        let (pool, number) = (self.config.seal.pool(), self.machine.present().0);
        let span = tracing::debug_span!("request", %pool, number);
        let handled = AssertUnwindSafe(async move { service.handle(body).await }.instrument(span));
        let mut cause = None;
        let handled = match handled.catch_unwind().await {
            Ok(reply) => {
                let save = || match self.service.save() {
                    Ok(state) => Ok(state.into()),
                    Err(error) => {
                        cause = std::error::Error::source(&error).map(ToString::to_string);
                        Err(RequestFailure::StateNotSaved)
                    }
                };
                catch_unwind(AssertUnwindSafe(|| self.machine.finish(reply, save)))
            }
            Err(panic) => Err(panic),
        };
        let failure = match handled {
            Ok(Ok(None)) => {
                self.since.push(request);
                return Ok(());
            }
            Ok(Ok(Some(state))) => {
                self.saved = state;
                self.since.clear();
                return Ok(());
            }
            Ok(Err(failure)) => failure,
            Err(panic) => {
                self.report_panic(&request, &message(&*panic));
                RequestFailure::Panicked
            }
        };
        if failure != RequestFailure::Panicked {
            let peer = self.session.peer();
            let number = self.machine.present().0;
            warn_limited!(
                self.session.now(), peer.host(), "request failed", %peer, number, error = %failure, cause
            );
        }
        self.return_to_saved().await?;
        self.fail(failure)
    }

    fn report_panic(&self, request: &Bytes, panic: &str) {
        let peer = self.session.peer();
        let (number, length) = (self.machine.present().0, request.len());
        let begin = request[..length.min(LOGGED)].escape_ascii();
        warn_limited!(
            self.session.now(), peer.host(), "the service panicked",
            pool = %self.config.seal.pool(), %peer, number, length, request = %begin, panic
        );
    }

    /// Returns the service to its state before the present request: restores the last checkpoint,
    /// and executes the requests since then again.
    async fn return_to_saved(&mut self) -> Result<(), Ended> {
        let restored = catch_unwind(AssertUnwindSafe(|| self.service.restore(&self.saved)));
        restored.map_err(|_| Ended::Panicked)??;
        for request in &self.since {
            let handled = AssertUnwindSafe(self.service.handle(request.clone())).catch_unwind();
            handled.await.map_err(|_| Ended::Panicked)?;
        }
        Ok(())
    }

    fn save(&self) -> Result<Bytes, Ended> {
        let saved = catch_unwind(AssertUnwindSafe(|| self.service.save()));
        Ok(saved.map_err(|_| Ended::Panicked)??.into())
    }

    /// Fails the present request.
    fn fail(&mut self, failure: RequestFailure) -> Result<(), Ended> {
        // With several requests for each checkpoint, an earlier one may have made the state one that
        // cannot be saved.
        let state = match self.save() {
            Err(error @ Ended::State(_)) => {
                let (peer, host) = (self.session.peer(), self.session.peer().host());
                warn_limited!(self.session.now(), host, "session refused", %peer, %error);
                self.machine.refuse_state();
                return Ok(());
            }
            state => state?,
        };
        self.saved = state;
        self.since.clear();
        self.machine.fail(failure, self.saved.clone());
        Ok(())
    }
}

/// Returns the message of a panic.
fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no message").to_owned()
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
