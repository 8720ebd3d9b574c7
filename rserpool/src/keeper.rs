//! Keeps sessions alive while the application is busy at its element.
//!
//! While the application waits for the next event, the session's connection is read. While the
//! application handles an event, nobody would answer the pool user's heartbeats, and the pool user
//! could not tell a program that computes from one that hangs. So a task of the element, the
//! keeper, sends heartbeat replies on the sessions whose application is busy.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use futures::future::poll_fn;
use futures::task::AtomicWaker;
use rserpool_proto::session::heartbeat_reply;
use rserpool_proto::wire::TransportProtocol;

use crate::Network;
use crate::timer::LazyTimer;
use crate::transport::Connection;

/// Interval at which the keeper (the task that sends heartbeat replies for a busy application)
/// checks its sessions. Not from the RFCs.
const TICK: Duration = Duration::from_millis(50);

/// Interval between the replies on a busy session. Not from the RFCs: several fit the default
/// timeout of [`SessionConfig::heartbeat`](crate::SessionConfig::heartbeat).
const REPLY_INTERVAL: Duration = Duration::from_millis(250);

/// A session's connection, which the application and the keeper (the task that sends heartbeat
/// replies) share.
pub(crate) struct Line {
    connection: Mutex<Box<dyn Connection>>,
    signal: Arc<Signal>,
    waker: Waker,
}

/// The waker of a [`Line`]'s connection. It does not own the connection, since the connection owns
/// it.
struct Signal {
    line: Weak<Line>,
    /// True while the application is busy: from the time at which an event is ready, or the
    /// application takes one, until the application waits for the next.
    busy: AtomicBool,
    /// True if this line is in the keeper's list of busy lines.
    listed: AtomicBool,
    /// True if the pool user sends heartbeats. Other pool users are sent no replies, because they
    /// might not know these messages.
    asked: AtomicBool,
    task: AtomicWaker,
    keeper: Arc<Keeper>,
}

/// The lines (connections of sessions) whose application is, or was, busy.
#[derive(Default)]
pub(crate) struct Keeper {
    lines: Mutex<Vec<Busy>>,
    running: AtomicBool,
}

struct Busy {
    line: Weak<Line>,
    since: Option<Instant>,
    replied: Option<Instant>,
}

impl fmt::Debug for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keeper").finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.become_busy();
        self.task.wake();
    }
}

impl Signal {
    fn become_busy(&self) {
        self.busy.store(true, Ordering::Release);
        if !self.listed.swap(true, Ordering::AcqRel) {
            lock(&self.keeper.lines).push(Busy {
                line: self.line.clone(),
                since: None,
                replied: None,
            });
        }
    }
}

impl Line {
    pub(crate) fn new(keeper: &Arc<Keeper>, connection: Box<dyn Connection>) -> Arc<Self> {
        let line = Arc::new_cyclic(|line| {
            let signal = Arc::new(Signal {
                line: line.clone(),
                busy: AtomicBool::new(false),
                listed: AtomicBool::new(false),
                // Over TCP, all pool users use this project's implementation, which sends
                // heartbeats.
                asked: AtomicBool::new(connection.peer().protocol != TransportProtocol::Sctp),
                task: AtomicWaker::new(),
                keeper: Arc::clone(keeper),
            });
            let waker = Waker::from(Arc::clone(&signal));
            Self { connection: Mutex::new(connection), signal, waker }
        });
        // The application does not wait for events yet, so it counts as busy.
        line.signal.become_busy();
        line
    }

    /// Records that the pool user sends heartbeats.
    pub(crate) fn handle_heartbeat(&self) {
        self.signal.asked.store(true, Ordering::Relaxed);
    }

