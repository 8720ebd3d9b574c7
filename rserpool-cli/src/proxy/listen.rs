//! The clients' side: addresses to listen on, and connections of clients.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::str::FromStr;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

use super::stdio::Stdio;
use crate::options;
#[cfg(unix)]
use crate::unix_socket::UnixSocket;

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
            Self::Unix(path) => Ok(Listener::Unix(UnixSocket::listen(path)?)),
            #[cfg(not(unix))]
            Self::Unix(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }
}

pub(super) enum Listener {
    Tcp(TcpListener),
    #[cfg(unix)]
    Unix(UnixSocket),
}

impl Listener {
    /// Returns the address that clients connect to.
    pub(super) fn local(&self) -> String {
        match self {
            Self::Tcp(listener) => {
                listener.local_addr().map(|at| at.to_string()).unwrap_or_default()
            }
            #[cfg(unix)]
            Self::Unix(socket) => format!("unix:{}", socket.path().display()),
        }
    }

    pub(super) async fn accept(&self) -> io::Result<Client> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                // A client that is gone already is noticed later.
                let ends = stream.local_addr().ok().map(|local| (peer, local));
                prepare(&stream);
                Ok(Client::Tcp(stream, ends))
            }
            #[cfg(unix)]
            Self::Unix(socket) => Ok(Client::Unix(socket.accept().await?)),
        }
    }
}

/// Sets the options of a connection: nothing waits to be sent, and a peer that is gone is noticed.
pub(super) fn prepare(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    let _ = SockRef::from(stream).set_keepalive(true);
}

/// Makes the end of a connection a reset, by which the peer can tell it from one in good order.
pub(super) fn reset_at_end(stream: &TcpStream) {
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

/// The connection of a client.
pub(super) enum Client {
    /// With the client's address and ours.
    Tcp(TcpStream, Option<(SocketAddr, SocketAddr)>),
    #[cfg(unix)]
    Unix(tokio::net::UnixStream),
    /// Standard input and output.
    Stdio(Stdio),
}

impl Client {
    /// Returns the client's address and ours; `None` if the client does not use TCP.
    pub(super) fn ends(&self) -> Option<(SocketAddr, SocketAddr)> {
        if let Self::Tcp(_, ends) = self { *ends } else { None }
    }

    /// Makes the end of the connection a reset, as far as it has one.
    pub(super) fn reset_at_end(&self) {
        if let Self::Tcp(stream, _) = self {
            reset_at_end(stream);
        }
    }
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ends() {
            Some((peer, _)) => peer.fmt(f),
            None => f.write_str("local"),
        }
    }
}

/// Calls a method of the stream within.
macro_rules! delegate {
    ($client:ident, $method:ident($($argument:expr),*)) => {
        match $client.get_mut() {
            Client::Tcp(stream, _) => Pin::new(stream).$method($($argument),*),
            #[cfg(unix)]
            Client::Unix(stream) => Pin::new(stream).$method($($argument),*),
            Client::Stdio(stream) => Pin::new(stream).$method($($argument),*),
        }
    };
}

impl AsyncRead for Client {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        delegate!(self, poll_read(cx, buffer))
    }
}

impl AsyncWrite for Client {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        delegate!(self, poll_write(cx, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate!(self, poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate!(self, poll_shutdown(cx))
    }
}
