//! A service that sends each request to the element that the policy selects.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use rserpool::proto::wire::PoolElement;
use rserpool::{PoolElementId, PoolHandle, PoolUser, ResolveError, ResolveOptions};
use tower::{Service, ServiceExt};

use super::addresses;

/// Maximum number of elements whose services are kept. Not from the RFCs. Services of further
/// elements are made anew for each request.
const MAX_KEPT: usize = 1024;

/// Sends each request to the element that the pool's policy selects. `M` makes a service from the
/// element's address, which is kept for further requests. If the service cannot be made or does not
/// become ready, the element is reported to the registrar, and the next one is tried.
///
/// A request that was sent and failed is not sent again, since the server may have executed it;
/// [`Self::resend`] enables sending it again.
pub struct PoolService<M, S> {
    user: PoolUser,
    pool: PoolHandle,
    make: M,
    max_age: Duration,
    timeout: Duration,
    resend: bool,
    kept: Arc<Mutex<HashMap<PoolElementId, (SocketAddr, S)>>>,
}

impl<M, S> PoolService<M, S> {
    /// Returns a service of the elements of `pool`, as `user` resolves it.
    #[must_use]
    pub fn new(user: PoolUser, pool: PoolHandle, make: M) -> Self {
        let (max_age, timeout) = (Duration::from_secs(1), Duration::from_secs(5));
        Self { user, pool, make, max_age, timeout, resend: false, kept: Arc::default() }
    }

    /// Sets the maximum age of the registrar's answer by which an element is selected. Default: 1
    /// s. Not from the RFCs: spares the registrar a request for each call. With zero, the registrar
    /// is asked for each request, and selects.
    #[must_use]
    pub fn max_age(mut self, age: Duration) -> Self {
        self.max_age = age;
        self
    }

    /// Sets the time that an element's service may take to be ready before the next element is
    /// tried. Default: 5 s, as for sessions.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets whether a failed request is sent to the next element, although the first one may have
    /// executed it. Default: no. Enable it only for requests that may be executed twice.
    #[must_use]
    pub fn resend(mut self, yes: bool) -> Self {
        self.resend = yes;
        self
    }

    fn forget(&self, element: PoolElementId) {
        self.kept().remove(&element);
    }

    fn kept(&self) -> MutexGuard<'_, HashMap<PoolElementId, (SocketAddr, S)>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn give_up(&mut self, element: PoolElementId) {
        self.forget(element);
        let _ = self.user.report_unreachable(self.pool.clone(), element).await;
    }
}

impl<M: Clone, S> Clone for PoolService<M, S> {
    fn clone(&self) -> Self {
        Self {
            user: self.user.clone(),
            pool: self.pool.clone(),
            make: self.make.clone(),
            kept: Arc::clone(&self.kept),
            ..*self
        }
    }
}

impl<M, S> fmt::Debug for PoolService<M, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PoolService").field("pool", &self.pool).finish_non_exhaustive()
    }
}

/// Error of a [`PoolService`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PoolServiceError<E> {
    /// The pool could not be resolved. The request was not sent.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// No element of the pool was ready. The request was not sent.
    #[error("no element of {0} is ready")]
    NoElement(PoolHandle),
    /// The request was sent, and failed. The server may have executed it.
    #[error("the request failed")]
    Failed(#[source] E),
}

impl<M, S> PoolService<M, S> {
    /// Returns the service of an element once it is ready; `None` if it cannot be made or fails.
    async fn ready<R>(&mut self, element: &PoolElement) -> Option<S>
    where
        M: Service<SocketAddr, Response = S>,
        S: Service<R> + Clone,
    {
        let address = addresses(element).first().copied()?;
        let kept = self.kept().get(&element.identifier).cloned();
        let mut service = match kept {
            Some((at, service)) if at == address => service,
            _ => self.make.ready().await.ok()?.call(address).await.ok()?,
        };
        service.ready().await.ok()?;
        let mut kept = self.kept();
        if kept.len() < MAX_KEPT || kept.contains_key(&element.identifier) {
            kept.insert(element.identifier, (address, service.clone()));
        }
        Some(service)
    }

    async fn send<R>(mut self, request: R) -> Result<S::Response, PoolServiceError<S::Error>>
    where
        M: Service<SocketAddr, Response = S>,
        S: Service<R> + Clone,
        R: Clone,
    {
        let options = ResolveOptions::default().max_age(self.max_age);
        let elements = self.user.resolve(self.pool.clone(), options).await?;
        if self.kept().len() >= MAX_KEPT {
            let present = |id: &PoolElementId| elements.iter().any(|it| it.identifier == *id);
            self.kept().retain(|id, _| present(id));
        }
        let mut failed = None;
        for element in elements {
            if addresses(&element).is_empty() {
                // Skip an element that does not serve over TCP, without a report: it may serve
                // other users.
                continue;
            }
            let ready = tokio::time::timeout(self.timeout, self.ready(&element));
            let Ok(Some(mut service)) = ready.await else {
                self.give_up(element.identifier).await;
                continue;
            };
            match service.call(request.clone()).await {
                Ok(response) => return Ok(response),
                Err(error) => {
                    // Do not report the element to the registrar, since the request may be at
                    // fault. If the element has crashed, the next request cannot reach it, and
                    // reports it then.
                    self.forget(element.identifier);
                    failed = Some(error);
                    if !self.resend {
                        break;
                    }
                }
            }
        }
        Err(match failed {
            Some(error) => PoolServiceError::Failed(error),
            None => PoolServiceError::NoElement(self.pool),
        })
    }
}

impl<M, S, R> Service<R> for PoolService<M, S>
where
    M: Service<SocketAddr, Response = S> + Clone + Send + 'static,
    M::Future: Send,
    S: Service<R> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send,
    S::Response: Send,
    R: Clone + Send + 'static,
{
    type Response = S::Response;
    type Error = PoolServiceError<S::Error>;
    type Future = BoxFuture<'static, Result<S::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: R) -> Self::Future {
        Box::pin(self.clone().send(request))
    }
}
