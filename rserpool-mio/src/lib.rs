//! Runs [`rserpool`] on a thread and a [mio](https://docs.rs/mio) reactor of its own.
//!
//! [`MioRuntime`] is for programs that consist of one task, such as a registrar. It reads the clock
//! once in each turn of its loop. General runtimes read the clock several times in each turn, for
//! their own statistics. Where reading the clock is a system call, it is the largest cost of a
//! registrar. The runtime executes only the tasks of `rserpool`: a program awaits its handles with
//! any executor.
//!
//! ```
//! use rserpool::Network;
//! use rserpool::transport::Tcp;
//! use rserpool_mio::MioRuntime;
//!
//! # fn main() -> std::io::Result<()> {
//! let network = Network::new(MioRuntime::start()?, Tcp::new());
//! # let _ = network;
//! # Ok(())
//! # }
//! ```
#![cfg(unix)]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod socket;
mod timer;

use std::cell::Cell;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::os::fd::AsRawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Wake, Waker};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use mio::unix::SourceFd;
use mio::{Events, Token};
use rserpool::runtime::{RegisteredSocket, Runtime, Socket, Timer};
use slab::Slab;

use socket::{MioSocket, Readiness};
use timer::{MioTimer, Timers};

/// Exit status after a failure of the reactor: that of an internal software error in `sysexits.h`.
const EXIT_STATUS: i32 = 70;

/// Token of the waker that other threads use.
const WAKE: Token = Token(usize::MAX);

thread_local! {
    /// The time of the current turn of the loop; set only on the runtime's own thread.
    static TURN: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// A runtime on a thread of its own, which runs until the process exits.
///
/// If the reactor fails or the thread panics, the process exits with status 70. Its tasks could not
/// continue, and a process that only looks alive would not be restarted.
#[derive(Debug, Clone)]
pub struct MioRuntime(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    registry: mio::Registry,
    wake: mio::Waker,
    ready: Mutex<VecDeque<Arc<Task>>>,
    sockets: Mutex<Slab<Arc<Readiness>>>,
    timers: Mutex<Timers>,
}

struct Task {
    future: Mutex<Option<BoxFuture<'static, ()>>>,
    queued: AtomicBool,
    shared: Arc<Shared>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl std::fmt::Debug for Task {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Task").field("queued", &self.queued).finish_non_exhaustive()
    }
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        if !self.queued.swap(true, Ordering::AcqRel) {
            let shared = Arc::clone(&self.shared);
            lock(&shared.ready).push_back(self);
            if TURN.get().is_none() {
                let _ = shared.wake.wake();
            }
        }
    }
}

impl MioRuntime {
    /// Starts the thread.
    ///
    /// # Errors
    ///
    /// Returns an error if the reactor or the thread cannot be created.
    pub fn start() -> io::Result<Self> {
        let poll = mio::Poll::new()?;
        let shared = Arc::new(Shared {
            registry: poll.registry().try_clone()?,
            wake: mio::Waker::new(poll.registry(), WAKE)?,
            ready: Mutex::default(),
            sockets: Mutex::default(),
            timers: Mutex::default(),
        });
        let runtime = Arc::clone(&shared);
        std::thread::Builder::new().name("rserpool".to_owned()).spawn(move || {
            // If a panic stopped only this thread, the process would still accept connections.
            let Err(reason) = catch_unwind(AssertUnwindSafe(|| run(&runtime, poll)));
            tracing::error!("the runtime panicked");
            drop(reason);
            end();
        })?;
        Ok(Self(shared))
    }
}

/// Exits the process, after a pause in which the log is written.
fn end() -> ! {
    std::thread::sleep(Duration::from_millis(200));
    std::process::exit(EXIT_STATUS)
}

#[allow(clippy::disallowed_methods, reason = "this is the runtime")]
fn run(shared: &Shared, mut poll: mio::Poll) -> Infallible {
    let mut events = Events::with_capacity(256);
    let mut timeout = Some(Duration::ZERO);
    loop {
        // While this thread sleeps, others have to wake it.
        TURN.set(None);
        if !lock(&shared.ready).is_empty() {
            timeout = Some(Duration::ZERO);
        }
        match poll.poll(&mut events, timeout) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                tracing::error!(%error, "the reactor failed");
                end();
            }
        }
        let now = Instant::now();
        TURN.set(Some(now));
        {
            let sockets = lock(&shared.sockets);
            for event in &events {
                if let Some(readiness) = sockets.get(event.token().0) {
                    readiness.set(event);
                }
            }
        }
        let due = lock(&shared.timers).due(now);
        due.into_iter().for_each(Waker::wake);
        // Tasks that these tasks wake run in the next turn, after the reactor's events.
        let ready = std::mem::take(&mut *lock(&shared.ready));
        ready.into_iter().for_each(Task::run);
        let next = lock(&shared.timers).queue.first_key_value().map(|((time, _), _)| *time);
        timeout = next.map(|next| next.saturating_duration_since(now));
    }
}

impl Task {
    fn run(self: Arc<Self>) {
        self.queued.store(false, Ordering::Release);
        let waker = Waker::from(Arc::clone(&self));
        let mut future = lock(&self.future);
        if let Some(running) = &mut *future
            && running.as_mut().poll(&mut Context::from_waker(&waker)).is_ready()
        {
            *future = None;
        }
    }
}

impl Runtime for MioRuntime {
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        let task = Task {
            future: Mutex::new(Some(task)),
            queued: AtomicBool::new(false),
            shared: Arc::clone(&self.0),
        };
        Arc::new(task).wake();
    }

    fn timer(&self, deadline: Instant) -> Pin<Box<dyn Timer>> {
        Box::pin(MioTimer { runtime: self.clone(), deadline, queued: None })
    }

    fn register(&self, socket: Socket) -> io::Result<Box<dyn RegisteredSocket>> {
        let readiness = Arc::new(Readiness::default());
        let key = lock(&self.0.sockets).insert(Arc::clone(&readiness));
        let registered = MioSocket { socket, readiness, key, shared: Arc::clone(&self.0) };
        let interest = mio::Interest::READABLE | mio::Interest::WRITABLE;
        let descriptor = registered.socket.as_raw_fd();
        self.0.registry.register(&mut SourceFd(&descriptor), Token(key), interest)?;
        Ok(Box::new(registered))
    }

    /// Returns the time at which the current turn of the loop began if called on the runtime's
    /// thread, else the current time.
    #[allow(clippy::disallowed_methods, reason = "this is the runtime")]
    fn now(&self) -> Instant {
        TURN.get().unwrap_or_else(Instant::now)
    }
}
