//! Runs [`rserpool`] on [smol](https://docs.rs/smol).
//!
//! ```
//! use rserpool::Network;
//! use rserpool::transport::Tcp;
//! use rserpool_smol::SmolRuntime;
//!
//! let network = Network::new(SmolRuntime::new(), Tcp::new());
//! # let _ = network;
//! ```

#![cfg_attr(docsrs, feature(doc_cfg))]

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use futures::future::BoxFuture;
use rserpool::runtime::{Interest, RegisteredSocket, Runtime, Socket, Timer};
use smol::{Async, Executor};

/// A runtime on smol's reactor. Its tasks run on smol's global executor, or on another one.
#[derive(Debug, Clone, Default)]
pub struct SmolRuntime {
    executor: Option<Arc<Executor<'static>>>,
}

impl SmolRuntime {
    /// Returns a runtime whose tasks run on smol's global executor. `SMOL_THREADS` sets the number
    /// of its threads.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns a runtime whose tasks run on `executor`, which the caller has to run.
    #[must_use]
    pub fn with_executor(executor: Arc<Executor<'static>>) -> Self {
        Self { executor: Some(executor) }
    }
}

impl Runtime for SmolRuntime {
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        match &self.executor {
            Some(executor) => executor.spawn(task).detach(),
            None => smol::spawn(task).detach(),
        }
    }

    fn timer(&self, deadline: Instant) -> Pin<Box<dyn Timer>> {
        Box::pin(SmolTimer { timer: smol::Timer::at(deadline), fired: false })
    }

    fn register(&self, socket: Socket) -> io::Result<Box<dyn RegisteredSocket>> {
        let socket = Async::new_nonblocking(socket)?;
        Ok(Box::new(SmolSocket { socket, drained: false }))
    }

    #[allow(clippy::disallowed_methods, reason = "this is the runtime")]
    fn now(&self) -> Instant {
        Instant::now()
    }
}

#[derive(Debug)]
struct SmolTimer {
    timer: smol::Timer,
    /// True if the timer has fired. A timer of smol is ready once, but one of [`Runtime`] stays
    /// ready until it is reset.
    fired: bool,
}

impl Future for SmolTimer {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if !self.fired {
            ready!(Pin::new(&mut self.timer).poll(cx));
            self.fired = true;
        }
        Poll::Ready(())
    }
}

impl Timer for SmolTimer {
    fn reset(mut self: Pin<&mut Self>, deadline: Instant) {
        self.timer.set_at(deadline);
        self.fired = false;
    }
}

#[derive(Debug)]
struct SmolSocket {
    socket: Async<Socket>,
    /// True if the last read found nothing more, and the reactor has not reported the socket as
    /// readable since.
    drained: bool,
}

impl RegisteredSocket for SmolSocket {
    fn socket(&self) -> &Socket {
        self.socket.get_ref()
    }

    fn poll_io(
        &mut self,
        cx: &mut Context<'_>,
        interest: Interest,
        operation: &mut dyn FnMut(&Socket) -> io::Result<()>,
    ) -> Poll<io::Result<()>> {
        loop {
            if interest == Interest::Writable || !self.drained {
                match operation(self.socket.get_ref()) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    result => return Poll::Ready(result),
                }
            }
            match interest {
                Interest::Readable => {
                    self.drained = true;
                    ready!(self.socket.poll_readable(cx))?;
                    self.drained = false;
                }
                Interest::Writable => ready!(self.socket.poll_writable(cx))?,
            }
        }
    }
}
