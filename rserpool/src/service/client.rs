//! A client that many tasks share.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::StreamExt;
use futures::channel::mpsc::{self, TrySendError};
use futures::channel::oneshot;
use futures::sink::SinkExt;
use rserpool_proto::replay::{RequestNumber, RequestOptions};

use super::checkpoint::Checkpoint;
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
/// #     fn save(&self) -> Result<Vec<u8>, InvalidState> { Ok(Vec::new()) }
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
    commands: mpsc::Sender<Command>,
    options: RequestOptions,
    /// The end of the session, once it is over.
    end: Arc<OnceLock<End>>,
}

/// The end of a session.
#[derive(Debug)]
struct End {
    error: RequestError,
    checkpoint: Checkpoint,
}

#[derive(Debug)]
struct Request {
    body: Bytes,
    options: RequestOptions,
    reply: oneshot::Sender<Result<Bytes, RequestError>>,
}

/// A command for the client's task. The task executes it before requests that wait.
#[derive(Debug)]
enum Command {
    Checkpoint(oneshot::Sender<Checkpoint>),
    FailOver,
}

/// The task of a client.
struct Task {
    session: RequestSession,
    requests: mpsc::Receiver<Request>,
    commands: mpsc::Receiver<Command>,
    /// A request for which the session had no room.
    held: Option<Request>,
    /// The callers that wait for replies, in the order of their requests.
    waiting: VecDeque<(RequestNumber, oneshot::Sender<Result<Bytes, RequestError>>)>,
}

impl RequestClient {
    pub(crate) fn spawn(network: &Network, session: RequestSession) -> Self {
        let (sender, requests) = mpsc::channel(MAX_WAITING);
        let (command, commands) = mpsc::channel(1);
        let end = Arc::new(OnceLock::new());
        let options = session.options();
        let client = Self { requests: sender, commands: command, options, end: Arc::clone(&end) };
        let mut task = Task { session, requests, commands, held: None, waiting: VecDeque::new() };
        network.runtime().spawn(Box::pin(async move {
            match poll_fn(|cx| task.poll(cx)).await {
                None => task.session.close().await,
                Some(error) => {
                    // Set `end` before the senders in `task` are dropped: that wakes the callers,
                    // which read `end`.
                    let checkpoint = task.session.checkpoint();
                    let _ = end.set(End { error, checkpoint });
                }
            }
        }));
        client
    }

    /// Sends a request, and waits for its reply.
    ///
    /// # Errors
    ///
    /// Returns an error if the session is over, or the request is too long or failed. In the latter
    /// cases, the client can still be used.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the request may or may not be executed, and its reply is lost.
    pub async fn request(&self, body: impl Into<Bytes>) -> Result<Bytes, RequestError> {
        self.request_with(body, self.options).await
    }

    /// Sends a request as [`Self::request`] does, with options of its own.
    ///
    /// # Errors
    ///
    /// Returns an error in the cases of [`Self::request`].
    ///
    /// # Cancel safety
    ///
    /// See [`Self::request`].
    pub async fn request_with(
        &self,
        body: impl Into<Bytes>,
        options: RequestOptions,
    ) -> Result<Bytes, RequestError> {
        let (reply, wait) = oneshot::channel();
        let request = Request { body: body.into(), options, reply };
        if self.requests.clone().send(request).await.is_ok()
            && let Ok(result) = wait.await
        {
            return result;
        }
        Err(self.error())
    }

    /// Polls for room for a request, which [`Self::start`] then sends without waiting.
    ///
    /// # Errors
    ///
    /// Returns an error if the session is over.
    pub fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), RequestError>> {
        self.requests.poll_ready(cx).map_err(|_| self.error())
    }

    /// Sends a request at once, after [`Self::poll_ready`], and returns its reply.
    ///
    /// # Errors
    ///
    /// Returns an error in the cases of [`Self::request`]. Without room, the request waits as in
    /// [`Self::request`].
    pub fn start(
        &mut self,
        body: impl Into<Bytes>,
    ) -> impl Future<Output = Result<Bytes, RequestError>> + Send + 'static {
        let (reply, wait) = oneshot::channel();
        let request = Request { body: body.into(), options: self.options, reply };
        let unsent = self.requests.try_send(request).err().map(TrySendError::into_inner);
        let client = self.clone();
        async move {
            if let Some(Request { body, options, .. }) = unsent {
                return client.request_with(body, options).await;
            }
            wait.await.unwrap_or_else(|_| Err(client.error()))
        }
    }

    #[cfg(feature = "typed")]
    pub(crate) fn options(&self) -> RequestOptions {
        self.options
    }

    fn error(&self) -> RequestError {
        self.end.get().map_or(RequestError::Stopped, |end| end.error.clone())
    }

    /// Returns the checkpoint from which the session can be continued, also after it is over, and in
    /// another process: see [`RequestSession::checkpoint`]. Returns `None` if the client's task was
    /// stopped by its runtime.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, nothing happens.
    pub async fn checkpoint(&self) -> Option<Checkpoint> {
        let (answer, wait) = oneshot::channel();
        if self.commands.clone().send(Command::Checkpoint(answer)).await.is_ok()
            && let Ok(checkpoint) = wait.await
        {
            return Some(checkpoint);
        }
        self.end.get().map(|end| end.checkpoint.clone())
    }

    /// Leaves the server for another one. Unanswered requests are sent again.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the session may or may not fail over.
    pub async fn fail_over(&self) {
        let _ = self.commands.clone().send(Command::FailOver).await;
    }
}

impl Task {
    /// Runs the session. Ready with `None` when all clients are dropped, and with an error when the
    /// session is over.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<RequestError>> {
        loop {
            self.take_commands(cx);
            if self.take_requests(cx).is_ready() {
                return Poll::Ready(None);
            }
            match self.session.poll_event(cx) {
                Poll::Ready(Ok(RequestEvent::Reply { number, body })) => {
                    self.answer(number, Ok(body));
                }
                Poll::Ready(Ok(RequestEvent::Failed { number, failure })) => {
                    self.answer(number, Err(failure.into()));
                }
                // The failover is automatic, and the requests are repeated.
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Some(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    fn take_commands(&mut self, cx: &mut Context<'_>) {
        while let Poll::Ready(Some(command)) = self.commands.poll_next_unpin(cx) {
            match command {
                Command::Checkpoint(answer) => drop(answer.send(self.session.checkpoint())),
                Command::FailOver => self.session.fail_over(),
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
            let Request { body, options, reply } = request;
            match self.session.submit_with(body, options) {
                Ok(number) => self.waiting.push_back((number, reply)),
                Err(SubmitError::NoRoom(body)) => {
                    // A reply makes room, and then this function is called again.
                    self.held = Some(Request { body, options, reply });
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

    /// Passes an answer to its caller, which may have given up. A request whose deadline passed is
    /// answered before earlier ones.
    fn answer(&mut self, number: RequestNumber, answer: Result<Bytes, RequestError>) {
        let place = self.waiting.binary_search_by_key(&number, |(number, _)| *number);
        if let Some((_, reply)) = place.ok().and_then(|place| self.waiting.remove(place)) {
            let _ = reply.send(answer);
        }
    }
}
