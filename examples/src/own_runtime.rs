//! A custom runtime: `async-io` watches sockets and timers, and each task has a thread. It is not
//! fast, but shows everything that a runtime needs.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::thread;
use std::time::Instant;

use async_io::Async;
use futures::future::BoxFuture;
use rserpool::runtime::{Interest, RegisteredSocket, Runtime, Socket, Timer};

/// A runtime with a thread for each task.
#[derive(Debug, Clone, Copy, Default)]
#[allow(clippy::exhaustive_structs, reason = "it has nothing to configure")]
pub struct ThreadPerTask;

impl Runtime for ThreadPerTask {
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        thread::spawn(|| async_io::block_on(task));
    }

    fn timer(&self, deadline: Instant) -> Pin<Box<dyn Timer>> {
        Box::pin(Alarm { timer: async_io::Timer::at(deadline), fired: false })
    }

    fn register(&self, socket: Socket) -> io::Result<Box<dyn RegisteredSocket>> {
        Ok(Box::new(Watched(Async::new_nonblocking(socket)?)))
    }

    #[allow(clippy::disallowed_methods, reason = "this is the runtime")]
    fn now(&self) -> Instant {
        Instant::now()
    }
}

#[derive(Debug)]
struct Alarm {
    timer: async_io::Timer,
    /// True if the timer has fired. A timer of `async-io` is ready once, but one of [`Runtime`]
    /// stays ready until it is reset.
    fired: bool,
}

impl Future for Alarm {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if !self.fired {
            ready!(Pin::new(&mut self.timer).poll(cx));
            self.fired = true;
        }
        Poll::Ready(())
    }
}

impl Timer for Alarm {
    fn reset(mut self: Pin<&mut Self>, deadline: Instant) {
        self.timer.set_at(deadline);
        self.fired = false;
    }
}

#[derive(Debug)]
struct Watched(Async<Socket>);

impl RegisteredSocket for Watched {
    fn socket(&self) -> &Socket {
        self.0.get_ref()
    }

    fn poll_io(
        &mut self,
        cx: &mut Context<'_>,
        interest: Interest,
        operation: &mut dyn FnMut(&Socket) -> io::Result<()>,
    ) -> Poll<io::Result<()>> {
        loop {
            match operation(self.0.get_ref()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
            ready!(match interest {
                Interest::Readable => self.0.poll_readable(cx),
                Interest::Writable => self.0.poll_writable(cx),
            })?;
        }
    }
}
