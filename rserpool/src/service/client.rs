//! A client that many tasks share.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::StreamExt;
use futures::channel::{mpsc, oneshot};
use futures::sink::SinkExt;
use rserpool_proto::replay::RequestNumber;

use super::requests::{RequestError, RequestEvent, RequestSession, SubmitError};
use crate::Network;
use crate::transport::SendError;

/// Number of requests that wait for the client's task, besides one for each clone. Not from the
/// RFCs. Further ones wait in their callers.
const MAX_WAITING: usize = 32;

/// A client of a pool of [`Service`](crate::Service)s. Clones share one session, and many tasks may
/// send requests at a time.
///
/// A task in the background runs the session: it fails over while nobody waits for a reply. The
/// session is closed when all clones are dropped. All requests go to one server, which executes
/// them one after another, in the order in which they were accepted.
///
/// ```
/// # use rserpool::transport::Memory;
/// # use rserpool::cookie::{KeyRing, Seal};
/// # use rserpool::{Bytes, InvalidState, Network, PoolElement, Registrar, RegistrarConfig, Service,
/// #     ServiceConfig};
/// use rserpool::{PoolUser, RequestConfig};
/// # #[derive(Default)]
/// # struct Echo;
/// # impl Service for Echo {
/// #     async fn handle(&mut self, request: Bytes) -> Bytes { request }
/// #     fn save(&self) -> Vec<u8> { Vec::new() }
/// #     fn restore(&mut self, _: &[u8]) -> Result<(), InvalidState> { Ok(()) }
/// # }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let network = Network::new(rserpool_tokio::TokioRuntime::current(), Memory::new());
/// # let registrar = Registrar::start(&network, ["192.0.2.1:3863"], RegistrarConfig::default())?;
/// # let element = PoolElement::start(&network, "EchoPool", registrar.local_addresses())?;
/// # element.registered().await?;
/// # let config = ServiceConfig::new(Seal::new("EchoPool".parse()?, KeyRing::generate()));
/// # let grace = std::time::Duration::from_secs(1);
/// # tokio::spawn(element.serve(config, Echo::default, std::future::pending::<()>(), grace));
///
/// let user = PoolUser::new(&network, registrar.local_addresses())?;
/// let client = user.request_client("EchoPool", RequestConfig::default()).await?;
/// let other = client.clone();
/// let task = tokio::spawn(async move { other.request("one").await });
/// assert_eq!(client.request("two").await?, "two");
/// assert_eq!(task.await??, "one");
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct RequestClient {
    requests: mpsc::Sender<Request>,
    /// The reason for the end of the session, once it is over.
    end: Arc<OnceLock<RequestError>>,
}

#[derive(Debug)]
struct Request {
    body: Bytes,
    reply: oneshot::Sender<Result<Bytes, RequestError>>,
}

/// The task of a client.
struct Task {
    session: RequestSession,
    requests: mpsc::Receiver<Request>,
    /// A request for which the session had no room.
    held: Option<Request>,
    /// The callers that wait for replies, in the order of their requests.
    waiting: VecDeque<(RequestNumber, oneshot::Sender<Result<Bytes, RequestError>>)>,
}

impl RequestClient {
    pub(crate) fn spawn(network: &Network, session: RequestSession) -> Self {
        let (sender, requests) = mpsc::channel(MAX_WAITING);
        let end = Arc::new(OnceLock::new());
        let client = Self { requests: sender, end: Arc::clone(&end) };
        let mut task = Task { session, requests, held: None, waiting: VecDeque::new() };
        network.runtime().spawn(Box::pin(async move {
            match poll_fn(|cx| task.poll(cx)).await {
                None => task.session.close().await,
                Some(error) => {
                    // Set before the callers are told: they read it.
                    let _ = end.set(error);
                }
            }
        }));
        client
    }

    /// Sends a request, and waits for its reply.
    ///
    /// # Errors
    ///
    /// Returns an error if the session is over, or the request is too long. In the latter case, the
    /// client can still be used.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the request may or may not be executed, and its reply is lost.
    pub async fn request(&self, body: impl Into<Bytes>) -> Result<Bytes, RequestError> {
        let (reply, wait) = oneshot::channel();
        let request = Request { body: body.into(), reply };
        if self.requests.clone().send(request).await.is_ok()
            && let Ok(result) = wait.await
        {
            return result;
        }
        Err(self.end.get().cloned().unwrap_or(RequestError::Stopped))
    }
}

impl Task {
    /// Runs the session. Ready with `None` when all clients are dropped, and with an error when the
    /// session is over.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<RequestError>> {
        loop {
            if self.take_requests(cx).is_ready() {
                return Poll::Ready(None);
            }
            match self.session.poll_event(cx) {
                Poll::Ready(Ok(RequestEvent::Reply { number, body })) => self.reply(number, body),
                // The failover is automatic, and the requests are repeated.
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Some(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Submits requests while there is room; ready when all clients are dropped.
    fn take_requests(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let request = match self.held.take() {
                Some(request) => request,
                None => match self.requests.poll_next_unpin(cx) {
                    Poll::Ready(Some(request)) => request,
                    Poll::Ready(None) => return Poll::Ready(()),
                    Poll::Pending => return Poll::Pending,
                },
            };
            let Request { body, reply } = request;
            match self.session.submit(body) {
                Ok(number) => self.waiting.push_back((number, reply)),
                Err(SubmitError::NoRoom(body)) => {
                    // A reply makes room, and then this is called again.
                    self.held = Some(Request { body, reply });
                    return Poll::Pending;
                }
                Err(SubmitError::TooLong { request, limit }) => {
                    let length = request.len();
                    let error = SendError::TooLong { length, limit };
                    let _ = reply.send(Err(RequestError::Request(error)));
                }
            }
        }
    }

    /// Passes a reply to its caller, which may have given up.
    fn reply(&mut self, number: RequestNumber, body: Bytes) {
        while let Some((first, reply)) = self.waiting.pop_front() {
            if first == number {
                let _ = reply.send(Ok(body));
                return;
            }
        }
    }
}
