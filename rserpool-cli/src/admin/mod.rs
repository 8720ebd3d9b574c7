//! The HTTP interface of a registrar for its operator. Over TCP it only reads; over the Unix socket of
//! `--control` it also takes orders.

mod json;
mod metrics;
mod orders;
mod page;

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HOST, X_CONTENT_TYPE_OPTIONS};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use rserpool::{PoolHandle, Registrar, RegistrarEvents, RegistrarId, Stopped};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::time::{sleep, timeout};

#[cfg(unix)]
use crate::unix_socket::UnixSocket;

/// Maximum number of clients at a time. Further ones wait to be accepted.
const MAX_CLIENTS: usize = 64;

/// Maximum number of clients on the control socket at a time. They do not count as others.
const MAX_OPERATORS: usize = 16;

/// The part of the clients that may follow the events at a time.
const FOLLOWING_PART: usize = 4;

/// Time that a client has for its request, also for the next one on its connection.
const REQUEST_TIME: Duration = Duration::from_secs(5);

/// Time for which a connection is kept.
const CONNECTION_TIME: Duration = Duration::from_secs(60);

/// Time for which a client may follow the events. It connects again then.
const FOLLOWING_TIME: Duration = Duration::from_secs(3600);

/// Time that the registrar has to answer.
const ANSWER_TIME: Duration = Duration::from_secs(2);

/// Pause in accepting connections after accepting failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Time between two comments in a stream of events, by which a client that is gone is noticed.
const COMMENT_EVERY: Duration = Duration::from_secs(15);

/// Number of pools or elements of an answer, unless the client wants fewer.
const PAGE: usize = 1000;

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// Checks the path of a control socket.
pub(crate) fn check_control(path: &Path) -> anyhow::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    anyhow::ensure!(folder.is_dir(), "--control: there is no folder {}", folder.display());
    let other = path.is_dir() || path.is_file();
    anyhow::ensure!(!other, "--control: {} exists, and is not a socket", path.display());
    Ok(())
}

/// A listening interface.
pub(crate) struct Admin {
    listener: Listener,
    /// The name of the registrar, if it has one.
    name: Option<String>,
}

enum Listener {
    Tcp(TcpListener),
    #[cfg(unix)]
    Control(UnixSocket),
}

/// A connection of a client.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Admin {
    /// Listens for clients, which can only read.
    pub(crate) async fn listen(address: SocketAddr, name: Option<String>) -> io::Result<Self> {
        Ok(Self { listener: Listener::Tcp(TcpListener::bind(address).await?), name })
    }

    /// Listens for operators, who may also give orders.
    pub(crate) fn listen_for_orders(path: &Path, name: Option<String>) -> io::Result<Self> {
        #[cfg(unix)]
        return Ok(Self { listener: Listener::Control(UnixSocket::listen_for_group(path)?), name });
        #[cfg(not(unix))]
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Returns the address or path at which it listens.
    pub(crate) fn local(&self) -> io::Result<String> {
        match &self.listener {
            Listener::Tcp(listener) => Ok(listener.local_addr()?.to_string()),
            #[cfg(unix)]
            Listener::Control(socket) => Ok(socket.path().display().to_string()),
        }
    }

    fn takes_orders(&self) -> bool {
        !matches!(self.listener, Listener::Tcp(_))
    }

    /// Serves clients for ever.
    pub(crate) async fn serve(&self, registrar: &Registrar) -> Infallible {
        let limit = if self.takes_orders() { MAX_OPERATORS } else { MAX_CLIENTS };
        let place = Place {
            registrar,
            name: self.name.as_deref(),
            takes_orders: self.takes_orders(),
            clients: limit,
            followers: std::cell::Cell::new(0),
        };
        let mut clients = FuturesUnordered::new();
        loop {
            tokio::select! {
                accepted = self.listener.accept(), if clients.len() < limit => match accepted {
                    Ok(stream) => clients.push(serve(stream, &place)),
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept an administrator");
                        sleep(ACCEPT_PAUSE).await;
                    }
                },
                Some(()) = clients.next() => {}
            }
        }
    }
}

impl Listener {
    async fn accept(&self) -> io::Result<Box<dyn Stream>> {
        match self {
            Self::Tcp(listener) => Ok(Box::new(listener.accept().await?.0)),
            #[cfg(unix)]
            Self::Control(socket) => Ok(Box::new(socket.accept().await?)),
        }
    }
}

/// State that the connections of all clients share.
struct Place<'r> {
    registrar: &'r Registrar,
    name: Option<&'r str>,
    takes_orders: bool,
    /// Maximum number of clients at a time.
    clients: usize,
    /// The number of clients that follow the events.
    followers: std::cell::Cell<usize>,
}

