//! Sockets on the reactor of `async-io`, since tokio has none for raw sockets on Windows. The
//! reactor runs on a thread of its own and wakes tasks of any runtime.

use std::io;
use std::task::{Context, Poll, ready};

use async_io::Async;
use rserpool::runtime::{Interest, RegisteredSocket};
use socket2::Socket;

#[derive(Debug)]
pub(crate) struct TokioSocket(Async<Socket>);

impl TokioSocket {
    pub(crate) fn new(socket: Socket) -> io::Result<Self> {
        Async::new_nonblocking(socket).map(Self)
    }
}

impl RegisteredSocket for TokioSocket {
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
