//! Passing bytes on between a client and a server.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional_with_sizes};
use tokio::time::{Instant, sleep_until};

/// Size of the buffer for each direction, in bytes.
const BUFFER: usize = 32 * 1024;

/// Copies in both directions until both ends have finished; an end that finishes is passed on, and
/// the other direction continues. Returns the number of bytes to `server` and to `client`.
///
/// # Errors
///
/// Returns an error if a connection breaks, or no byte was read or written for `idle`.
pub(super) async fn both_ways(
    client: &mut (impl AsyncRead + AsyncWrite + Unpin),
    server: &mut (impl AsyncRead + AsyncWrite + Unpin),
    idle: Option<Duration>,
) -> io::Result<(u64, u64)> {
    let Some(idle) = idle else {
        return copy_bidirectional_with_sizes(client, server, BUFFER, BUFFER).await;
    };
    let transfers = AtomicU64::new(0);
    let mut client = Counted { inner: client, transfers: &transfers };
    let mut server = Counted { inner: server, transfers: &transfers };
    let mut copy =
        std::pin::pin!(copy_bidirectional_with_sizes(&mut client, &mut server, BUFFER, BUFFER));
    let mut seen = 0;
    let mut watch = std::pin::pin!(sleep_until(Instant::now() + idle));
    poll_fn(|cx| {
        if let Poll::Ready(copied) = copy.as_mut().poll(cx) {
            return Poll::Ready(copied);
        }
        // The time since the last byte is between `idle` and twice that when the connection ends.
        loop {
            ready!(watch.as_mut().poll(cx));
            let now = transfers.load(Ordering::Relaxed);
            if now == seen {
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "idle too long")));
            }
            seen = now;
            watch.as_mut().reset(Instant::now() + idle);
        }
    })
    .await
}

/// A stream whose reads and writes are counted.
struct Counted<'a, S> {
    inner: &'a mut S,
    transfers: &'a AtomicU64,
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<'_, S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut *self.inner).poll_read(cx, buffer))?;
        if buffer.filled().len() > before {
            self.transfers.fetch_add(1, Ordering::Relaxed);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<'_, S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut *self.inner).poll_write(cx, bytes));
        self.transfers.fetch_add(1, Ordering::Relaxed);
        Poll::Ready(written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.inner).poll_shutdown(cx)
    }
}
