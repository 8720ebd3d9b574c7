//! The clients' side: addresses to listen on, and connections of clients.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::str::FromStr;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpListener;

use crate::options;

/// An address to listen on.
#[derive(Debug, Clone)]
pub(super) enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix("unix:") {
            Some(_) if cfg!(not(unix)) => Err("this system has no Unix sockets".to_owned()),
            Some("") => Err("no path: write unix:PATH".to_owned()),
            Some(path) => Ok(Self::Unix(path.into())),
            None => options::listen_address(text).map(Self::Tcp),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Address {
    pub(super) async fn listen(&self) -> io::Result<Listener> {
        match self {
            Self::Tcp(address) => Ok(Listener::Tcp(TcpListener::bind(address).await?)),
            #[cfg(unix)]
            Self::Unix(path) => {
                // A socket that a program left behind refuses connections.
                if std::os::unix::net::UnixStream::connect(path)
                    .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
                {
                    std::fs::remove_file(path)?;
                }
                let listener = tokio::net::UnixListener::bind(path)?;
                Ok(Listener::Unix(listener, Socket(path.clone())))
            }
            #[cfg(not(unix))]
            Self::Unix(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }
}

/// The file of a Unix socket, which is removed with this.
#[cfg(unix)]
pub(super) struct Socket(PathBuf);

#[cfg(unix)]
impl Drop for Socket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

pub(super) enum Listener {
    Tcp(TcpListener),
    #[cfg(unix)]
    Unix(tokio::net::UnixListener, Socket),
}

impl Listener {
    /// Returns the address that clients connect to.
    pub(super) fn local(&self) -> String {
        match self {
            Self::Tcp(listener) => {
                listener.local_addr().map(|at| at.to_string()).unwrap_or_default()
            }
            #[cfg(unix)]
            Self::Unix(_, Socket(path)) => format!("unix:{}", path.display()),
        }
    }

    pub(super) async fn accept(&self) -> io::Result<Client> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                stream.set_nodelay(true)?;
                let ends = Some((peer, stream.local_addr()?));
                Ok(Client { ends, stream: Box::pin(stream) })
            }
            #[cfg(unix)]
            Self::Unix(listener, _) => {
                let (stream, _) = listener.accept().await?;
                Ok(Client { ends: None, stream: Box::pin(stream) })
            }
        }
    }
}

trait Stream: AsyncRead + AsyncWrite + Send {}

impl<T: AsyncRead + AsyncWrite + Send> Stream for T {}

/// The connection of a client.
pub(super) struct Client {
    /// The client's address and ours, over TCP.
    ends: Option<(SocketAddr, SocketAddr)>,
    stream: Pin<Box<dyn Stream>>,
}

impl Client {
    /// Returns the client at standard input and output.
    pub(super) fn stdio() -> Self {
        let stream = tokio::io::join(tokio::io::stdin(), tokio::io::stdout());
        Self { ends: None, stream: Box::pin(stream) }
    }

    /// Returns the client's address and ours; `None` if the client does not use TCP.
    pub(super) fn ends(&self) -> Option<(SocketAddr, SocketAddr)> {
        self.ends
    }
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ends {
            Some((peer, _)) => peer.fmt(f),
            None => f.write_str("local"),
        }
    }
}

impl AsyncRead for Client {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.stream.as_mut().poll_read(cx, buffer)
    }
}

impl AsyncWrite for Client {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.stream.as_mut().poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.as_mut().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.as_mut().poll_shutdown(cx)
    }
}
