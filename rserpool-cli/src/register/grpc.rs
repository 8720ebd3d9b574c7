//! Check by the health checking protocol of gRPC.

use anyhow::{Context, bail, ensure};
use http_body_util::{BodyExt, Full, Limited};
use hyper::Request;
use hyper::body::Bytes;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

/// Maximum length of an answer in bytes.
const MAX_ANSWER: usize = 1024;

/// `HealthCheckResponse.status` of a server that works.
const SERVING: &[u8] = &[0x08, 1];

/// Checks that the server at `address` serves `service`; with an empty name, that it serves at all.
pub(super) async fn check(address: &str, service: &str) -> anyhow::Result<()> {
    let stream = TcpStream::connect(address).await.context("no connection")?;
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    let request = Request::post(format!("http://{address}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Full::new(request(service)?))?;
    let exchange = async {
        let response = sender.send_request(request).await?;
        let (head, body) = response.into_parts();
        ensure!(head.status.is_success(), "HTTP status {}", head.status);
        let body = Limited::new(body, MAX_ANSWER).collect().await;
        let body = body.map_err(|error| anyhow::anyhow!("no whole answer: {error}"))?;
        // A response without a message has the status in its head.
        let trailers = body.trailers().cloned().unwrap_or_default();
        let status = trailers.get("grpc-status").or(head.headers.get("grpc-status"));
        match status.map(|status| status.as_bytes()) {
            Some(b"0") => verify(&body.to_bytes()),
            Some(b"5") => bail!("the server does not know the service"),
            Some(b"12") => bail!("the server has no health service"),
            Some(status) => bail!("gRPC status {}", status.escape_ascii()),
            None => bail!("not gRPC: no status"),
        }
    };
    tokio::pin!(exchange);
    tokio::select! {
        biased;
        answer = &mut exchange => answer,
        _ = connection => exchange.await,
    }
}

/// Returns a `HealthCheckRequest` in the framing of gRPC.
fn request(service: &str) -> anyhow::Result<Bytes> {
    let length = u8::try_from(service.len()).ok().filter(|length| *length < 126);
    let length = length.context("the name of the service is too long")?;
    let field = [&[0x0a, length], service.as_bytes()].concat();
    let message = if service.is_empty() { Vec::new() } else { field };
    Ok([&[0, 0, 0, 0, message.len() as u8], &message[..]].concat().into())
}

/// Checks a `HealthCheckResponse` in the framing of gRPC.
fn verify(answer: &[u8]) -> anyhow::Result<()> {
    let message = answer.split_at_checked(5).map(|(_, message)| message);
    ensure!(message == Some(SERVING), "the server says that it does not serve");
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures::stream;
    use http_body_util::StreamBody;
    use hyper::body::{Frame, Incoming};
    use hyper::header::{HeaderMap, HeaderValue};
    use hyper::service::service_fn;
    use hyper::{Response, Version};
    use tokio::net::TcpListener;

    use super::*;

    /// Serves one client: answers `message` with the status, as far as the request is as expected.
    async fn serve(listener: TcpListener, message: &'static [u8], status: &'static str) {
        let (stream, _) = listener.accept().await.unwrap();
        let service = service_fn(move |request: Request<Incoming>| async move {
            let path = request.uri().path().to_owned();
            let version = request.version();
            let asked = request.into_body().collect().await.unwrap().to_bytes();
            assert_eq!((&*path, version), ("/grpc.health.v1.Health/Check", Version::HTTP_2));
            assert_eq!(asked[..], [0, 0, 0, 0, 5, 0x0a, 3, b'W', b'e', b'b']);
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from_static(status));
            let data = Frame::data(Bytes::from_static(message));
            let frames = [Ok::<_, Infallible>(data), Ok(Frame::trailers(trailers))];
            Ok::<_, Infallible>(Response::new(StreamBody::new(stream::iter(frames))))
        });
        let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        let _ = server.serve_connection(TokioIo::new(stream), service).await;
    }

    #[tokio::test]
    async fn a_server_serves_if_it_says_so() {
        for (message, status, expected) in [
            (&[0, 0, 0, 0, 2, 8, 1][..], "0", None),
            (&[0, 0, 0, 0, 2, 8, 2], "0", Some("does not serve")),
            (&[0, 0, 0, 0, 0], "0", Some("does not serve")),
            (&[], "0", Some("does not serve")),
            (&[], "5", Some("does not know")),
            (&[], "12", Some("no health service")),
            (&[0, 0, 0, 0, 2, 8, 1], "14", Some("gRPC status 14")),
        ] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap().to_string();
            let server = tokio::spawn(serve(listener, message, status));
            let result = check(&address, "Web").await.err().map(|error| format!("{error:#}"));
            let matches = match (&result, expected) {
                (Some(text), Some(part)) => text.contains(part),
                (result, expected) => result.is_none() && expected.is_none(),
            };
            assert!(matches, "{message:?}, {status}: {result:?}");
            server.abort();
        }
    }

    #[tokio::test]
    async fn other_servers_fail() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ =
                tokio::io::AsyncWriteExt::write_all(&mut stream, b"HTTP/1.0 400 No\r\n\r\n").await;
        });
        assert!(check(&address, "").await.is_err());
        server.await.unwrap();
        assert!(check(&address, "").await.is_err(), "nobody listens");
        assert!(request(&"x".repeat(126)).is_err());
    }
}
