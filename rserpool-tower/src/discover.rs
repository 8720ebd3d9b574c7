//! Who is in a pool, for tower's balancers.

use std::convert::Infallible;
use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::Stream;
use rserpool::driver::{PoolChange, Subscription};
use rserpool::wire::PoolElementId;
use tower::discover::Change;

use super::addresses;

/// The changes of a pool as [`tower::discover::Discover`] has them: `make` makes the service of an
/// element of its address. Those which do not serve over TCP are left out.
pub struct PoolDiscover<M> {
    subscription: Subscription,
    make: M,
}

impl<M> PoolDiscover<M> {
    /// What `subscription` tells.
    #[must_use]
    pub fn new(subscription: Subscription, make: M) -> Self {
        Self { subscription, make }
    }
}

impl<M> fmt::Debug for PoolDiscover<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let subscription = &self.subscription;
        f.debug_struct("PoolDiscover").field("subscription", subscription).finish_non_exhaustive()
    }
}

impl<M, S> Stream for PoolDiscover<M>
where
    M: FnMut(SocketAddr) -> S + Unpin,
{
    type Item = Result<Change<PoolElementId, S>, Infallible>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            let change = match ready!(Pin::new(&mut this.subscription).poll_next(cx)) {
                Some(PoolChange::Joined(element) | PoolChange::Changed(element)) => {
                    let Some(address) = addresses(&element).first().copied() else { continue };
                    Change::Insert(element.identifier, (this.make)(address))
                }
                Some(PoolChange::Left(identifier)) => Change::Remove(identifier),
                Some(_) => continue,
                None => return Poll::Ready(None),
            };
            return Poll::Ready(Some(Ok(change)));
        }
    }
}
