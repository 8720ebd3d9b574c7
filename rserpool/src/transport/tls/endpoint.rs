//! Endpoints: connections are accepted when their handshake is complete.

use std::collections::HashMap;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use futures::future::{AbortHandle, Abortable, BoxFuture, RemoteHandle};
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use rserpool_proto::wire::TransportAddress;

use super::Tls;
use super::connection::TlsConnection;
use crate::log::warn_limited;
use crate::runtime::Runtime;
use crate::transport::tcp::framing::Framing;
use crate::transport::{Connection, Endpoint, Failed, Purpose};

/// Maximum number of handshakes under way at an endpoint. Not from the RFCs. Beyond it, the oldest
/// handshake of the host with the most of them is given up.
const MAX_HANDSHAKES: usize = 256;

/// A handshake that runs in a task of its own, so that its cryptography does not delay the
/// endpoint's owner. Dropping it ends the task.
type Handshake = BoxFuture<'static, (u64, Option<io::Result<TlsConnection>>)>;

/// A handshake of a client.
struct UnderWay {
    number: u64,
    host: IpAddr,
    abort: AbortHandle,
}

pub(super) struct TlsEndpoint {
    tls: Tls,
    runtime: Arc<dyn Runtime>,
    purpose: Purpose,
    inner: Box<dyn Endpoint>,
    /// In a mutex, since futures need not be `Sync`.
    handshakes: Mutex<FuturesUnordered<Handshake>>,
    /// The handshakes in the order of their beginning.
    under_way: Vec<UnderWay>,
    last: u64,
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
        let handshakes = Mutex::default();
        Self { tls, runtime, purpose, inner, handshakes, under_way: Vec::new(), last: 0 }
    }

    fn framing(&self) -> Framing {
        Framing::new(self.purpose, self.tls.max_message_size)
    }

    /// Begins the handshake of a client.
    fn begin(&mut self, inner: Box<dyn Connection>) -> io::Result<()> {
        let Some(config) = self.tls.pair(self.purpose).server else {
            return Err(io::Error::other("there is no certificate to present"));
        };
        if self.under_way.len() >= MAX_HANDSHAKES {
            self.give_one_up();
        }
        let host = inner.peer().host();
        let runtime = Arc::clone(&self.runtime);
        let mut connection = TlsConnection::accepted(runtime, config, self.framing(), inner)?;
        self.last += 1;
        let number = self.last;
        let handshake = async move {
            poll_fn(|cx| connection.poll_handshake(cx)).await?;
            io::Result::Ok(connection)
        };
        let (abort, registration) = AbortHandle::new_pair();
        let handshake = Abortable::new(handshake, registration);
        let (task, result): (_, RemoteHandle<_>) = handshake.remote_handle();
        self.runtime.spawn(Box::pin(task));
        let handshake = result.map(move |result| (number, result.ok()));
        if let Ok(handshakes) = self.handshakes.get_mut() {
            handshakes.push(Box::pin(handshake));
        }
        self.under_way.push(UnderWay { number, host, abort });
        Ok(())
    }

    /// Gives up the oldest handshake of the host that has the most of them.
    fn give_one_up(&mut self) {
        let mut counts = HashMap::new();
        for one in &self.under_way {
            *counts.entry(one.host).or_insert(0) += 1;
        }
        let most = |one: &UnderWay| counts.get(&one.host).copied().unwrap_or(0);
        let Some(greatest) = self.under_way.iter().map(most).max() else { return };
        if let Some(index) = self.under_way.iter().position(|one| most(one) == greatest) {
            let one = self.under_way.remove(index);
            one.abort.abort();
            let now = self.runtime.now();
            warn_limited!(now, one.host, "too many TLS handshakes: gave the oldest one up",
                host = %one.host);
        }
    }
}

impl Endpoint for TlsEndpoint {
    fn local(&self) -> Option<&TransportAddress> {
        self.inner.local()
    }

    fn connect(&mut self, to: &TransportAddress) -> Box<dyn Connection> {
        let config = self.tls.pair(self.purpose).client;
        let inner = self.inner.connect(to);
        let runtime = Arc::clone(&self.runtime);
        match TlsConnection::dialled(runtime, config, self.framing(), inner) {
            Ok(connection) => Box::new(connection),
            Err(error) => Box::new(Failed::new(to.clone(), error)),
        }
    }

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Box<dyn Connection>>> {
        while let Poll::Ready(accepted) = self.inner.poll_accept(cx) {
            self.begin(accepted?)?;
        }
        let Ok(handshakes) = self.handshakes.get_mut() else { return Poll::Pending };
        while let Poll::Ready(Some((number, result))) = handshakes.poll_next_unpin(cx) {
            self.under_way.retain(|one| one.number != number);
            // A handshake that failed was logged.
            if let Some(Ok(connection)) = result {
                return Poll::Ready(Ok(Box::new(connection)));
            }
        }
        Poll::Pending
    }
}