    pub(crate) fn connection(&self) -> MutexGuard<'_, Box<dyn Connection>> {
        lock(&self.connection)
    }

    /// Polls the connection for the application's next event. Once this is ready, the application
    /// counts as busy.
    pub(crate) fn poll<R>(
        &self,
        cx: &mut Context<'_>,
        poll: impl FnOnce(&mut dyn Connection, &mut Context<'_>) -> Poll<R>,
    ) -> Poll<R> {
        // Clear the flag before the poll, so that an event that arrives during the poll can set it.
        self.signal.busy.store(false, Ordering::Release);
        let polled = self.poll_busy(cx, poll);
        if polled.is_ready() {
            self.signal.become_busy();
        }
        polled
    }

    /// Polls the connection for the application, which still counts as busy. A connection stores a
    /// single waker. So all polls, those of the keeper included, register the line's waker, which
    /// wakes the application.
    pub(crate) fn poll_busy<R>(
        &self,
        cx: &mut Context<'_>,
        poll: impl FnOnce(&mut dyn Connection, &mut Context<'_>) -> Poll<R>,
    ) -> Poll<R> {
        self.signal.task.register(cx.waker());
        poll(&mut **self.connection(), &mut Context::from_waker(&self.waker))
    }
}

impl Keeper {
    /// Starts the keeper's task, unless it runs already. The task stops with the element and its
    /// sessions.
    pub(crate) fn start(self: &Arc<Self>, network: &Network) {
        if self.running.swap(true, Ordering::AcqRel) {
            return;
        }
        let (keeper, network) = (Arc::downgrade(self), network.clone());
        let runtime = Arc::clone(network.runtime());
        let mut timer = LazyTimer::default();
        let mut next = network.now() + TICK;
        runtime.spawn(Box::pin(poll_fn(move |cx| {
            while timer.poll(cx, network.runtime(), Some(next)).is_ready() {
                let Some(keeper) = keeper.upgrade() else { return Poll::Ready(()) };
                let now = network.now();
                keeper.look(now);
                next = now + TICK;
            }
            Poll::Pending
        })));
    }

    /// Sends heartbeat replies on the lines whose application has been busy for a tick.
    fn look(&self, now: Instant) {
        let lines = std::mem::take(&mut *lock(&self.lines));
        let kept = lines.into_iter().filter_map(|mut busy| {
            let line = busy.line.upgrade()?;
            if !line.signal.busy.load(Ordering::Acquire) {
                line.signal.listed.store(false, Ordering::Release);
                // The application may have become busy again just before.
                let again = line.signal.busy.load(Ordering::Acquire)
                    && !line.signal.listed.swap(true, Ordering::AcqRel);
                busy.since = None;
                return again.then_some(busy);
            }
            let due = match (busy.since, busy.replied) {
                (None, _) => {
                    busy.since = Some(now);
                    false
                }
                (Some(_), None) => true,
                (Some(_), Some(replied)) => now >= replied + REPLY_INTERVAL,
            };
            if due {
                busy.replied = Some(now);
                line.reply();
            }
            Some(busy)
        });
        let kept: Vec<_> = kept.collect();
        lock(&self.lines).extend(kept);
    }
}

impl Line {
    /// Sends a heartbeat reply without a heartbeat. If the connection has no room, the pool user
    /// does not read, and would not read this either.
    fn reply(&self) {
        if !self.signal.asked.load(Ordering::Relaxed) {
            return;
        }
        let mut connection = self.connection();
        if let Some(reply) = heartbeat_reply()
            && connection.send(reply).is_ok()
        {
            // Write the reply; the next call writes what is left.
            let _ = connection.poll_ready(&mut Context::from_waker(&self.waker));
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use rserpool_proto::wire::{TransportAddress, UserMessage};

    use super::*;
    use crate::transport::{Event, SendError};

    /// A connection that is not writable, and keeps the last waker, as the sockets of runtimes do.
    #[derive(Debug)]
    struct Full {
        peer: TransportAddress,
        waker: Arc<Mutex<Option<Waker>>>,
    }

    impl Connection for Full {
        fn peer(&self) -> &TransportAddress {
            &self.peer
        }

        fn poll_event(&mut self, _: &mut Context<'_>) -> Poll<Event> {
            Poll::Pending
        }

        fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
            *self.waker.lock().unwrap() = Some(cx.waker().clone());
            Poll::Pending
        }

        fn send(&mut self, _: UserMessage) -> Result<(), SendError> {
            Ok(())
        }

        fn poll_close(&mut self, _: &mut Context<'_>) -> Poll<()> {
            Poll::Pending
        }
    }

    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_reply_of_the_keeper_does_not_take_the_applications_waker() {
        let (keeper, writable) = (Arc::default(), Arc::<Mutex<Option<Waker>>>::default());
        let peer = TransportAddress::tcp(([127, 0, 0, 1], 1).into());
        let line = Line::new(&keeper, Box::new(Full { peer, waker: Arc::clone(&writable) }));
        let wakes = Arc::new(Wakes::default());
        let waker = Waker::from(Arc::clone(&wakes));
        let mut cx = Context::from_waker(&waker);
        // The application waits for room, and counts as busy. So the keeper replies.
        assert!(line.poll_busy(&mut cx, |connection, cx| connection.poll_ready(cx)).is_pending());
        line.reply();
        writable.lock().unwrap().take().unwrap().wake();
        assert_eq!(wakes.0.load(Ordering::Relaxed), 1);
    }
}
