//! A service that sends each request to the element that the policy selects.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use rserpool::{PoolElementId, PoolHandle, PoolUser, ResolveError};
use tower::{BoxError, Service, ServiceExt};

use super::members::{Candidate, Members, is_unsent};
use super::permits::Permits;

/// Maximum number of elements whose services are kept. Not from the RFCs. Services of further
/// elements are made anew for each request.
const MAX_KEPT: usize = 1024;

/// Sends each request to the element that the pool's policy selects. `M` makes a service from the
/// element's address. The service is kept for further requests. If it cannot be made or does not
/// become ready, the element is reported to the registrar, and the next one is tried.
///
/// A request that fails later is lost. If requests are `Clone`, call [`Self::resend`] to send them
/// to the next element. For HTTP, [`PoolHttp`](crate::PoolHttp) does not need `Clone`.
pub struct PoolService<M, S> {
    members: Members,
    make: M,
    timeout: Duration,
    permits: Permits,
    kept: Arc<Mutex<HashMap<PoolElementId, (SocketAddr, S)>>>,
}

/// The requests that a [`ResendService`] sends again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Resend {
    /// Requests that were not sent, because the element accepted no connection, as the client of
    /// hyper-util reports it.
    Unsent,
    /// All requests that failed, although the first element may have executed them. Choose this only
    /// for requests that may be executed twice.
    All,
}

/// Function that copies a request, and the failures after which the copy is sent.
type Copies<R> = (fn(&R) -> R, Resend);

/// A [`PoolService`] for requests that are `Clone`, and are sent to the next element if they fail.
pub struct ResendService<M, S> {
    service: PoolService<M, S>,
    what: Resend,
}

impl<M, S> PoolService<M, S> {
    /// Returns a service of the elements of `pool`, as `user` resolves it.
    #[must_use]
    pub fn new(user: PoolUser, pool: PoolHandle, make: M) -> Self {
        Self {
            members: Members::new(user, pool),
            make,
            timeout: Duration::from_secs(5),
            permits: Permits::default(),
            kept: Arc::default(),
        }
    }

    /// Sets the maximum age of the registrar's answer by which an element is selected. With zero, the
    /// registrar is asked for each request, and selects. Elements that leave are left out sooner,
    /// because the service subscribes to the pool.
    ///
    /// Default: 1 s, or zero if the policy depends on the load of the elements, such as Least Used.
    /// Not from the RFCs: an old answer would send all requests to the element that was least used
    /// then.
    #[must_use]
    pub fn max_age(mut self, age: Duration) -> Self {
        self.members.set_max_age(age);
        self
    }

    /// Sets the time that an element's service may take to be ready before the next element is
    /// tried. Default: 5 s, as for sessions.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets the maximum number of requests under way. The service is not ready for further ones.
    /// Default: 1024.
    #[must_use]
    pub fn limit(mut self, requests: usize) -> Self {
        self.permits = Permits::new(requests);
        self
    }

    /// Returns a service that sends a failed request again, to the next element.
    #[must_use]
    pub fn resend(self, what: Resend) -> ResendService<M, S> {
        ResendService { service: self, what }
    }

    fn kept(&self) -> MutexGuard<'_, HashMap<PoolElementId, (SocketAddr, S)>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<M: Clone, S> Clone for PoolService<M, S> {
    fn clone(&self) -> Self {
        Self {
            members: self.members.clone(),
            make: self.make.clone(),
            permits: self.permits.clone(),
            kept: Arc::clone(&self.kept),
            ..*self
        }
    }
}

impl<M: Clone, S> Clone for ResendService<M, S> {
    fn clone(&self) -> Self {
        Self { service: self.service.clone(), ..*self }
    }
}

impl<M, S> fmt::Debug for PoolService<M, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PoolService").field("pool", self.members.pool()).finish_non_exhaustive()
    }
}

impl<M, S> fmt::Debug for ResendService<M, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResendService").field("what", &self.what).finish_non_exhaustive()
    }
}

