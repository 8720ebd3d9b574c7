//! Interface to an asynchronous runtime.
//!
//! Four things, those which touch its reactor: spawn a task, make a timer, register a socket,
//! tell the time. A runtime is held as `Arc<dyn Runtime>`, never a type parameter. The crates
//! `rserpool-tokio` and `rserpool-smol` have one each.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use futures::future::BoxFuture;
use socket2::Socket;

/// An asynchronous runtime.
///
/// Its methods work from any thread, inside or outside of the runtime's context.
pub trait Runtime: fmt::Debug + Send + Sync + 'static {
    /// Runs `task` to its end, in the background.
    fn spawn(&self, task: BoxFuture<'static, ()>);

    /// A timer that fires at `deadline`.
    fn timer(&self, deadline: Instant) -> Pin<Box<dyn Timer>>;

    /// Takes over a socket that is non-blocking already.
    ///
    /// # Errors
    ///
    /// When the reactor does not take it; the socket is closed then.
    fn register(&self, socket: Socket) -> io::Result<Box<dyn RegisteredSocket>>;

    /// The time, on the clock that the timers use.
    fn now(&self) -> Instant;
}

/// A timer: it is ready from its deadline on, until it is reset.
pub trait Timer: Future<Output = ()> + Send + Sync {
    /// Sets another deadline, whether it has fired or not.
    fn reset(self: Pin<&mut Self>, deadline: Instant);
}

/// The readiness of a socket to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "runtimes match on it, and there is no third")]
pub enum Interest {
    /// Something to read, or a connection to accept.
    Readable,
    /// Room to write, or a connection that is made.
    Writable,
}

/// A socket that its runtime watches. Dropping it closes it, and takes it off the reactor
/// first.
pub trait RegisteredSocket: fmt::Debug + Send + Sync {
    /// The socket.
    fn socket(&self) -> &Socket;

    /// Calls `operation`, which must not block, now and whenever the socket may be ready, until
    /// it returns something else than [`io::ErrorKind::WouldBlock`].
    ///
    /// Each direction remembers the waker of its last call.
    ///
    /// An operation that has read all that was there may return
    /// [`io::ErrorKind::WouldBlock`] to save the call that would find nothing. Only the end of the
    /// stream may be there still: so a runtime that is told of events once has to keep in mind
    /// that the other end has closed, and call the operation again.
    ///
    /// # Errors
    ///
    /// What `operation` returns, or an error of the reactor.
    fn poll_io(
        &mut self,
        cx: &mut Context<'_>,
        interest: Interest,
        operation: &mut dyn FnMut(&Socket) -> io::Result<()>,
    ) -> Poll<io::Result<()>>;
}
