//! Endpoints: connections are accepted when their handshake is complete.

use std::collections::HashMap;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use futures::channel::oneshot;
use futures::future::{AbortHandle, Abortable};
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use rserpool_proto::wire::TransportAddress;

use super::Tls;
use super::connection::TlsConnection;
use crate::log::warn_limited;
use crate::runtime::Runtime;
use crate::timer::LazyTimer;
use crate::transport::tcp::framing::Framing;
use crate::transport::{Connection, Endpoint, Failed, HostFilter, Purpose};

/// Maximum number of handshakes under way at an endpoint. Not from the RFCs. Further connections wait
/// to be accepted.
const MAX_HANDSHAKES: usize = 256;

/// Age from which a handshake is given up for connections that wait: the oldest one of the host that
/// has the most. Not from the RFCs: a multiple of what a handshake takes.
const PATIENCE: Duration = Duration::from_secs(1);

/// Maximum number of connections that are accepted in one poll; then other tasks run.
const BUDGET: usize = 32;

/// A handshake of a client, which runs in a task of its own, so that its cryptography does not delay
/// the endpoint's owner. Dropping it ends the task.
struct Handshake {
    number: u64,
    host: IpAddr,
    began: Instant,
    abort: AbortHandle,
}

impl Drop for Handshake {
    fn drop(&mut self) {
        self.abort.abort();
    }
}

/// Future of a handshake's number and of its connection; of `None` if the handshake failed, which
/// was logged then, or was given up.
struct Outcome {
    number: u64,
    connection: oneshot::Receiver<TlsConnection>,
}

impl Future for Outcome {
    type Output = (u64, Option<TlsConnection>);

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let connection = ready!(self.connection.poll_unpin(cx));
        Poll::Ready((self.number, connection.ok()))
    }
}

pub(super) struct TlsEndpoint {
    tls: Tls,
    runtime: Arc<dyn Runtime>,
    purpose: Purpose,
    inner: Box<dyn Endpoint>,
    hosts: Option<HostFilter>,
    /// The handshakes in the order of their beginning.
    handshakes: Vec<Handshake>,
    outcomes: FuturesUnordered<Outcome>,
    last: u64,
    timer: LazyTimer,
}

impl fmt::Debug for TlsEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsEndpoint").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl TlsEndpoint {
    pub(super) fn new(
        tls: Tls,
        runtime: Arc<dyn Runtime>,
        purpose: Purpose,
        inner: Box<dyn Endpoint>,
    ) -> Self {
        Self {
            tls,
            runtime,
            purpose,
            inner,
            hosts: None,
            handshakes: Vec::new(),
            outcomes: FuturesUnordered::new(),
            last: 0,
            timer: LazyTimer::default(),
        }
    }

    fn framing(&self) -> Framing {
        Framing::new(self.purpose, self.tls.max_message_size)
    }

    /// Begins the handshakes of the connections that wait, as far as there is room. Ready with an
    /// error if a connection could not be accepted.
    fn poll_begin(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        for _ in 0..BUDGET {
            ready!(self.poll_room(cx));
            let accepted = ready!(self.inner.poll_accept(cx));
            if let Err(error) = accepted.and_then(|inner| self.begin(inner)) {
                return Poll::Ready(error);
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn begin(&mut self, inner: Box<dyn Connection>) -> io::Result<()> {
        let Some(end) = self.tls.pair(self.purpose).server else {
            return Err(io::Error::other("there is no certificate to present"));
        };
        let host = inner.peer().host();
        if self.hosts.as_ref().is_some_and(|allows| !allows(host)) {
            return Ok(());
        }
        let runtime = Arc::clone(&self.runtime);
        let mut connection = TlsConnection::accepted(runtime, end, self.framing(), inner)?;
        self.last += 1;
        let number = self.last;
        let (sender, receiver) = oneshot::channel();
        let handshake = async move {
            if poll_fn(|cx| connection.poll_handshake(cx)).await.is_ok() {
                let _ = sender.send(connection);
            }
        };
        let (abort, registration) = AbortHandle::new_pair();
        let handshake = Abortable::new(handshake, registration);
        self.runtime.spawn(Box::pin(handshake.map(drop)));
        self.outcomes.push(Outcome { number, connection: receiver });
        self.handshakes.push(Handshake { number, host, began: self.runtime.now(), abort });
        Ok(())
    }

    /// Polls until there is room for a handshake. If there is none, gives up the oldest handshake of
    /// the host that has the most, once it is old enough.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.handshakes.len() < MAX_HANDSHAKES {
            return Poll::Ready(());
        }
        let mut counts = HashMap::new();
        for handshake in &self.handshakes {
            *counts.entry(handshake.host).or_insert(0) += 1;
        }
        let most = counts.values().copied().max();
        let mut handshakes = self.handshakes.iter();
        let oldest = handshakes.position(|it| counts.get(&it.host).copied() == most);
        let Some(index) = oldest else { return Poll::Ready(()) };
        let deadline = self.handshakes[index].began + PATIENCE;
        ready!(self.timer.poll(cx, &self.runtime, Some(deadline)));
        let given_up = self.handshakes.remove(index);
        let (now, host) = (self.runtime.now(), given_up.host);
        warn_limited!(now, host, "too many TLS handshakes: gave the oldest one up", %host);
        Poll::Ready(())
    }
}

impl Endpoint for TlsEndpoint {
    fn local(&self) -> Option<&TransportAddress> {
        self.inner.local()
    }

    fn accept_only(&mut self, hosts: HostFilter) {
        self.hosts = Some(hosts);
    }

    fn connect(&mut self, to: &TransportAddress) -> Box<dyn Connection> {
        let end = self.tls.pair(self.purpose).client;
        let inner = self.inner.connect(to);
        let runtime = Arc::clone(&self.runtime);
        match TlsConnection::dialled(runtime, end, self.framing(), inner) {
            Ok(connection) => Box::new(connection),
            Err(error) => Box::new(Failed::new(to.clone(), error)),
        }
    }

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Box<dyn Connection>>> {
        loop {
            if let Poll::Ready(error) = self.poll_begin(cx) {
                return Poll::Ready(Err(error));
            }
            let next = self.outcomes.poll_next_unpin(cx);
            let Poll::Ready(Some((number, connection))) = next else { return Poll::Pending };
            self.handshakes.retain(|handshake| handshake.number != number);
            if let Some(connection) = connection {
                return Poll::Ready(Ok(Box::new(connection)));
            }
        }
    }
}
