//! Connections to the elements of a pool.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use http::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use rserpool::{PoolElementId, PoolHandle, PoolUser, ResolveError, ResolveOptions};
use tokio::net::TcpStream;
use tower::Service;

use super::addresses;

/// Connects to the element that the pool's policy selects. If that element cannot be reached,
/// reports it to the registrar and tries the next one. The host in the URI does not select the
/// server; it is only the name that the request carries.
///
/// A client that keeps a connection stays with its element until that crashes. To select an element
/// for each request, see [`PoolService`](crate::PoolService).
#[derive(Debug, Clone)]
pub struct PoolConnector {
    user: PoolUser,
    pool: PoolHandle,
    timeout: Duration,
}

impl PoolConnector {
    /// Returns a connector to the elements of `pool`, as `user` resolves it.
    #[must_use]
    pub fn new(user: PoolUser, pool: PoolHandle) -> Self {
        Self { user, pool, timeout: Duration::from_secs(5) }
    }

    /// Sets the time that an element may take to accept a connection before the next one is tried.
    /// Default: 5 s, as for sessions.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    async fn connect(self) -> Result<PoolStream, ConnectError> {
        let elements = self.user.resolve(self.pool.clone(), ResolveOptions::default()).await?;
        let mut last = None;
        for element in elements {
            let addresses = addresses(&element);
            if addresses.is_empty() {
                // Skip an element that does not serve over TCP, without a report: it may serve
                // other users.
                continue;
            }
            for address in addresses {
                let connecting = tokio::time::timeout(self.timeout, TcpStream::connect(address));
                let connected = connecting.await.unwrap_or_else(|_| {
                    Err(io::Error::new(io::ErrorKind::TimedOut, "not accepted in time"))
                });
                match connected.and_then(|stream| stream.set_nodelay(true).map(|()| stream)) {
                    Ok(stream) => {
                        let (element, stream) = (element.identifier, TokioIo::new(stream));
                        return Ok(PoolStream { element, stream });
                    }
                    Err(error) => last = Some(error),
                }
            }
            tracing::info!(pool = %self.pool, element = %element.identifier, "not reachable");
            let _ = self.user.report_unreachable(self.pool.clone(), element.identifier).await;
        }
        Err(ConnectError::NoElement(self.pool, last))
    }
}

/// Error of a [`PoolConnector`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The pool could not be resolved.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// None of the pool's elements accepts a connection over TCP. Contains the error of the last
    /// one.
    #[error("no element of {0} accepts a connection")]
    NoElement(PoolHandle, #[source] Option<io::Error>),
}

impl Service<Uri> for PoolConnector {
    type Response = PoolStream;
    type Error = ConnectError;
    type Future = BoxFuture<'static, Result<PoolStream, ConnectError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        Box::pin(self.clone().connect())
    }
}

/// A connection to an element of a pool.
pub struct PoolStream {
    element: PoolElementId,
    stream: TokioIo<TcpStream>,
}

impl PoolStream {
    /// Returns the element's identifier.
    #[must_use]
    pub fn element(&self) -> PoolElementId {
        self.element
    }

    fn stream(self: Pin<&mut Self>) -> Pin<&mut TokioIo<TcpStream>> {
        Pin::new(&mut self.get_mut().stream)
    }
}

impl fmt::Debug for PoolStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PoolStream").field("element", &self.element).finish_non_exhaustive()
    }
}

impl Connection for PoolStream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl Read for PoolStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        self.stream().poll_read(cx, buffer)
    }
}

impl Write for PoolStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.stream().poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.stream().poll_write_vectored(cx, slices)
    }
}
