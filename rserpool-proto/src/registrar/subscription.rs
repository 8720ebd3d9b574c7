//! Subscriptions: users that are notified of each change of a pool (the S bit of handle resolution,
//! RFC 5352 sections 2.2.5 and 2.2.6).

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::shares::Limit;
use super::{Registrar, Timer};
use crate::ConnectionId;
use crate::handlespace::{Element, Scope};
use crate::wire::asap::{HandleResolution, HandleResolutionResponse, Resolved};
use crate::wire::{Bytes, ErrorCause, PoolHandle, Ppid};

/// The minimum interval between two notifications about a pool. Not from the RFCs. Each
/// notification has the whole pool.
const INTERVAL: Duration = Duration::from_millis(100);

/// The maximum number of elements in a notification. Not from the RFCs. Of a larger pool, the same
/// elements are always sent, so that none seems to come and go.
const MAX_ELEMENTS: usize = 1024;

/// The maximum number of subscriptions of one connection, and of all connections together. Not from
/// the RFCs.
const MAX_OF_CONNECTION: usize = 64;
const MAX_SUBSCRIPTIONS: usize = 65_536;

/// The subscribers of each pool.
#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    pools: BTreeMap<PoolHandle, Subscribed>,
    by_connection: BTreeMap<ConnectionId, BTreeSet<PoolHandle>>,
    count: usize,
    /// Pools whose subscribers are to be notified now.
    due: BTreeSet<PoolHandle>,
    /// Pools whose subscribers are to be notified at this time, since the last notification was too
    /// recent.
    later: BTreeSet<(Instant, PoolHandle)>,
}

#[derive(Debug)]
struct Subscribed {
    users: BTreeSet<ConnectionId>,
    /// The time at which the subscribers of the pool were last notified.
    told: Instant,
    /// True if the pool has changed and its subscribers have not been notified yet.
    changed: bool,
}

impl Subscriptions {
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// Returns the pools to which a user has subscribed.
    pub(super) fn of(&self, user: ConnectionId) -> impl Iterator<Item = &PoolHandle> {
        self.by_connection.get(&user).into_iter().flatten()
    }

    /// Records that a pool changed, so that its subscribers are notified.
    pub(super) fn note(&mut self, handle: &PoolHandle) {
        if let Some(subscribed) = self.pools.get_mut(handle)
            && !std::mem::replace(&mut subscribed.changed, true)
        {
            self.due.insert(handle.clone());
        }
    }

    fn forget(&mut self, handle: &PoolHandle, subscribed: &Subscribed) {
        if subscribed.changed {
            self.due.remove(handle);
            self.later.remove(&(subscribed.told + INTERVAL, handle.clone()));
        }
    }

    /// Removes all subscriptions of a user, and returns their number.
    pub(super) fn remove_user(&mut self, user: ConnectionId) -> usize {
        let handles = self.by_connection.remove(&user).unwrap_or_default();
        self.count -= handles.len();
        for handle in &handles {
            self.remove_from_pool(handle, user);
        }
        handles.len()
    }

    /// Removes one subscription of a user.
    fn remove(&mut self, handle: &PoolHandle, user: ConnectionId) {
        if let Some(handles) = self.by_connection.get_mut(&user) {
            self.count -= usize::from(handles.remove(handle));
            if handles.is_empty() {
                self.by_connection.remove(&user);
            }
        }
        self.remove_from_pool(handle, user);
    }

    fn remove_from_pool(&mut self, handle: &PoolHandle, user: ConnectionId) {
        if let Some(subscribed) = self.pools.get_mut(handle) {
            subscribed.users.remove(&user);
            if subscribed.users.is_empty()
                && let Some(subscribed) = self.pools.remove(handle)
            {
                self.forget(handle, &subscribed);
            }
        }
    }

    /// Removes all subscriptions to a pool, and returns the subscribers.
    fn remove_pool(&mut self, handle: &PoolHandle) -> BTreeSet<ConnectionId> {
        let Some(subscribed) = self.pools.remove(handle) else { return BTreeSet::new() };
        self.forget(handle, &subscribed);
        for user in &subscribed.users {
            self.count -= 1;
            if let Some(pools) = self.by_connection.get_mut(user) {
                pools.remove(handle);
                if pools.is_empty() {
                    self.by_connection.remove(user);
                }
            }
        }
        subscribed.users
    }
}

impl Registrar {
    /// Subscribes a user to a pool, and answers with all elements of the pool. Returns false if a
    /// subscription is not possible: the caller then handles the request as an ordinary resolution.
    pub(super) fn subscribe(
        &mut self,
        now: Instant,
        from: ConnectionId,
        request: &HandleResolution,
    ) -> bool {
        let handle = &request.pool_handle;
        let Some(host) = self.connections.get(&from).map(|client| client.host) else {
            return false;
        };
        let Some(all) = self.all_of(handle, Scope::of(host)) else { return false };
        if !self.add_subscriber(now, handle, from) {
            return false;
        }
        self.out.send_encoded(from, Ppid::ASAP, all);
        true
    }

