//! An HTTP client that chooses an element for each request.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use http::uri::{Authority, Scheme};
use http::{Request, Response, Uri};
use hyper::body::{Body, Incoming};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rserpool::{PoolElementId, PoolHandle, PoolUser};
use tokio::net::TcpStream;
use tower::{BoxError, Service};

use super::PoolServiceError;
use super::body::{Reclaimable, Slot};
use super::members::{Candidate, Members, is_unsent};
use super::permits::Permits;

/// Maximum number of elements whose connections are kept. Not from the RFCs.
const MAX_KEPT: usize = 1024;

/// A client of the HTTP or gRPC servers of a pool, which sends each request to the element that the
/// pool's policy selects. The host in a request's URI is only the name that the request carries, and
/// may be left out.
///
/// If the element accepts no connection, it is reported to the registrar, and the request goes to the
/// next one. The body of the request need not be `Clone` for that. A request that was sent and failed
/// is not sent again, since the server may have executed it.
///
/// Give it to a client that tonic generated, after [`Self::http2`], or call it as a
/// [`tower::Service`].
pub struct PoolHttp<B> {
    members: Members,
    http2: bool,
    timeout: Duration,
    permits: Permits,
    clients: Arc<Mutex<Clients<B>>>,
}

type Clients<B> = HashMap<PoolElementId, (SocketAddr, ElementClient<B>)>;
type ElementClient<B> = Client<ElementConnector, Reclaimable<B>>;

impl<B> PoolHttp<B> {
    /// Returns a client of the elements of `pool`, as `user` resolves it.
    #[must_use]
    pub fn new(user: PoolUser, pool: PoolHandle) -> Self {
        Self {
            members: Members::new(user, pool),
            http2: false,
            timeout: Duration::from_secs(5),
            permits: Permits::default(),
            clients: Arc::default(),
        }
    }

    /// Uses HTTP/2 with prior knowledge, as gRPC does. Default: HTTP/1.1.
    #[must_use]
    pub fn http2(mut self) -> Self {
        self.http2 = true;
        self
    }

    /// Sets the maximum age of the registrar's answer by which an element is selected. With zero, the
    /// registrar is asked for each request, and selects. Elements that leave are left out sooner,
    /// because the client subscribes to the pool.
    ///
    /// Default: 1 s, or zero if the policy depends on the load of the elements, such as Least Used.
    /// Not from the RFCs: an old answer would send all requests to the element that was least used
    /// then.
    #[must_use]
    pub fn max_age(mut self, age: Duration) -> Self {
        self.members.set_max_age(age);
        self
    }

    /// Sets the time that an element may take to accept a connection before the next element is
    /// tried. Default: 5 s, as for sessions.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets the maximum number of requests without a response. The client is not ready for further
    /// ones. The bodies of responses do not count. Default: 1024.
    #[must_use]
    pub fn limit(mut self, requests: usize) -> Self {
        self.permits = Permits::new(requests);
        self
    }
}

impl<B> Clone for PoolHttp<B> {
    fn clone(&self) -> Self {
        Self {
            members: self.members.clone(),
            permits: self.permits.clone(),
            clients: Arc::clone(&self.clients),
            ..*self
        }
    }
}

impl<B> fmt::Debug for PoolHttp<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PoolHttp").field("pool", self.members.pool()).finish_non_exhaustive()
    }
}

impl<B> PoolHttp<B>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    /// Returns the client for an element, which connects when it is first used.
    fn client(&self, candidate: Candidate, present: &[Candidate]) -> ElementClient<B> {
        let Candidate { element, address } = candidate;
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if clients.len() >= MAX_KEPT {
            clients.retain(|id, _| present.iter().any(|candidate| candidate.element == *id));
        }
        match clients.get(&element) {
            Some((at, client)) if *at == address => client.clone(),
            _ => {
                let connector = ElementConnector { address, timeout: self.timeout };
                let client =
                    Client::builder(TokioExecutor::new()).http2_only(self.http2).build(connector);
                clients.insert(element, (address, client.clone()));
                client
            }
        }
    }

    async fn send(self, request: Request<B>) -> Result<Response<Incoming>, PoolServiceError> {
        let candidates = self.members.candidates().await?;
        let (mut parts, body) = request.into_parts();
        let uri = parts.uri.clone();
        let slot = Slot::new(body);
        let mut refused = None;
        for candidate in &candidates {
            parts.uri = absolute(uri.clone(), candidate.address)?;
            let request = Request::from_parts(parts.clone(), slot.body());
            match self.client(*candidate, &candidates).request(request).await {
                Ok(response) => return Ok(response),
                Err(error) => {
                    let error = error.into();
                    if !is_unsent(&error) || slot.is_taken() {
                        return Err(PoolServiceError::Failed(error));
                    }
                    self.members.give_up(candidate.element).await;
                    refused = Some(error);
                }
            }
        }
        Err(PoolServiceError::NoElement(self.members.pool().clone(), refused))
    }
}

/// Returns `uri` with a scheme and a host: those of the address, if it has none.
fn absolute(uri: Uri, address: SocketAddr) -> Result<Uri, PoolServiceError> {
    let mut parts = uri.into_parts();
    parts.scheme.get_or_insert(Scheme::HTTP);
    if parts.authority.is_none() {
        let authority = address.to_string().parse::<Authority>();
        parts.authority = Some(authority.map_err(|error| PoolServiceError::Failed(error.into()))?);
    }
    if parts.path_and_query.is_none() {
        parts.path_and_query = Some(http::uri::PathAndQuery::from_static("/"));
    }
    Uri::from_parts(parts).map_err(|error| PoolServiceError::Failed(error.into()))
}

impl<B> Service<Request<B>> for PoolHttp<B>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    type Response = Response<Incoming>;
    type Error = PoolServiceError;
    type Future = BoxFuture<'static, Result<Response<Incoming>, PoolServiceError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), PoolServiceError>> {
        self.permits.poll_ready(cx).map(Ok)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let sending = self.clone().send(request);
        self.permits.run(sending)
    }
}

/// Connects to one element, whatever the URI says.
#[derive(Debug, Clone)]
struct ElementConnector {
    address: SocketAddr,
    timeout: Duration,
}

impl Service<Uri> for ElementConnector {
    type Response = TokioIo<TcpStream>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<TokioIo<TcpStream>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let Self { address, timeout } = *self;
        Box::pin(async move {
            let connecting = tokio::time::timeout(timeout, TcpStream::connect(address));
            let stream = connecting.await.map_err(|_| io::ErrorKind::TimedOut)??;
            stream.set_nodelay(true)?;
            Ok(TokioIo::new(stream))
        })
    }
}