/// Error of a [`PoolService`] or a [`PoolHttp`](crate::PoolHttp).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PoolServiceError {
    /// The pool could not be resolved. The request was not sent.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// No element of the pool was ready. The request was not sent. Contains the error of the last
    /// element, if that had one.
    #[error("no element of {0} is ready")]
    NoElement(PoolHandle, #[source] Option<BoxError>),
    /// The element accepted no connection. The request was not sent.
    #[error("the element accepts no connection")]
    Unsent(#[source] BoxError),
    /// The request was sent, and failed. The server may have executed it.
    #[error("the request failed")]
    Failed(#[source] BoxError),
}

impl<M, S> PoolService<M, S> {
    /// Returns the service of an element once it is ready; `None` if it cannot be made or fails.
    async fn ready<R>(&mut self, Candidate { element, address }: Candidate) -> Option<S>
    where
        M: Service<SocketAddr, Response = S>,
        S: Service<R> + Clone,
    {
        let kept = self.kept().get(&element).cloned();
        let mut service = match kept {
            Some((at, service)) if at == address => service,
            _ => self.make.ready().await.ok()?.call(address).await.ok()?,
        };
        service.ready().await.ok()?;
        let mut kept = self.kept();
        if kept.len() < MAX_KEPT || kept.contains_key(&element) {
            kept.insert(element, (address, service.clone()));
        }
        Some(service)
    }

    /// Sends a request. `copy` copies it, if it may be sent again.
    async fn send<R>(
        mut self,
        mut request: R,
        copy: Option<Copies<R>>,
    ) -> Result<S::Response, PoolServiceError>
    where
        M: Service<SocketAddr, Response = S>,
        S: Service<R> + Clone,
        S::Error: Into<BoxError>,
    {
        let candidates = self.members.candidates().await?;
        if self.kept().len() >= MAX_KEPT {
            let present = |id: &PoolElementId| candidates.iter().any(|it| it.element == *id);
            self.kept().retain(|id, _| present(id));
        }
        let mut last = None;
        for candidate in candidates {
            let ready = tokio::time::timeout(self.timeout, self.ready(candidate));
            let Ok(Some(mut service)) = ready.await else {
                self.kept().remove(&candidate.element);
                self.members.give_up(candidate.element).await;
                continue;
            };
            let again = copy.map(|(copy, what)| (copy(&request), what));
            let error = match service.call(request).await {
                Ok(response) => return Ok(response),
                Err(error) => error.into(),
            };
            self.kept().remove(&candidate.element);
            let unsent = is_unsent(&error);
            if unsent {
                self.members.give_up(candidate.element).await;
            }
            // An element to which the request was sent is not reported, since the request may be at
            // fault. If the element has crashed, the next request cannot reach it, and reports it
            // then.
            let error = match unsent {
                true => PoolServiceError::Unsent(error),
                false => PoolServiceError::Failed(error),
            };
            match again {
                Some((again, what)) if unsent || what == Resend::All => request = again,
                _ => return Err(error),
            }
            last = Some(error);
        }
        let nobody = || PoolServiceError::NoElement(self.members.pool().clone(), None);
        Err(last.unwrap_or_else(nobody))
    }
}

impl<M, S, R> Service<R> for PoolService<M, S>
where
    M: Service<SocketAddr, Response = S> + Clone + Send + 'static,
    M::Future: Send,
    S: Service<R> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<BoxError> + Send,
    S::Response: Send,
    R: Send + 'static,
{
    type Response = S::Response;
    type Error = PoolServiceError;
    type Future = BoxFuture<'static, Result<S::Response, PoolServiceError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), PoolServiceError>> {
        self.permits.poll_ready(cx).map(Ok)
    }

    fn call(&mut self, request: R) -> Self::Future {
        let sending = self.clone().send(request, None);
        self.permits.run(sending)
    }
}

impl<M, S, R> Service<R> for ResendService<M, S>
where
    M: Service<SocketAddr, Response = S> + Clone + Send + 'static,
    M::Future: Send,
    S: Service<R> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<BoxError> + Send,
    S::Response: Send,
    R: Clone + Send + 'static,
{
    type Response = S::Response;
    type Error = PoolServiceError;
    type Future = BoxFuture<'static, Result<S::Response, PoolServiceError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), PoolServiceError>> {
        self.service.permits.poll_ready(cx).map(Ok)
    }

    fn call(&mut self, request: R) -> Self::Future {
        let sending = self.service.clone().send(request, Some((R::clone, self.what)));
        self.service.permits.run(sending)
    }
}
