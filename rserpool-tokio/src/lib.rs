//! Runs [`rserpool`] on [tokio](https://tokio.rs).
//!
//! ```
//! use rserpool::Network;
//! use rserpool::transport::Tcp;
//! use rserpool_tokio::TokioRuntime;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let network = Network::new(TokioRuntime::current(), Tcp::new());
//! # let _ = network;
//! # }
//! ```

#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(unix)]
mod socket;

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use futures::future::BoxFuture;
use rserpool::runtime::{RegisteredSocket, Runtime, Socket, Timer};
use tokio::runtime::Handle;

/// A tokio runtime, which needs its I/O and time drivers enabled. It keeps a handle of the runtime,
/// so it can be used from outside of its context. When the runtime itself is dropped, its tasks are
/// cancelled, and its sockets and timers no longer wake their tasks.
#[derive(Debug, Clone)]
pub struct TokioRuntime {
    handle: Handle,
    life: Arc<AtomicBool>,
}

/// Value that is dropped with the runtime, and then clears the flag that the runtime is alive.
/// tokio's timers panic if they are polled after that.
struct Death(Arc<AtomicBool>);

impl Drop for Death {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl TokioRuntime {
    /// Returns an adapter for the tokio runtime that `handle` belongs to.
    #[must_use]
    pub fn new(handle: Handle) -> Self {
        let life = Arc::new(AtomicBool::new(true));
        let death = Death(Arc::clone(&life));
        handle.spawn(async move {
            let _death = death;
            std::future::pending::<()>().await
        });
        Self { handle, life }
    }

    /// Returns an adapter for the tokio runtime in whose context this is called.
    ///
    /// # Panics
    ///
    /// Panics outside of a runtime's context; [`Self::try_current`] returns `None` there.
    #[must_use]
    pub fn current() -> Self {
        Self::new(Handle::current())
    }

    /// Returns an adapter for the tokio runtime in whose context this is called; `None` outside of
    /// a runtime.
    #[must_use]
    pub fn try_current() -> Option<Self> {
        Handle::try_current().ok().map(Self::new)
    }
}

impl Runtime for TokioRuntime {
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        drop(self.handle.spawn(task));
    }

    fn timer(&self, deadline: Instant) -> Pin<Box<dyn Timer>> {
        let _context = self.handle.enter();
        let sleep = Box::pin(tokio::time::sleep_until(deadline.into()));
        Box::pin(TokioTimer { sleep, life: Arc::clone(&self.life) })
    }

    fn register(&self, socket: Socket) -> io::Result<Box<dyn RegisteredSocket>> {
        #[cfg(unix)]
        {
            let _context = self.handle.enter();
            Ok(Box::new(socket::TokioSocket::new(socket)?))
        }
        // tokio cannot watch a raw socket on Windows. smol's reactor can, on a thread of its own; it
        // wakes the tasks of any runtime.
        #[cfg(windows)]
        rserpool_smol::SmolRuntime::new().register(socket)
    }

    fn now(&self) -> Instant {
        let _context = self.handle.enter();
        tokio::time::Instant::now().into_std()
    }
}

#[derive(Debug)]
struct TokioTimer {
    sleep: Pin<Box<tokio::time::Sleep>>,
    life: Arc<AtomicBool>,
}

impl Future for TokioTimer {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.life.load(Ordering::Acquire) { self.sleep.as_mut().poll(cx) } else { Poll::Pending }
    }
}

impl Timer for TokioTimer {
    fn reset(mut self: Pin<&mut Self>, deadline: Instant) {
        if self.life.load(Ordering::Acquire) {
            self.sleep.as_mut().reset(deadline.into());
        }
    }
}
