//! Requests to HTTP servers.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context, ensure};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::{Method, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// A server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Server {
    /// Host and port.
    Tcp(String),
    /// Path of a Unix socket.
    Unix(PathBuf),
}

impl FromStr for Server {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.rsplit_once(':') {
            _ if text.contains("://") => Err("write HOST:PORT, without http://".to_owned()),
            _ if text.contains('/') => Ok(Self::Unix(text.into())),
            Some((_, port)) if port.parse::<u16>().is_ok() => Ok(Self::Tcp(text.to_owned())),
            _ => Err("write HOST:PORT, or a path with a /".to_owned()),
        }
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => f.write_str(address),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

/// Checks the status of the answer to a GET request. Returns its body, of up to `limit` bytes; with a
/// limit of 0, does not read it.
pub(crate) async fn get(address: &str, path: &str, limit: usize) -> anyhow::Result<String> {
    let server = Server::Tcp(address.to_owned());
    let (status, body) = exchange(&server, Method::GET, path, limit).await?;
    ensure!(status.is_success() || status.is_redirection(), "HTTP status {status}");
    Ok(body)
}

/// Returns the status of the answer to a request without a body, and its body, of up to `limit` bytes;
/// with a limit of 0, does not read it.
pub(crate) async fn exchange(
    server: &Server,
    method: Method,
    path: &str,
    limit: usize,
) -> anyhow::Result<(StatusCode, String)> {
    match server {
        Server::Tcp(address) => {
            let stream = TcpStream::connect(address).await.context("no connection")?;
            exchange_over(stream, address, method, path, limit).await
        }
        #[cfg(unix)]
        Server::Unix(at) => {
            let stream = tokio::net::UnixStream::connect(at).await.context("no connection")?;
            exchange_over(stream, "localhost", method, path, limit).await
        }
        #[cfg(not(unix))]
        Server::Unix(_) => anyhow::bail!("this system has no Unix sockets"),
    }
}

async fn exchange_over(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    host: &str,
    method: Method,
    path: &str,
    limit: usize,
) -> anyhow::Result<(StatusCode, String)> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let request = hyper::Request::builder()
        .method(method)
        .uri(path)
        .header("host", host)
        .header("user-agent", concat!("rserpool/", env!("CARGO_PKG_VERSION")))
        .header("connection", "close")
        .body(Empty::<Bytes>::new())?;
    let exchange = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        if limit == 0 {
            return Ok((status, String::new()));
        }
        let body = Limited::new(response.into_body(), limit).collect().await;
        let body = body.map_err(|error| anyhow::anyhow!("no whole answer: {error}"))?;
        Ok((status, String::from_utf8_lossy(&body.to_bytes()).into_owned()))
    };
    tokio::pin!(exchange);
    tokio::select! {
        biased;
        answer = &mut exchange => answer,
        // What arrived before the end is still to be read.
        _ = connection => exchange.await,
    }
}
