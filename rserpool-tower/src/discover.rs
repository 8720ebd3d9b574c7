//! Discovery for tower's balancers: the elements of a pool.

use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::Stream;
use rserpool::{PoolChange, PoolElementId, Subscription};
use tower::discover::Change;

use super::addresses;

/// Stream of a pool's changes, for [`tower::discover::Discover`]. `make` makes the service of an
/// element from its address. Elements that do not serve over TCP are left out.
pub struct PoolDiscover<M> {
    subscription: Subscription,
    make: M,
    /// The addresses of the elements for which a service was made.
    known: HashMap<PoolElementId, SocketAddr>,
}

impl<M> PoolDiscover<M> {
    /// Creates a discovery that follows `subscription`.
    #[must_use]
    pub fn new(subscription: Subscription, make: M) -> Self {
        Self { subscription, make, known: HashMap::new() }
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
                    let identifier = element.identifier;
                    let address = addresses(&element).first().copied();
                    // A changed load alone does not need a new connection.
                    if this.known.get(&identifier).copied() == address {
                        continue;
                    }
                    match address {
                        Some(address) => {
                            this.known.insert(identifier, address);
                            Change::Insert(identifier, (this.make)(address))
                        }
                        None => {
                            this.known.remove(&identifier);
                            Change::Remove(identifier)
                        }
                    }
                }
                Some(PoolChange::Left(identifier)) => match this.known.remove(&identifier) {
                    Some(_) => Change::Remove(identifier),
                    None => continue,
                },
                Some(_) => continue,
                None => return Poll::Ready(None),
            };
            return Poll::Ready(Some(Ok(change)));
        }
    }
}
