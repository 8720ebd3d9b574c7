//! Standard input and output as one stream.

use std::io::{self, Read};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::thread;

use hyper::body::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, Stdout};
use tokio::sync::mpsc;

/// Standard input and output. A thread of its own reads the input, since a read cannot be cancelled: the
/// program can end while it waits.
pub(super) struct Stdio {
    incoming: mpsc::Receiver<Bytes>,
    rest: Bytes,
    output: Stdout,
}

impl Stdio {
    pub(super) fn new() -> Self {
        let (sender, incoming) = mpsc::channel(4);
        thread::spawn(move || {
            let mut buffer = vec![0; 32 * 1024];
            // An error ends the input, too.
            while let Ok(length @ 1..) = io::stdin().read(&mut buffer) {
                if sender.blocking_send(Bytes::copy_from_slice(&buffer[..length])).is_err() {
                    break;
                }
            }
        });
        Self { incoming, rest: Bytes::new(), output: tokio::io::stdout() }
    }
}

impl AsyncRead for Stdio {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.rest.is_empty() {
            let Some(bytes) = ready!(self.incoming.poll_recv(cx)) else {
                return Poll::Ready(Ok(()));
            };
            self.rest = bytes;
        }
        let length = self.rest.len().min(buffer.remaining());
        buffer.put_slice(&self.rest[..length]);
        self.rest.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stdio {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.output).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.output).poll_flush(cx)
    }

    /// Closes standard output, so that its reader notices the end.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.output).poll_flush(cx))?;
        #[cfg(unix)]
        rustix::stdio::dup2_stdout(std::fs::File::options().write(true).open("/dev/null")?)?;
        Poll::Ready(Ok(()))
    }
}