    /// Adds a subscriber, and returns whether there was room for it.
    fn add_subscriber(&mut self, now: Instant, handle: &PoolHandle, user: ConnectionId) -> bool {
        let Some(host) = self.connections.get(&user).map(|client| client.host) else {
            return false;
        };
        let pools = self.subscriptions.by_connection.get(&user);
        if pools.is_some_and(|pools| pools.contains(handle)) {
            return true;
        }
        let full = pools.is_some_and(|pools| pools.len() >= MAX_OF_CONNECTION);
        if full || self.subscriptions.count >= MAX_SUBSCRIPTIONS {
            self.hit(Limit::Subscriptions, host);
            return false;
        }
        if !self.takes_subscription(host) {
            return false;
        }
        let subscriptions = &mut self.subscriptions;
        subscriptions.by_connection.entry(user).or_default().insert(handle.clone());
        subscriptions.count += 1;
        let fresh = Subscribed { users: BTreeSet::new(), told: now, changed: false };
        subscriptions.pools.entry(handle.clone()).or_insert(fresh).users.insert(user);
        true
    }

    /// Encodes the elements of a pool, except those whose address has a smaller scope than the
    /// user's (`asker`). Returns `None` if there are no others.
    fn all_of(&self, handle: &PoolHandle, asker: Scope) -> Option<Bytes> {
        let policy = self.handlespace.policy_type(handle)?;
        let members = self.handlespace.members_for(handle, asker).take(MAX_ELEMENTS);
        let elements = members.filter_map(|key| self.handlespace.get(key)).map(Element::encoded);
        let mut elements = elements.peekable();
        elements.peek()?;
        Some(HandleResolutionResponse::encode_pool(true, handle, policy, elements, 0))
    }

    /// Notifies subscribers of changes, at most once per [`INTERVAL`] and pool. Called at the end
    /// of each input.
    pub(super) fn tell_subscribers(&mut self, now: Instant) {
        while let Some((due, _)) = self.subscriptions.later.first()
            && *due <= now
            && let Some((_, handle)) = self.subscriptions.later.pop_first()
        {
            self.subscriptions.due.insert(handle);
        }
        if self.subscriptions.due.is_empty() && self.subscriptions.later.is_empty() {
            return;
        }
        for handle in std::mem::take(&mut self.subscriptions.due) {
            if self.handlespace.is_unknown(&handle) {
                self.end_subscriptions(&handle);
                continue;
            }
            let Some(subscribed) = self.subscriptions.pools.get_mut(&handle) else { continue };
            if now < subscribed.told + INTERVAL {
                self.subscriptions.later.insert((subscribed.told + INTERVAL, handle));
                continue;
            }
            (subscribed.told, subscribed.changed) = (now, false);
            let users = subscribed.users.clone();
            // A message for many users is encoded only once.
            let mut encoded: BTreeMap<Scope, Bytes> = BTreeMap::new();
            for user in users {
                let Some(host) = self.connections.get(&user).map(|client| client.host) else {
                    continue;
                };
                let scope = Scope::of(host);
                if !encoded.contains_key(&scope)
                    && let Some(all) = self.all_of(&handle, scope)
                {
                    encoded.insert(scope, all);
                }
                match encoded.get(&scope) {
                    Some(all) => self.out.send_encoded(user, Ppid::ASAP, all.clone()),
                    None => {
                        self.subscriptions.remove(&handle, user);
                        self.end_subscription(&handle, user);
                    }
                }
            }
        }
        match self.subscriptions.later.first() {
            Some((next, _)) => self.timers.set(Timer::Subscriptions, *next),
            None => self.timers.cancel(Timer::Subscriptions),
        }
    }

    /// Cancels the subscriptions to a pool that does not exist any more, and tells the users. They
    /// have to subscribe again.
    fn end_subscriptions(&mut self, handle: &PoolHandle) {
        for user in self.subscriptions.remove_pool(handle) {
            self.end_subscription(handle, user);
        }
    }

    fn end_subscription(&mut self, handle: &PoolHandle, user: ConnectionId) {
        if let Some(host) = self.connections.get(&user).map(|client| client.host) {
            self.shares.unsubscribe(host, 1);
        }
        let result = Resolved::Error(ErrorCause::UnknownPoolHandle.into());
        let (subscribed, partial, pool_handle) = (false, false, handle.clone());
        self.out.send(user, HandleResolutionResponse { subscribed, partial, pool_handle, result });
    }
}
