//! A runtime for a program that is one task: a thread that reads the clock once a turn.
//!
//! General runtimes read it several times a turn, for their own statistics, which is what a
//! registrar would spend most system calls on where the clock is one.

use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::io;
use std::os::fd::AsRawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use futures::task::AtomicWaker;
use mio::unix::SourceFd;
use mio::{Events, Token};
use rserpool::runtime::{Interest, RegisteredSocket, Runtime, Timer};
use slab::Slab;
use socket2::Socket;

/// The status of a process whose runtime has come to an end.
const EXIT_STATUS: i32 = 70;

/// The token of what wakes the thread from outside.
const WAKE: Token = Token(usize::MAX);

thread_local! {
    /// On the runtime's own thread: the time of this turn.
    static TURN: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// The runtime. Its thread runs as long as the process.
#[derive(Debug, Clone)]
pub struct SingleThread(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    registry: mio::Registry,
    wake: mio::Waker,
    ready: Mutex<VecDeque<Arc<Task>>>,
    sockets: Mutex<Slab<Arc<Readiness>>>,
    timers: Mutex<Timers>,
}

#[derive(Debug, Default)]
struct Timers {
    queue: BTreeMap<(Instant, u64), Waker>,
    next: u64,
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

impl SingleThread {
    /// Starts the thread.
    ///
    /// # Errors
    ///
    /// When there is no reactor or no thread to be had.
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
            // A process without its thread would go on accepting connections.
            let Err(reason) = catch_unwind(AssertUnwindSafe(|| run(&runtime, poll)));
            tracing::error!("the runtime panicked");
            drop(reason);
            end();
        })?;
        Ok(Self(shared))
    }
}

/// Ends the process, once the log had the time to be written.
fn end() -> ! {
    std::thread::sleep(Duration::from_millis(200));
    std::process::exit(EXIT_STATUS)
}

#[allow(clippy::disallowed_methods, reason = "this is the runtime")]
fn run(shared: &Shared, mut poll: mio::Poll) -> Infallible {
    let mut events = Events::with_capacity(256);
    let mut timeout = Some(Duration::ZERO);
    loop {
        // Meanwhile, others have to wake the thread.
        TURN.set(None);
        if !lock(&shared.ready).is_empty() {
            timeout = Some(Duration::ZERO);
        }
        match poll.poll(&mut events, timeout) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                tracing::error!(%error, "no events any more");
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
        // Those that wake each other meanwhile come after what happens outside.
        let ready = std::mem::take(&mut *lock(&shared.ready));
        ready.into_iter().for_each(Task::run);
        let next = lock(&shared.timers).queue.first_key_value().map(|((time, _), _)| *time);
        timeout = next.map(|next| next.saturating_duration_since(now));
    }
}