async fn serve(stream: Box<dyn Stream>, place: &Place<'_>) {
    let follows = std::cell::Cell::new(false);
    let service = service_fn(async |request| answer(place, request, &follows).await);
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(REQUEST_TIME).max_buf_size(16 * 1024);
    let connection = server.serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let mut ended = timeout(CONNECTION_TIME, connection.as_mut()).await.is_ok();
    if !ended && follows.get() {
        ended = timeout(FOLLOWING_TIME, connection).await.is_ok();
    }
    if !ended {
        tracing::debug!("an administrator's connection was kept for too long");
    }
    if follows.get() {
        place.followers.set(place.followers.get() - 1);
    }
}

/// Reason for which a request is not answered with what it asks for.
enum Refusal {
    Stopped,
    NoAnswer,
    NotFound(&'static str),
    Invalid(&'static str),
    Elsewhere(RegistrarId),
    NoForecast,
    TooManyFollowers,
}

impl From<Stopped> for Refusal {
    fn from(_: Stopped) -> Self {
        Self::Stopped
    }
}

async fn answer(
    place: &Place<'_>,
    request: Request<Incoming>,
    follows: &std::cell::Cell<bool>,
) -> Result<Response<Body>, Infallible> {
    if !is_local_name(&request) {
        let text = "use an IP address or localhost as the host";
        return Ok(problem(StatusCode::MISDIRECTED_REQUEST, text));
    }
    if request.method() != Method::GET && request.method() != Method::HEAD {
        if place.takes_orders {
            let done = timeout(ANSWER_TIME, orders::give(place.registrar, &request)).await;
            let done = done.unwrap_or(Err(Refusal::NoAnswer));
            return Ok(done.unwrap_or_else(|refusal| refuse(&refusal)));
        }
        let text = "only GET and HEAD; orders are taken by the socket of --control";
        let mut response = problem(StatusCode::METHOD_NOT_ALLOWED, text);
        response.headers_mut().insert(ALLOW, hyper::header::HeaderValue::from_static("GET, HEAD"));
        return Ok(response);
    }
    if request.uri().path() == "/v1/events" {
        if place.followers.get() >= place.clients / FOLLOWING_PART || follows.get() {
            return Ok(refuse(&Refusal::TooManyFollowers));
        }
        let Ok(events) = place.registrar.events().await else {
            return Ok(refuse(&Refusal::Stopped));
        };
        place.followers.set(place.followers.get() + 1);
        follows.set(true);
        return Ok(follow(events));
    }
    let answered = timeout(ANSWER_TIME, look_up(place, &request)).await;
    Ok(answered.unwrap_or(Err(Refusal::NoAnswer)).unwrap_or_else(|refusal| refuse(&refusal)))
}

async fn look_up(
    place: &Place<'_>,
    request: &Request<Incoming>,
) -> Result<Response<Body>, Refusal> {
    let registrar = place.registrar;
    let path = request.uri().path();
    if let Some(part) = page::part(path) {
        return Ok(part);
    }
    match path {
        "/healthz" => {
            registrar.status().await?;
            Ok(text(StatusCode::OK, "text/plain", "ok\n".to_owned()))
        }
        "/readyz" => {
            let status = registrar.status().await?;
            let ready = status.joined && status.ready;
            let code = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            Ok(document(code, &json!({ "joined": status.joined, "ready": status.ready })))
        }
        "/metrics" => {
            let status = registrar.status().await?;
            let listed = status.pools <= metrics::MAX_POOLS;
            let pools = if listed { registrar.pools().await? } else { Vec::new() };
            let text_format = "text/plain; version=0.0.4";
            Ok(text(StatusCode::OK, text_format, metrics::text(place.name, &status, &pools)))
        }
        "/v1/status" => Ok(found(&json::status(place.name, &registrar.status().await?))),
        "/v1/peers" => {
            let status = registrar.status().await?;
            let peers: Vec<_> = status.peers.iter().map(json::peer).collect();
            Ok(found(&json!({ "peers": peers })))
        }
        "/v1/pools" => {
            let page = Page::of(request)?;
            let (pools, next) = registrar.pools_after(page.after, page.limit).await?;
            let pools: Vec<_> = pools.iter().map(json::pool).collect();
            Ok(found(&json!({ "pools": pools, "next": next })))
        }
        _ => {
            let name = path.strip_prefix("/v1/pools/").ok_or(Refusal::NotFound("no such path"))?;
            if let Some(name) = name.strip_suffix("/forecast") {
                let handle = handle(name)?;
                let known = registrar.pool(&handle).await?.is_some();
                let forecast = registrar.forecast(&handle).await?;
                let none =
                    if known { Refusal::NoForecast } else { Refusal::NotFound("no such pool") };
                return Ok(found(&json::forecast(&forecast.ok_or(none)?)));
            }
            let page = Page::of(request)?;
            let handle = handle(name)?;
            let pool = registrar.pool(&handle).await?.ok_or(Refusal::NotFound("no such pool"))?;
            let (elements, next) =
                registrar.elements_after(&handle, page.after, page.limit).await?;
            let elements: Vec<_> = elements.iter().map(json::element).collect();
            Ok(found(&json!({ "pool": json::pool(&pool), "elements": elements, "next": next })))
        }
    }
}

/// The part of a list that a client wants: up to `limit` items after the position `after`.
struct Page {
    after: Option<u32>,
    limit: usize,
}

impl Page {
    fn of(request: &Request<Incoming>) -> Result<Self, Refusal> {
        let mut page = Self { after: None, limit: PAGE };
        let query = request.uri().query().unwrap_or_default();
        for (name, value) in query.split('&').filter_map(|item| item.split_once('=')) {
            match name {
                "after" => {
                    let after = value.parse().map_err(|_| Refusal::Invalid("after is a number"));
                    page.after = Some(after?);
                }
                "limit" => {
                    let limit = value.parse().ok().filter(|limit| (1..=PAGE).contains(limit));
                    page.limit = limit.ok_or(Refusal::Invalid("limit is from 1 to 1000"))?;
                }
                _ => return Err(Refusal::Invalid("the parameters are after and limit")),
            }
        }
        Ok(page)
    }
}

/// Returns the pool handle of a path, in which some bytes are escaped by percent signs.
fn handle(text: &str) -> Result<PoolHandle, Refusal> {
    let bytes = percent_encoding::percent_decode_str(text).collect::<Vec<u8>>();
    PoolHandle::new(bytes).map_err(|_| Refusal::Invalid("not a pool handle"))
}

/// Returns whether the host of a request is an IP address or localhost. A browser that a foreign page
/// leads here sends the name of that page's host.
fn is_local_name(request: &Request<Incoming>) -> bool {
    let Some(host) = request.headers().get(HOST) else { return true };
    let Ok(host) = host.to_str() else { return false };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    name.eq_ignore_ascii_case("localhost") || address.is_ok()
}

fn text(status: StatusCode, kind: &'static str, text: String) -> Response<Body> {
    let mut response = Response::new(Full::from(text).boxed_unsync());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, hyper::header::HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, hyper::header::HeaderValue::from_static("nosniff"));
    response
}

fn document(status: StatusCode, content: &Value) -> Response<Body> {
    text(status, "application/json", format!("{content}\n"))
}

fn found(content: &Value) -> Response<Body> {
    document(StatusCode::OK, content)
}

fn problem(status: StatusCode, reason: &str) -> Response<Body> {
    document(status, &json!({ "error": reason }))
}

fn refuse(refusal: &Refusal) -> Response<Body> {
    match refusal {
        Refusal::Stopped => problem(StatusCode::SERVICE_UNAVAILABLE, "the registrar has stopped"),
        Refusal::NoAnswer => problem(StatusCode::SERVICE_UNAVAILABLE, "the registrar is busy"),
        Refusal::NotFound(reason) => problem(StatusCode::NOT_FOUND, reason),
        Refusal::Invalid(reason) => problem(StatusCode::BAD_REQUEST, reason),
        Refusal::NoForecast => {
            let text = "the pool has more than 1,000 elements, or its policy cannot be tried";
            problem(StatusCode::CONFLICT, text)
        }
        Refusal::Elsewhere(home) => {
            let home = home.to_string();
            let error = "another registrar is the home of the element";
            document(StatusCode::CONFLICT, &json!({ "error": error, "home_registrar": home }))
        }
        Refusal::TooManyFollowers => {
            problem(StatusCode::TOO_MANY_REQUESTS, "too many clients follow the events")
        }
    }
}

/// Returns a stream of server-sent events.
fn follow(events: RegistrarEvents) -> Response<Body> {
    let lines = futures::stream::unfold(events, |mut events| async move {
        let line = match timeout(COMMENT_EVERY, events.next()).await {
            Ok(event) => {
                let (name, data) = json::event(&event?);
                format!("event: {name}\ndata: {data}\n\n")
            }
            Err(_) => ": nothing happened\n\n".to_owned(),
        };
        Some((Ok(Frame::data(Bytes::from(line))), events))
    });
    let mut response = Response::new(BodyExt::boxed_unsync(StreamBody::new(lines)));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, hyper::header::HeaderValue::from_static("no-store"));
    response
}
