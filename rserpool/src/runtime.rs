//! Interface to an asynchronous runtime.
//!
//! A runtime provides what depends on its reactor: it spawns tasks, makes timers, registers sockets
//! and tells the time. It is held as `Arc<dyn Runtime>`, never as a type parameter. The crates
//! `rserpool-tokio` and `rserpool-smol` each implement one.

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
/// The methods work on any thread, inside or outside of the runtime's context.
pub trait Runtime: fmt::Debug + Send + Sync + 'static {
    /// Runs `task` to completion in the background.
    fn spawn(&self, task: BoxFuture<'static, ()>);

    /// Returns a timer that fires at `deadline`.
    fn timer(&self, deadline: Instant) -> Pin<Box<dyn Timer>>;

    /// Registers a socket, which is non-blocking already, and takes ownership of it.
    ///
    /// # Errors
    ///
    /// Returns an error if the reactor does not accept the socket, which is closed then.
    fn register(&self, socket: Socket) -> io::Result<Box<dyn RegisteredSocket>>;

    /// Returns the current time on the clock that the timers use.
    fn now(&self) -> Instant;
}

/// A timer: a future that is ready from its deadline on, until it is reset.
pub trait Timer: Future<Output = ()> + Send + Sync {
    /// Sets another deadline, whether the timer has fired or not.
    fn reset(self: Pin<&mut Self>, deadline: Instant);
}

/// The kind of readiness to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "runtimes match on it, and there is no third")]
pub enum Interest {
    /// There is data to read, or a connection to accept.
    Readable,
    /// There is room to write, or a connection is established.
    Writable,
}

/// A socket that is registered with its runtime. Dropping it deregisters the socket, then closes
/// it.
pub trait RegisteredSocket: fmt::Debug + Send + Sync {
    /// Returns the socket.
    fn socket(&self) -> &Socket;

    /// Calls `operation`, which must not block, now and whenever the socket may be ready, until it
    /// returns anything but [`io::ErrorKind::WouldBlock`].
    ///
    /// The waker of the last call is kept for each direction.
    ///
    /// An operation that has read all available data may return [`io::ErrorKind::WouldBlock`] to
    /// save a call that would read nothing. Only the end of the stream may then be unread. So an
    /// edge-triggered runtime has to remember that the other end has closed, and call the operation
    /// again.
    ///
    /// # Errors
    ///
    /// Returns the error of `operation`, or an error of the reactor.
    fn poll_io(
        &mut self,
        cx: &mut Context<'_>,
        interest: Interest,
        operation: &mut dyn FnMut(&Socket) -> io::Result<()>,
    ) -> Poll<io::Result<()>>;
}
