//! Accepts the sessions of a pool element.
//!
//! A connection on which the peer sends nothing is not yet a session. It takes a descriptor, and is
//! dropped after [`PATIENCE`], or earlier when no descriptors are left for others. Over TCP, the
//! pool users of this project send the first message and are answered at once. So they can tell a
//! running program from a hung one for which the kernel still accepts connections.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::channel::{mpsc, oneshot};
use rserpool_proto::ConnectionId;
use rserpool_proto::access::{AccessRole, AccessRules};
use rserpool_proto::session::{Incoming, classify};
use rserpool_proto::wire::{PoolHandle, TransportProtocol, UserMessage};

use crate::Network;
use crate::connections::Connections;
use crate::log::{ANYBODY, warn_limited};
use crate::timer::LazyTimer;
use crate::transport::{Connection, Endpoint, Event, is_shortage};
use crate::verify::has_role;

/// Maximum time from accepting a connection to the pool user's first message. Not from the RFCs:
/// this project's pool users send their first message at once.
const PATIENCE: Duration = Duration::from_secs(10);

/// Maximum number of connections over which nothing was received yet. Not from the RFCs. Beyond it,
/// the connection that has waited longest is dropped.
const MAX_SILENT: usize = 4096;

/// Pause in accepting sessions after accepting failed for want of descriptors or memory.
const PAUSE: Duration = Duration::from_millis(100);

/// Maximum number of steps in one poll of the task; then other tasks run.
const BUDGET: u32 = 256;

/// Number of silent connections (those without a message so far) that are dropped at a time when no
/// descriptors are left.
const MAX_DISMISSED: usize = 16;

/// Maximum number of sessions that wait for [`PoolElement::accept`](crate::PoolElement::accept).
const MAX_WAITING: usize = 64;

/// A session that was accepted: its connection, and its first message if that was read already.
pub(crate) type Began = (Box<dyn Connection>, Option<UserMessage>);

/// Queue of accepted sessions. Dropping it stops the acceptor.
#[derive(Debug)]
pub(crate) struct Sessions {
    pub(crate) began: mpsc::Receiver<Began>,
    _open: oneshot::Sender<()>,
}

pub(crate) struct Acceptor {
    network: Network,
    endpoint: Box<dyn Endpoint>,
    pool: PoolHandle,
    /// The rules on the users that are served.
    rules: AccessRules,
    silent: Connections,
    /// Connections by time of arrival, the first one first; some may have closed.
    entered: VecDeque<(Instant, ConnectionId)>,
    last: u64,
    /// A session whose first message was received, while the answer to that message is written.
    answering: Option<Began>,
    began: mpsc::Sender<Began>,
    closed: oneshot::Receiver<()>,
    accept_again: Option<Instant>,
    timer: LazyTimer,
}

impl Acceptor {
    /// Starts a task that accepts sessions from `endpoint`. Returns their queue.
    pub(crate) fn spawn(
        network: &Network,
        endpoint: Box<dyn Endpoint>,
        (pool, rules): (PoolHandle, AccessRules),
    ) -> Sessions {
        let (sender, began) = mpsc::channel(MAX_WAITING);
        let (open, closed) = oneshot::channel();
        let mut acceptor = Self {
            network: network.clone(),
            endpoint,
            pool,
            rules,
            silent: Connections::new(),
            entered: VecDeque::new(),
            last: 0,
            answering: None,
            began: sender,
            closed,
            accept_again: None,
            timer: LazyTimer::default(),
        };
        network.runtime().spawn(Box::pin(poll_fn(move |cx| acceptor.poll(cx))));
        Sessions { began, _open: open }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        for _ in 0..BUDGET {
            if self.closed.poll_unpin(cx).is_ready() {
                return Poll::Ready(());
            }
            if ready!(self.began.poll_ready(cx)).is_err() {
                return Poll::Ready(());
            }
            if let Some((connection, _)) = &mut self.answering {
                ready!(connection.poll_flush(cx));
                if let Some(began) = self.answering.take() {
                    // The channel has room: it was ready just before.
                    let _ = self.began.try_send(began);
                }
                continue;
            }
            if let Poll::Ready((name, event)) = self.silent.poll_event(cx) {
                if let Event::Message(message) = event
                    && let Some(connection) = self.silent.take(name)
                {
                    self.begin(connection, message);
                }
                continue;
            }
            let next = [self.accept_again, self.deadline()].into_iter().flatten().min();
            if self.timer.poll(cx, self.network.runtime(), next).is_ready() {
                self.accept_again = None;
                let now = self.network.now();
                while self.deadline().is_some_and(|deadline| deadline <= now) {
                    self.dismiss(now, 1);
                }
                continue;
            }
            if self.accept_again.is_some() {
                return Poll::Pending;
            }
            let accepted = ready!(self.endpoint.poll_accept(cx));
            self.admit(accepted);
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn admit(&mut self, accepted: io::Result<Box<dyn Connection>>) {
        let now = self.network.now();
        let is_user = |connection: &dyn Connection| {
            has_role(now, &self.rules, AccessRole::User, Some(&self.pool), connection)
        };
        match accepted {
            Ok(connection) if !is_user(&*connection) => {}
            // Over TCP, all pool users use this project's implementation, which sends the first
            // message.
            Ok(connection) if connection.peer().protocol != TransportProtocol::Sctp => {
                if self.silent.len() >= MAX_SILENT {
                    self.dismiss(now, 1);
                }
                self.last += 1;
                let name = ConnectionId(self.last);
                self.silent.insert(name, connection);
                self.entered.push_back((now, name));
            }
            Ok(connection) => self.answering = Some((connection, None)),
            Err(error) if is_shortage(&error) => {
                warn_limited!(now, ANYBODY, "cannot accept a session", %error);
                if self.dismiss(now, MAX_DISMISSED) == 0 {
                    self.accept_again = Some(now + PAUSE);
                }
            }
            // The connection failed before it was accepted; there may be another.
            Err(error) => tracing::debug!(%error, "cannot accept a session"),
        }
    }

    /// Handles the first message of a connection.
    fn begin(&mut self, mut connection: Box<dyn Connection>, message: UserMessage) {
        let first = match classify(message.clone()) {
            (Incoming::Heartbeat, Some(answer)) => {
                let _ = connection.send(answer);
                None
            }
            _ => Some(message),
        };
        self.answering = Some((connection, first));
    }

    /// Returns the time at which the next silent connection (one without a message so far) times
    /// out.
    fn deadline(&mut self) -> Option<Instant> {
        while let Some((_, name)) = self.entered.front()
            && !self.silent.contains(*name)
        {
            self.entered.pop_front();
        }
        self.entered.front().map(|(entered, _)| *entered + PATIENCE)
    }

    /// Drops up to `count` connections without a message so far, those that have waited longest
    /// first. Returns the number of dropped connections.
    fn dismiss(&mut self, now: Instant, count: usize) -> usize {
        let mut dismissed = 0;
        while dismissed < count
            && self.deadline().is_some()
            && let Some((_, name)) = self.entered.pop_front()
        {
            self.silent.abort(name);
            dismissed += 1;
        }
        if dismissed > 0 {
            warn_limited!(now, ANYBODY, "dropped a connection over which no session began");
        }
        dismissed
    }
}
