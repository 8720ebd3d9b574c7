//! Sockets on tokio's reactor.

use std::io;
use std::task::{Context, Poll, ready};

use rserpool::runtime::{Interest, RegisteredSocket, Socket};
use tokio::io::unix::AsyncFd;

#[derive(Debug)]
pub(crate) struct TokioSocket(AsyncFd<Socket>);

impl TokioSocket {
    pub(crate) fn new(socket: Socket) -> io::Result<Self> {
        #[allow(unsafe_code, reason = "tokio deprecates the safe constructor")]
        // SAFETY: a `Socket` owns its descriptor and keeps it open until it is dropped, and
        // `AsyncFd` only returns references to it.
        let registered = unsafe { AsyncFd::register(socket) };
        Ok(Self(registered?))
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
        // A new socket nearly always has room to write, which tokio does not know yet.
        if interest == Interest::Writable {
            match operation(self.0.get_ref()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
        }
        loop {
            let mut ready = ready!(match interest {
                Interest::Readable => self.0.poll_read_ready(cx),
                Interest::Writable => self.0.poll_write_ready(cx),
            })?;
            // If the operation would block, clears the readiness and waits for the next event.
            if let Ok(result) = ready.try_io(|socket| operation(socket.get_ref())) {
                return Poll::Ready(result);
            }
        }
    }
}
