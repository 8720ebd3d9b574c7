//! Gate that holds the tasks and connections of a server up.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Instant;

use futures::task::AtomicWaker;

use crate::runtime::{BoxFuture, RegisteredSocket, Runtime, Socket, Timer};
use crate::transport::Connection;

/// The state of a server, and all that waits for it to change.
#[derive(Default)]
pub(super) struct Gate {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    dead: bool,
    paused: bool,
    cut_off: bool,
    waiting: Vec<Weak<AtomicWaker>>,
    connections: Vec<Weak<Breakable>>,
}

/// A connection of the server: `None` once it is broken.
pub(super) type Breakable = Mutex<Option<Box<dyn Connection>>>;

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let State { dead, paused, cut_off, .. } = &*self.state();
        f.debug_struct("Gate")
            .field("dead", dead)
            .field("paused", paused)
            .field("cut_off", cut_off)
            .finish_non_exhaustive()
    }
}

impl Gate {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let waiting: Vec<_> = {
            let mut state = self.state();
            change(&mut state);
            state.waiting.retain(|waker| waker.strong_count() > 0);
            state.waiting.iter().filter_map(Weak::upgrade).collect()
        };
        for waker in waiting {
            waker.wake();
        }
    }

    pub(super) fn kill(&self) {
        let connections = {
            let mut state = self.state();
            state.dead = true;
            std::mem::take(&mut state.connections)
        };
        for connection in connections.iter().filter_map(Weak::upgrade) {
            let broken = connection.lock().unwrap_or_else(PoisonError::into_inner).take();
            drop(broken);
        }
        self.change(|_| {});
    }

    pub(super) fn pause(&self) {
        self.change(|state| state.paused = true);
    }

    pub(super) fn resume(&self) {
        self.change(|state| state.paused = false);
    }

    pub(super) fn cut_off(&self) {
        self.change(|state| state.cut_off = true);
    }

    pub(super) fn reconnect(&self) {
        self.change(|state| state.cut_off = false);
    }

    pub(super) fn is_cut_off(&self) -> bool {
        self.state().cut_off
    }

    /// Returns whether the connections of the server carry nothing at present.
    pub(super) fn holds_connections(&self) -> bool {
        let State { dead, paused, cut_off, .. } = &*self.state();
        !dead && (*paused || *cut_off)
    }

    /// Returns a connection that breaks when the server is killed, whichever task has it.
    pub(super) fn breakable(&self, connection: Box<dyn Connection>) -> Arc<Breakable> {
        let mut state = self.state();
        let connection = (!state.dead).then_some(connection);
        let breakable = Arc::new(Mutex::new(connection));
        state.connections.retain(|connection| connection.strong_count() > 0);
        state.connections.push(Arc::downgrade(&breakable));
        breakable
    }

    /// Returns a waker that is woken with each change of the state.
    pub(super) fn waker(&self) -> Arc<AtomicWaker> {
        let waker = Arc::new(AtomicWaker::new());
        self.state().waiting.push(Arc::downgrade(&waker));
        waker
    }
}

/// A task of the server.
struct Task {
    gate: Arc<Gate>,
    waker: Arc<AtomicWaker>,
    /// `None` once the server is dead.
    task: Option<BoxFuture<'static, ()>>,
}

impl Future for Task {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        this.waker.register(cx.waker());
        let (dead, paused) = {
            let state = this.gate.state();
            (state.dead, state.paused)
        };
        if dead {
            this.task = None;
        }
        match &mut this.task {
            None => Poll::Ready(()),
            Some(_) if paused => Poll::Pending,
            Some(task) => task.as_mut().poll(cx),
        }
    }
}

/// A runtime whose tasks are those of one server.
#[derive(Debug)]
pub(super) struct GatedRuntime {
    inner: Arc<dyn Runtime>,
    gate: Arc<Gate>,
}

impl GatedRuntime {
    pub(super) fn new(inner: Arc<dyn Runtime>, gate: Arc<Gate>) -> Self {
        Self { inner, gate }
    }
}

impl Runtime for GatedRuntime {
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        let (gate, waker) = (Arc::clone(&self.gate), self.gate.waker());
        self.inner.spawn(Box::pin(Task { gate, waker, task: Some(task) }));
    }

    fn timer(&self, deadline: Instant) -> Pin<Box<dyn Timer>> {
        self.inner.timer(deadline)
    }

    fn register(&self, socket: Socket) -> io::Result<Box<dyn RegisteredSocket>> {
        self.inner.register(socket)
    }

    fn now(&self) -> Instant {
        self.inner.now()
    }
}
