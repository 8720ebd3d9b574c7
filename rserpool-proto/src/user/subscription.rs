//! Subscriptions to the changes of pools (RFC 5352 sections 2.2.5 and 2.2.6).

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::{Event, GRACE, Timer, User};
use crate::Incompatible;
use crate::wire::asap::{HandleResolution, HandleResolutionResponse, Resolved};
use crate::wire::parameter::ItemCount;
use crate::wire::{ErrorCause, PoolElement, PoolElementId, PoolHandle};

/// The interval at which the user resolves a subscribed pool, if the registrar does not report its
/// changes. Not from the RFCs.
const POLL_INTERVAL: Duration = Duration::from_secs(5);

/// The interval at which the user resolves a subscribed pool, if there is no such pool or if the
/// registrar has not answered. Not from the RFCs.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// The interval at which the user resolves a subscribed pool, if the registrar reports its changes.
/// Without these requests, the user would not notice that the registrar has stopped working. Not
/// from the RFCs.
const REFRESH_INTERVAL: Duration = Duration::from_secs(30);

/// The subscriptions of a pool user. `told` contains the subscriptions whose changes the home
/// registrar reports at present. For the others, the user polls the registrar.
#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    next: u64,
    handles: BTreeMap<SubscriptionId, PoolHandle>,
    by_handle: BTreeMap<PoolHandle, SubscriptionId>,
    told: BTreeSet<SubscriptionId>,
    /// The last state reported for each subscription, so that only changes are reported.
    seen: BTreeMap<SubscriptionId, Vec<PoolElement>>,
    /// The elements in `seen` that an earlier home registrar reported, but the present one has not
    /// reported yet.
    unconfirmed: BTreeMap<SubscriptionId, BTreeSet<PoolElementId>>,
    /// The time since which the user has waited for the home registrar's answer to a subscription.
    waiting_since: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct SubscriptionId(u64);

impl Subscriptions {
    pub(super) fn len(&self) -> usize {
        self.handles.len()
    }

    /// Stops the wait for an answer: the home registrar answered, or is a new one.
    pub(super) fn forget_wait(&mut self) {
        self.waiting_since = None;
    }
}

impl User {
    /// Subscribes to a pool: [`Event::PoolChanged`] reports its current elements and every change.
    /// The subscription continues when the home registrar changes, and while there is no such pool.
    /// If the registrar does not offer subscriptions (rsplib's does not), the user resolves the
    /// pool every 5 seconds instead.
    ///
    /// # Errors
    ///
    /// Returns an error if the compatibility profile forbids the pool handle.
    pub fn subscribe(&mut self, now: Instant, handle: PoolHandle) -> Result<(), Incompatible> {
        self.out.begin();
        self.profile.check(&handle, None)?;
        if self.subscriptions.by_handle.contains_key(&handle) {
            return Ok(());
        }
        self.subscriptions.next += 1;
        let id = SubscriptionId(self.subscriptions.next);
        self.subscriptions.handles.insert(id, handle.clone());
        self.subscriptions.by_handle.insert(handle, id);
        self.need_home(now);
        self.ask_for(now, id);
        Ok(())
    }

    /// Cancels a subscription. ASAP has no message for this: the home registrar goes on reporting
    /// until the connection to it is closed.
    pub fn unsubscribe(&mut self, handle: &PoolHandle) {
        if let Some(id) = self.subscriptions.by_handle.remove(handle) {
            self.subscriptions.handles.remove(&id);
            self.subscriptions.told.remove(&id);
            self.subscriptions.seen.remove(&id);
            self.subscriptions.unconfirmed.remove(&id);
            self.timers.cancel(Timer::Subscription(id));
        }
    }

    /// Asks again for a subscribed pool. Leaves the home registrar if it has not answered for
    /// T1-ENRPrequest.
    pub(super) fn handle_subscription_timer(&mut self, now: Instant, id: SubscriptionId) {
        let timeout = self.request_timeout();
        let waiting_since = self.subscriptions.waiting_since;
        match self.home {
            Some(_) if waiting_since.is_some_and(|since| now >= since + timeout) => {
                self.leave_home(now);
            }
            _ => self.ask_for(now, id),
        }
    }