impl Timers {
    /// The wakers of the timers that are due at `now`, which are gone then.
    fn due(&mut self, now: Instant) -> Vec<Waker> {
        let later = self.queue.split_off(&(now, u64::MAX));
        std::mem::replace(&mut self.queue, later).into_values().collect()
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

impl Runtime for SingleThread {
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        let task = Task {
            future: Mutex::new(Some(task)),
            queued: AtomicBool::new(false),
            shared: Arc::clone(&self.0),
        };
        Arc::new(task).wake();
    }

    fn timer(&self, deadline: Instant) -> Pin<Box<dyn Timer>> {
        Box::pin(SingleThreadTimer { runtime: self.clone(), deadline, queued: None })
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

    /// On the runtime's thread, the time at which its turn began.
    #[allow(clippy::disallowed_methods, reason = "this is the runtime")]
    fn now(&self) -> Instant {
        TURN.get().unwrap_or_else(Instant::now)
    }
}

#[derive(Debug)]
struct SingleThreadTimer {
    runtime: SingleThread,
    deadline: Instant,
    queued: Option<(Instant, u64)>,
}

impl SingleThreadTimer {
    fn cancel(&mut self) {
        if let Some(key) = self.queued.take() {
            lock(&self.runtime.0.timers).queue.remove(&key);
        }
    }
}

impl Future for SingleThreadTimer {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.deadline <= self.runtime.now() {
            self.cancel();
            return Poll::Ready(());
        }
        let runtime = self.runtime.clone();
        let mut timers = lock(&runtime.0.timers);
        let key = match self.queued {
            Some(key) => key,
            None => {
                timers.next += 1;
                let key = (self.deadline, timers.next);
                self.queued = Some(key);
                key
            }
        };
        timers.queue.insert(key, cx.waker().clone());
        drop(timers);
        // The thread may sleep for longer than that.
        if TURN.get().is_none() {
            let _ = runtime.0.wake.wake();
        }
        Poll::Pending
    }
}

impl Timer for SingleThreadTimer {
    fn reset(mut self: Pin<&mut Self>, deadline: Instant) {
        self.cancel();
        self.deadline = deadline;
    }
}

impl Drop for SingleThreadTimer {
    fn drop(&mut self) {
        self.cancel();
    }
}

/// What a socket may be ready for. Counts the events, so that one which comes while an operation
/// finds nothing is not forgotten.
#[derive(Debug, Default)]
struct Readiness {
    readable: Direction,
    writable: Direction,
}

#[derive(Debug, Default)]
struct Direction {
    /// Twice the number of events, and one more while it is ready.
    state: AtomicUsize,
    /// The other end says no more, or hears no more: it stays ready.
    over: AtomicBool,
    waker: AtomicWaker,
}

impl Direction {
    fn set(&self, over: bool) {
        if over {
            self.over.store(true, Ordering::Release);
        }
        let next = |state: usize| Some((state | 1).wrapping_add(2));
        let _ = self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, next);
        self.waker.wake();
    }
}

impl Readiness {
    fn set(&self, event: &mio::event::Event) {
        let broken = event.is_error();
        if event.is_readable() || event.is_read_closed() || broken {
            self.readable.set(event.is_read_closed());
        }
        if event.is_writable() || event.is_write_closed() || broken {
            self.writable.set(event.is_write_closed());
        }
    }
}

#[derive(Debug)]
struct MioSocket {
    socket: Socket,
    readiness: Arc<Readiness>,
    key: usize,
    shared: Arc<Shared>,
}

impl Drop for MioSocket {
    fn drop(&mut self) {
        let descriptor = self.socket.as_raw_fd();
        let _ = self.shared.registry.deregister(&mut SourceFd(&descriptor));
        lock(&self.shared.sockets).remove(self.key);
    }
}

impl RegisteredSocket for MioSocket {
    fn socket(&self) -> &Socket {
        &self.socket
    }

    fn poll_io(
        &mut self,
        cx: &mut Context<'_>,
        interest: Interest,
        operation: &mut dyn FnMut(&Socket) -> io::Result<()>,
    ) -> Poll<io::Result<()>> {
        let direction = match interest {
            Interest::Readable => &self.readiness.readable,
            Interest::Writable => &self.readiness.writable,
        };
        direction.waker.register(cx.waker());
        let mut again = false;
        loop {
            let state = direction.state.load(Ordering::Acquire);
            // There nearly always is room to write, before there is an event that says so.
            if state & 1 == 0 && (interest == Interest::Readable || state > 0) {
                return Poll::Pending;
            }
            match operation(&self.socket) {
                Err(error)
                    if error.kind() == io::ErrorKind::WouldBlock
                        && !direction.over.load(Ordering::Acquire) =>
                {
                    let cleared = (state & !1).max(2);
                    let _ = direction.state.compare_exchange(
                        state,
                        cleared,
                        Ordering::AcqRel,
                        Ordering::Acquire,
                    );
                }
                // Only the end is left, which the next call finds.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if std::mem::replace(&mut again, true) {
                        return Poll::Pending;
                    }
                }
                result => return Poll::Ready(result),
            }
        }
    }
}
