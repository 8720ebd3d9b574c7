//! Requests to HTTP servers.

use anyhow::{Context, ensure};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Checks the status of the answer to a GET request. Returns its body, of up to `limit` bytes; with a
/// limit of 0, does not read it.
pub(crate) async fn get(address: &str, path: &str, limit: usize) -> anyhow::Result<String> {
    let stream = TcpStream::connect(address).await.context("no connection")?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let request = hyper::Request::get(path)
        .header("host", address)
        .header("user-agent", concat!("rserpool/", env!("CARGO_PKG_VERSION")))
        .header("connection", "close")
        .body(Empty::<Bytes>::new())?;
    let exchange = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        ensure!(status.is_success() || status.is_redirection(), "HTTP status {status}");
        if limit == 0 {
            return Ok(String::new());
        }
        let body = Limited::new(response.into_body(), limit).collect().await;
        let body = body.map_err(|error| anyhow::anyhow!("no whole answer: {error}"))?;
        Ok(String::from_utf8_lossy(&body.to_bytes()).into_owned())
    };
    tokio::pin!(exchange);
    tokio::select! {
        biased;
        answer = &mut exchange => answer,
        // What arrived before the end is still to be read.
        _ = connection => exchange.await,
    }
}
