//! The elements that requests may go to.

use std::collections::{BTreeSet, HashMap};
use std::error::Error;
use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures::Stream;
use rserpool::{PoolElementId, PoolHandle, PoolUser, ResolveError, ResolveOptions, Subscription};
use tokio::time::Instant;
use tower::BoxError;

use super::addresses;

/// Time for which an element that could not be reached is tried after all others. Not from the RFCs:
/// by then, the registrar has removed an element that crashed.
const AVOID: Duration = Duration::from_secs(3);

/// Default of the maximum age of a cached answer, if the policy does not depend on the load. Not from
/// the RFCs: spares the registrar a request for each call.
const MAX_AGE: Duration = Duration::from_secs(1);

/// The elements of a pool, in the order of its policy. Follows the pool's changes, and avoids the
/// elements that could not be reached.
#[derive(Clone)]
pub(crate) struct Members {
    user: PoolUser,
    pool: PoolHandle,
    max_age: Option<Duration>,
    seen: Arc<Mutex<Seen>>,
}

/// State of a pool that is kept between requests, in addition to the cached answers of the
/// registrar.
#[derive(Default)]
struct Seen {
    subscription: Option<Subscription>,
    /// True if the last answer's policy depends on the load of the elements.
    is_adaptive: bool,
    avoided: HashMap<PoolElementId, Instant>,
}

impl fmt::Debug for Members {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Members").field("pool", &self.pool).finish_non_exhaustive()
    }
}

/// An element that a request may be sent to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Candidate {
    pub(crate) element: PoolElementId,
    pub(crate) address: SocketAddr,
}

impl Members {
    pub(crate) fn new(user: PoolUser, pool: PoolHandle) -> Self {
        Self { user, pool, max_age: None, seen: Arc::default() }
    }

    /// Returns the maximum age of a cached answer for the next request.
    fn max_age(&self) -> Duration {
        self.max_age.unwrap_or(if self.seen().is_adaptive { Duration::ZERO } else { MAX_AGE })
    }

    pub(crate) fn set_max_age(&mut self, age: Duration) {
        self.max_age = Some(age);
    }

    pub(crate) fn pool(&self) -> &PoolHandle {
        &self.pool
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the elements to try, in order. Elements that left the pool since the registrar's
    /// answer are left out, and those that could not be reached come last. If no element of a
    /// cached answer remains, asks the registrar.
    pub(crate) async fn candidates(&self) -> Result<Vec<Candidate>, ResolveError> {
        if self.seen().subscription.is_none()
            && let Ok(subscription) = self.user.subscribe(&self.pool).await
        {
            self.seen().subscription = Some(subscription);
        }
        for max_age in [self.max_age(), Duration::ZERO] {
            let options = ResolveOptions::default().max_age(max_age).allow_stale(true);
            let elements = self.user.resolve(&self.pool, options).await?;
            let candidates = elements.iter().filter_map(|element| {
                // Elements that do not serve over TCP may serve other users.
                let address = addresses(element).first().copied()?;
                Some(Candidate { element: element.identifier, address })
            });
            let mut candidates: Vec<_> = candidates.collect();
            let (mut good, avoided) = {
                let mut seen = self.seen();
                seen.is_adaptive = elements.iter().any(|it| it.policy.with_load(0.0).is_some());
                let present = seen.present();
                // An answer that the registrar just gave is newer than the state of the
                // subscription.
                if let Some(present) = present.filter(|_| !max_age.is_zero()) {
                    candidates.retain(|candidate| present.contains(&candidate.element));
                }
                let now = Instant::now();
                seen.avoided.retain(|_, until| now < *until);
                candidates
                    .into_iter()
                    .partition::<Vec<_>, _>(|it| !seen.avoided.contains_key(&it.element))
            };
            if !good.is_empty() || max_age.is_zero() {
                good.extend(avoided);
                return Ok(good);
            }
        }
        Ok(Vec::new())
    }

    /// Records that an element cannot be reached, and reports it to the registrar.
    pub(crate) async fn give_up(&self, element: PoolElementId) {
        self.seen().avoided.insert(element, Instant::now() + AVOID);
        tracing::info!(pool = %self.pool, %element, "not reachable");
        let _ = self.user.report_unreachable(self.pool.clone(), element).await;
    }
}

impl Seen {
    /// Returns the elements that are in the pool now; `None` as long as the subscription knows
    /// none.
    fn present(&mut self) -> Option<BTreeSet<PoolElementId>> {
        let subscription = self.subscription.as_mut()?;
        let mut cx = Context::from_waker(Waker::noop());
        loop {
            match Pin::new(&mut *subscription).poll_next(&mut cx) {
                Poll::Ready(Some(_)) => {}
                Poll::Pending => break,
                Poll::Ready(None) => {
                    self.subscription = None;
                    return None;
                }
            }
        }
        let present: BTreeSet<_> = subscription.elements().map(|it| it.identifier).collect();
        (!present.is_empty()).then_some(present)
    }
}

/// Returns whether a request with this error was not sent, because hyper's client could not establish
/// a connection. An error of the operating system alone does not show that: an established connection may
/// end with "no route to host", too.
pub(crate) fn is_unsent(error: &BoxError) -> bool {
    let mut next: Option<&(dyn Error + 'static)> = Some(&**error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<hyper_util::client::legacy::Error>()
            && error.is_connect()
        {
            return true;
        }
        next = error.source();
    }
    false
}
