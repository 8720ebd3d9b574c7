//! The servers' side: which server a connection goes to.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rserpool::proto::wire::PoolElement;
use rserpool::{PoolElementId, PoolHandle, PoolUser, ResolveOptions, TransportProtocol};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

/// Time for which a server that did not accept is tried after the others.
const AVOIDANCE: Duration = Duration::from_secs(2);

/// Pause before the registrar is asked again if no server accepts.
const PAUSE: Duration = Duration::from_millis(50);

/// Maximum number of servers that an answer of the registrar has.
const ITEMS: u32 = 32;

/// The servers of a pool.
pub(super) struct Servers {
    user: PoolUser,
    pool: PoolHandle,
    options: ResolveOptions,
    /// The servers that did not accept, and until when they are avoided.
    avoided: Mutex<HashMap<PoolElementId, Instant>>,
}

impl Servers {
    pub(super) fn new(user: PoolUser, pool: PoolHandle, cache: Duration) -> Self {
        let options = ResolveOptions::default().items(ITEMS).max_age(cache).allow_stale(true);
        Self { user, pool, options, avoided: Mutex::default() }
    }

    fn avoided(&self) -> MutexGuard<'_, HashMap<PoolElementId, Instant>> {
        self.avoided.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Connects to the first server that accepts, in the order of the policy. Goes on until one does.
    pub(super) async fn connect(&self, limit: Duration) -> (TcpStream, PoolElementId) {
        loop {
            let resolved = self.user.resolve(&self.pool, self.options.clone()).await;
            let mut elements = resolved.unwrap_or_else(|error| {
                tracing::info!(pool = %self.pool, %error, "no servers");
                Vec::new()
            });
            self.put_avoided_last(&mut elements);
            for element in &elements {
                if let Some(stream) = self.try_one(element, limit).await {
                    return (stream, element.identifier);
                }
            }
            let _ = self.user.purge(self.pool.clone()).await;
            sleep(PAUSE).await;
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
        let to: Vec<_> =
            address.addresses.iter().map(|host| SocketAddr::new(*host, address.port)).collect();
        match timeout(limit, TcpStream::connect(&to[..])).await {
            Ok(Ok(stream)) => {
                self.avoided().remove(&identifier);
                return Some(stream);
            }
            Ok(Err(error)) => tracing::info!(%identifier, %address, %error, "no connection"),
            Err(_) => tracing::info!(%identifier, %address, "no connection in time"),
        }
        self.avoided().insert(identifier, Instant::now() + AVOIDANCE);
        let _ = self.user.report_unreachable(self.pool.clone(), identifier).await;
        None
    }
}