    fn ask_for(&mut self, now: Instant, id: SubscriptionId) {
        self.subscriptions.told.remove(&id);
        let (Some(home), Some(handle)) = (self.home, self.subscriptions.handles.get(&id)) else {
            return;
        };
        let items = Some(ItemCount::ALL);
        let request = HandleResolution {
            subscribe: true,
            pool_handle: handle.clone(),
            items: items.filter(|_| self.profile.sends_item_count()),
        };
        self.out.send(home, request);
        self.subscriptions.waiting_since.get_or_insert(now);
        self.timers.set(Timer::Subscription(id), now + RETRY_INTERVAL);
    }

    /// Asks a new home registrar for all subscribed pools.
    pub(super) fn ask_for_all(&mut self, now: Instant) {
        for (id, seen) in &self.subscriptions.seen {
            let identifiers = seen.iter().map(|element| element.identifier).collect();
            self.subscriptions.unconfirmed.insert(*id, identifiers);
        }
        let all: Vec<_> = self.subscriptions.handles.keys().copied().collect();
        for id in all {
            self.ask_for(now, id);
        }
    }

    /// Handles a registrar's answer if it belongs to a subscription. Returns true if no resolution
    /// waits for the answer.
    pub(super) fn take_update(&mut self, now: Instant, answer: &HandleResolutionResponse) -> bool {
        let handle = &answer.pool_handle;
        let Some(id) = self.subscriptions.by_handle.get(handle).copied() else {
            return answer.subscribed;
        };
        match &answer.result {
            Resolved::Pool { elements, .. } if answer.subscribed => {
                self.subscriptions.told.insert(id);
                let kept = self.not_yet_known(now, id, elements);
                let again = match self.fresh_since(now) {
                    Some(since) if !kept.is_empty() => since + GRACE,
                    _ => now + REFRESH_INTERVAL,
                };
                self.timers.set(Timer::Subscription(id), again);
                let all = [elements.as_slice(), &kept].concat();
                if self.subscriptions.seen.get(&id) != Some(&all) {
                    self.subscriptions.seen.insert(id, all.clone());
                    self.out.event(Event::PoolChanged { handle: handle.clone(), elements: all });
                }
                true
            }
            // The message answers a pending resolution, and need not have all elements of the pool.
            Resolved::Pool { .. } if self.by_handle.contains_key(handle) => false,
            Resolved::Pool { elements, .. } => {
                if !self.subscriptions.told.contains(&id) {
                    self.subscriptions.seen.remove(&id);
                    self.timers.set(Timer::Subscription(id), now + POLL_INTERVAL);
                    let (handle, elements) = (handle.clone(), elements.clone());
                    self.out.event(Event::PoolChanged { handle, elements });
                }
                true
            }
            Resolved::Error(error) => {
                // A registrar accepts no subscription to a pool that does not exist. It does not
                // even report that the pool exists again.
                self.subscriptions.told.remove(&id);
                self.timers.set(Timer::Subscription(id), now + RETRY_INTERVAL);
                if error.causes.contains(&ErrorCause::UnknownPoolHandle)
                    && self.not_yet_known(now, id, &[]).is_empty()
                {
                    self.subscriptions.seen.remove(&id);
                    let (handle, elements) = (handle.clone(), Vec::new());
                    self.out.event(Event::PoolChanged { handle, elements });
                }
                !self.by_handle.contains_key(handle)
            }
        }
    }

    /// Returns the elements that were last reported for the subscription, but that the home
    /// registrar, which may have just started, does not know yet.
    fn not_yet_known(
        &mut self,
        now: Instant,
        id: SubscriptionId,
        elements: &[PoolElement],
    ) -> Vec<PoolElement> {
        let Some(unconfirmed) = self.subscriptions.unconfirmed.get_mut(&id) else {
            return Vec::new();
        };
        for element in elements {
            unconfirmed.remove(&element.identifier);
        }
        if self.home_since.is_none_or(|since| now >= since + GRACE) {
            self.subscriptions.unconfirmed.remove(&id);
            return Vec::new();
        }
        let missing = |old: &&PoolElement| unconfirmed.contains(&old.identifier);
        let seen = self.subscriptions.seen.get(&id);
        seen.into_iter().flatten().filter(missing).cloned().collect()
    }
}
