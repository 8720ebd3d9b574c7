//! The servers' side: which server a connection goes to.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rserpool::proto::wire::PoolElement;
use rserpool::{
    PoolElementId, PoolHandle, PoolUser, ResolveError, ResolveOptions, TransportProtocol,
};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

/// Time for which a server that did not accept is tried after the others.
const AVOIDANCE: Duration = Duration::from_secs(2);

/// Pause before the registrar is asked again if no server accepts.
const PAUSE: Duration = Duration::from_millis(50);

/// Time that a registrar has to answer. Not from the RFCs: less than the patience of clients.
const SOON: Duration = Duration::from_secs(1);

/// Maximum number of servers that an answer of the registrar has.
const ITEMS: u32 = 32;

/// The servers of a pool.
pub(super) struct Servers {
    user: PoolUser,
    pool: PoolHandle,
    options: ResolveOptions,
    /// The servers that did not accept, and until when they are avoided.
    avoided: Mutex<HashMap<PoolElementId, Instant>>,
    /// The last answer with servers, for when no registrar answers.
    last: Mutex<Vec<PoolElement>>,
}

impl Servers {
    pub(super) fn new(user: PoolUser, pool: PoolHandle, cache: Duration) -> Self {
        let options = ResolveOptions::default().items(ITEMS).max_age(cache).allow_stale(true);
        Self { user, pool, options, avoided: Mutex::default(), last: Mutex::default() }
    }

    fn avoided(&self) -> MutexGuard<'_, HashMap<PoolElementId, Instant>> {
        self.avoided.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Connects to the first server that accepts, in the order of the policy. Goes on until one does.
    pub(super) async fn connect(&self, limit: Duration) -> (TcpStream, PoolElementId) {
        loop {
            let mut elements = self.resolve().await;
            self.put_avoided_last(&mut elements);
            for element in &elements {
                if let Some(stream) = self.try_one(element, limit).await {
                    return (stream, element.identifier);
                }
            }
            sleep(PAUSE).await;
        }
    }

    /// Returns the servers in the order of the policy. If no registrar answers soon, returns those of
    /// the last answer: servers that were reported may work again.
    async fn resolve(&self) -> Vec<PoolElement> {
        let resolve = self.user.resolve(&self.pool, self.options.clone());
        let resolved = timeout(SOON, resolve).await;
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match resolved {
            Ok(Ok(elements)) => {
                if !elements.is_empty() {
                    last.clone_from(&elements);
                }
                elements
            }
            Err(_) | Ok(Err(ResolveError::NoRegistrar(_))) => last.clone(),
            Ok(Err(error)) => {
                tracing::info!(pool = %self.pool, %error, "no servers");
                Vec::new()
            }
        }
    }

    fn put_avoided_last(&self, elements: &mut [PoolElement]) {
        let mut avoided = self.avoided();
        if !avoided.is_empty() {
            let now = Instant::now();
            avoided.retain(|_, until| *until > now);
            elements.sort_by_key(|element| avoided.contains_key(&element.identifier));
        }
    }

    /// Connects to a server; reports it and avoids it if it does not accept.
    async fn try_one(&self, element: &PoolElement, limit: Duration) -> Option<TcpStream> {
        let identifier = element.identifier;
        let address = element.user_transport.address()?;
        if address.protocol != TransportProtocol::Tcp {
            tracing::info!(%identifier, %address, "the server does not use TCP");
            return None;
        }
        let share = limit / u32::try_from(address.addresses.len()).unwrap_or(u32::MAX).max(1);
        for host in &address.addresses {
            let to = SocketAddr::new(*host, address.port);
            let error = match timeout(share, TcpStream::connect(to)).await {
                Ok(Ok(stream)) => {
                    self.avoided().remove(&identifier);
                    return Some(stream);
                }
                Ok(Err(error)) => error,
                Err(_) => io::ErrorKind::TimedOut.into(),
            };
            tracing::info!(%identifier, %to, %error, "no connection");
            if !is_of_the_server(&error) {
                return None;
            }
        }
        self.avoided().insert(identifier, Instant::now() + AVOIDANCE);
        let _ = self.user.report_unreachable(self.pool.clone(), identifier).await;
        None
    }
}

/// Returns whether an error of connecting is the server's. Others are those of this host, such as a
/// shortage of descriptors or ports, and say nothing of the server.
fn is_of_the_server(error: &io::Error) -> bool {
    use io::ErrorKind::{
        ConnectionAborted, ConnectionRefused, ConnectionReset, HostUnreachable, TimedOut,
    };
    let kinds = [ConnectionAborted, ConnectionRefused, ConnectionReset, HostUnreachable, TimedOut];
    kinds.contains(&error.kind())
}
