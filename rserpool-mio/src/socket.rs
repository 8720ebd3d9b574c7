//! Sockets and their readiness.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use futures::task::AtomicWaker;
use mio::unix::SourceFd;
use rserpool::runtime::{Interest, RegisteredSocket, Socket};

use crate::{Shared, lock};

/// Readiness of a socket in one direction. It counts the reactor's events, so that an event that
/// arrives while an operation would block is not lost.
#[derive(Debug, Default)]
pub(crate) struct Readiness {
    readable: Direction,
    writable: Direction,
}

#[derive(Debug, Default)]
struct Direction {
    /// Twice the number of events, plus one while the direction is ready.
    state: AtomicUsize,
    /// True if the other end has closed this direction, which stays ready then.
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
    pub(crate) fn set(&self, event: &mio::event::Event) {
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
pub(crate) struct MioSocket {
    pub(crate) socket: Socket,
    pub(crate) readiness: Arc<Readiness>,
    pub(crate) key: usize,
    pub(crate) shared: Arc<Shared>,
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
            // A new socket nearly always has room to write, even before the first event.
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
                // The other end has closed this direction: try once more, to read the end of the
                // stream.
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
