//! Users that are told of every change of a pool (the S bit of handle resolution, RFC 5352
//! sections 2.2.5 and 2.2.6).

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::resolution::that_fit;
use super::{Registrar, Timer};
use crate::handlespace::{Element, ElementKey};
use crate::protocol::ConnectionId;
use crate::wire::asap::{HandleResolution, HandleResolutionResponse, Resolved};
use crate::wire::{Bytes, ErrorCause, PoolElement, PoolHandle, Ppid, UserMessage};

/// How often, at the most, a pool's subscribers are told of changes; ours. Each time they are
/// told all of the pool.
const INTERVAL: Duration = Duration::from_millis(100);

/// The most elements that they are told of; ours. Always the same ones, so that none seems to
/// come and go.
const MAX_ELEMENTS: usize = 1024;

/// The most pools that one connection, and all of them together, may have subscribed to; ours.
const MAX_OF_CONNECTION: usize = 64;
const MAX_SUBSCRIPTIONS: usize = 65_536;

/// Who is told of what.
#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    pools: BTreeMap<PoolHandle, Subscribed>,
    by_connection: BTreeMap<ConnectionId, BTreeSet<PoolHandle>>,
    count: usize,
    /// Pools that have changed and whose subscribers are yet to be told.
    changed: BTreeSet<PoolHandle>,
}

#[derive(Debug)]
struct Subscribed {
    users: BTreeSet<ConnectionId>,
    /// When they were told last.
    told: Instant,
}

impl Subscriptions {
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// Whether anybody is told of a pool.
    pub(super) fn has(&self, handle: &PoolHandle) -> bool {
        self.pools.contains_key(handle)
    }

    /// A pool changed.
    pub(super) fn note(&mut self, handle: &PoolHandle) {
        if self.has(handle) && !self.changed.contains(handle) {
            self.changed.insert(handle.clone());
        }
    }

    /// Whether there was room.
    fn add(&mut self, now: Instant, handle: &PoolHandle, user: ConnectionId) -> bool {
        let pools = self.by_connection.entry(user).or_default();
        if !pools.contains(handle) {
            if pools.len() >= MAX_OF_CONNECTION || self.count >= MAX_SUBSCRIPTIONS {
                return false;
            }
            let handle = handle.clone();
            pools.insert(handle.clone());
            self.count += 1;
            let fresh = Subscribed { users: BTreeSet::new(), told: now };
            self.pools.entry(handle).or_insert(fresh).users.insert(user);
        }
        true
    }

    /// A user is gone.
    pub(super) fn remove_user(&mut self, user: ConnectionId) {
        for handle in self.by_connection.remove(&user).into_iter().flatten() {
            self.count -= 1;
            if let Some(subscribed) = self.pools.get_mut(&handle) {
                subscribed.users.remove(&user);
                if subscribed.users.is_empty() {
                    self.pools.remove(&handle);
                    self.changed.remove(&handle);
                }
            }
        }
    }

    /// A pool is gone, and with it all subscriptions to it. Who had them.
    fn remove_pool(&mut self, handle: &PoolHandle) -> BTreeSet<ConnectionId> {
        let users = self.pools.remove(handle).map(|subscribed| subscribed.users);
        let users = users.unwrap_or_default();
        for user in &users {
            self.count -= 1;
            if let Some(pools) = self.by_connection.get_mut(user) {
                pools.remove(handle);
                if pools.is_empty() {
                    self.by_connection.remove(user);
                }
            }
        }
        users
    }
}

impl Registrar {
    /// The element at `key` is about to have these values.
    pub(super) fn note_change(&mut self, key: ElementKey, value: &PoolElement) {
        let Some(handle) = self.handlespace.handle_of(key) else { return };
        if !self.subscriptions.has(handle) {
            return;
        }
        let old = self.handlespace.get(key).map(|element| element.value());
        let differs = old.is_none_or(|old| {
            old.policy != value.policy || old.user_transport != value.user_transport
        });
        if differs {
            self.subscriptions.note(handle);
        }
    }

    /// Answers who wants to be told of changes, and remembers that. False where that is not to be
    /// had: then it is a resolution like all others.
    pub(super) fn subscribe(
        &mut self,
        now: Instant,
        from: ConnectionId,
        request: &HandleResolution,
    ) -> bool {
        let handle = &request.pool_handle;
        if self.handlespace.is_unknown(handle) || !self.subscriptions.add(now, handle, from) {
            return false;
        }
        if let Some(all) = self.all_of(handle) {
            self.out.send_encoded(from, UserMessage::new(Ppid::ASAP, all));
        }
        true
    }

    /// All of a pool, as its subscribers are told.
    fn all_of(&self, handle: &PoolHandle) -> Option<Bytes> {
        let policy = self.handlespace.policy_type(handle)?;
        let members = self.handlespace.members(handle).take(MAX_ELEMENTS);
        let elements = members.filter_map(|key| self.handlespace.get(key)).map(Element::encoded);
        let elements = that_fit(elements);
        let answer = HandleResolutionResponse::encode_pool(true, handle, policy, elements);
        Some(answer.expect("elements are chosen to fit"))
    }

    /// Tells subscribers of what has changed, but not too often. Every input ends with this.
    pub(super) fn tell_subscribers(&mut self, now: Instant) {
        if self.subscriptions.changed.is_empty() {
            return;
        }
        for handle in std::mem::take(&mut self.subscriptions.changed) {
            let Some(subscribed) = self.subscriptions.pools.get_mut(&handle) else { continue };
            if self.handlespace.is_unknown(&handle) {
                self.end_subscriptions(&handle);
                continue;
            }
            if now < subscribed.told + INTERVAL {
                self.subscriptions.changed.insert(handle);
                continue;
            }
            subscribed.told = now;
            let users = subscribed.users.clone();
            let Some(all) = self.all_of(&handle) else { continue };
            for user in users {
                self.out.send_encoded(user, UserMessage::new(Ppid::ASAP, all.clone()));
            }
        }
        let changed = self.subscriptions.changed.iter();
        let due = changed.filter_map(|handle| self.subscriptions.pools.get(handle));
        match due.map(|subscribed| subscribed.told + INTERVAL).min() {
            Some(next) => self.timers.set(Timer::Subscriptions, next),
            None => self.timers.cancel(Timer::Subscriptions),
        }
    }

    /// There is nothing to tell of a pool that is gone; its users have to ask anew.
    fn end_subscriptions(&mut self, handle: &PoolHandle) {
        for user in self.subscriptions.remove_pool(handle) {
            let result = Resolved::Error(ErrorCause::UnknownPoolHandle.into());
            let (pool_handle, subscribed) = (handle.clone(), false);
            let response = HandleResolutionResponse { subscribed, pool_handle, result };
            self.out.send(user, response).expect("an error is short");
        }
    }
}
