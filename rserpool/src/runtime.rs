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

pub use futures::future::BoxFuture;

/// A non-blocking socket.
///
/// Runtimes register its descriptor, which `AsFd` and `AsRawFd` return (on Windows `AsSocket` and
/// `AsRawSocket`). They need not know the type of the socket. A custom transport creates this type
/// from an `OwnedFd` (on Windows `OwnedSocket`), into which the sockets of the standard library
/// convert. The descriptor must be in non-blocking mode.
#[derive(Debug)]
pub struct Socket(socket2::Socket);

impl Socket {
    pub(crate) fn new(socket: socket2::Socket) -> Self {
        Self(socket)
    }

    pub(crate) fn get(&self) -> &socket2::Socket {
        &self.0
    }
}

#[cfg(unix)]
mod descriptor {
    use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

    use super::Socket;

    impl AsFd for Socket {
        fn as_fd(&self) -> BorrowedFd<'_> {
            self.0.as_fd()
        }
    }

    impl AsRawFd for Socket {
        fn as_raw_fd(&self) -> RawFd {
            self.0.as_raw_fd()
        }
    }

    impl From<OwnedFd> for Socket {
        fn from(descriptor: OwnedFd) -> Self {
            Self(descriptor.into())
        }
    }
}

#[cfg(windows)]
mod descriptor {
    use std::os::windows::io::{AsRawSocket, AsSocket, BorrowedSocket, OwnedSocket, RawSocket};

    use super::Socket;

    impl AsSocket for Socket {
        fn as_socket(&self) -> BorrowedSocket<'_> {
            self.0.as_socket()
        }
    }

    impl AsRawSocket for Socket {
        fn as_raw_socket(&self) -> RawSocket {
            self.0.as_raw_socket()
        }
    }

    impl From<OwnedSocket> for Socket {
        fn from(socket: OwnedSocket) -> Self {
            Self(socket.into())
        }
    }
}

/// An asynchronous runtime.
///
/// The methods work on any thread, inside or outside of the runtime's context.
///
/// The chapter `guide::runtimes` has a complete example.
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
