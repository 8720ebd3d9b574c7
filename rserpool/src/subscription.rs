//! Subscriptions to the changes of a pool.

use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};

use futures::stream::Stream;
use futures::task::AtomicWaker;
use rserpool_proto::wire::{PoolElement, PoolElementId};

use crate::PoolUser;

/// The changes of a pool, as its registrar reports them: a stream that ends only when the pool
/// user's task stops. The task runs as long as a subscription or a handle of the user exists.
///
/// After changes, at most every 100 ms, the registrar sends the full list of elements, and the
/// stream compares it with the previous list. So no change is missed, although two changes of one
/// element may be merged. If the stream is not read, it keeps only the latest list.
///
/// ```
/// use futures::StreamExt;
/// use rserpool::{PoolChange, PoolElement, PoolUser};
/// # use rserpool::{Network, Registrar, RegistrarConfig};
/// # use rserpool::transport::Memory;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let network = Network::new(rserpool_tokio::TokioRuntime::current(), Memory::new());
/// # let registrar = Registrar::start(&network, ["192.0.2.1:3863"], RegistrarConfig::default())?;
/// let user = PoolUser::new(&network, registrar.local_addresses())?;
/// let mut changes = user.subscribe("EchoPool").await?;
/// let element = PoolElement::start(&network, "EchoPool", registrar.local_addresses())?;
/// let identifier = element.registered().await?;
/// match changes.next().await {
///     Some(PoolChange::Joined(joined)) => assert_eq!(joined.identifier, identifier),
///     other => panic!("{other:?}"),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Subscription {
    /// Keeps the pool user's task running.
    _user: PoolUser,
    slot: Arc<Slot>,
    known: BTreeMap<PoolElementId, PoolElement>,
    changes: VecDeque<PoolChange>,
}

/// A change of a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PoolChange {
    /// An element joined the pool, or was in it already.
    Joined(PoolElement),
    /// An element has another address or other policy values.
    Changed(PoolElement),
    /// An element left the pool, or crashed.
    Left(PoolElementId),
}

/// Slot between the pool user's task and the stream: holds the latest list of elements until the
/// stream takes it.
#[derive(Debug, Default)]
struct Slot {
    latest: Mutex<Latest>,
    waker: AtomicWaker,
}

#[derive(Debug, Default)]
struct Latest {
    elements: Option<Vec<PoolElement>>,
    over: bool,
}

impl Slot {
    fn latest(&self) -> MutexGuard<'_, Latest> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The sending end of a [`Subscription`].
#[derive(Debug)]
pub(crate) struct Subscriber(Weak<Slot>);

impl Subscriber {
    /// Returns whether the stream still exists.
    pub(crate) fn is_there(&self) -> bool {
        self.0.strong_count() > 0
    }

    pub(crate) fn tell(&self, elements: &[PoolElement]) {
        if let Some(slot) = self.0.upgrade() {
            slot.latest().elements = Some(elements.to_vec());
            slot.waker.wake();
        }
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        if let Some(slot) = self.0.upgrade() {
            slot.latest().over = true;
            slot.waker.wake();
        }
    }
}

impl Subscription {
    pub(crate) fn new(user: PoolUser) -> (Subscriber, Self) {
        let slot = Arc::new(Slot::default());
        let subscriber = Subscriber(Arc::downgrade(&slot));
        let (known, changes) = (BTreeMap::new(), VecDeque::new());
        (subscriber, Self { _user: user, slot, known, changes })
    }

    /// Returns the elements of the pool as of the last change that the stream returned.
    pub fn elements(&self) -> impl Iterator<Item = &PoolElement> {
        self.known.values()
    }

    fn compare(&mut self, elements: Vec<PoolElement>) {
        let mut before = std::mem::take(&mut self.known);
        for element in elements {
            let same = |old: &PoolElement| {
                old.policy == element.policy && old.user_transport == element.user_transport
            };
            match before.remove(&element.identifier) {
                None => self.changes.push_back(PoolChange::Joined(element.clone())),
                Some(old) if same(&old) => {}
                Some(_) => self.changes.push_back(PoolChange::Changed(element.clone())),
            }
            self.known.insert(element.identifier, element);
        }
        self.changes.extend(before.into_keys().map(PoolChange::Left));
    }
}

impl Stream for Subscription {
    type Item = PoolChange;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<PoolChange>> {
        loop {
            if let Some(change) = self.changes.pop_front() {
                return Poll::Ready(Some(change));
            }
            self.slot.waker.register(cx.waker());
            let (elements, over) = {
                let mut latest = self.slot.latest();
                (latest.elements.take(), latest.over)
            };
            match elements {
                Some(elements) => self.compare(elements),
                None if over => return Poll::Ready(None),
                None => return Poll::Pending,
            }
        }
    }
}
