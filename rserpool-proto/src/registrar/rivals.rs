//! Pools with the same handle that were created on different registrars, with different policies or
//! transports.
//!
//! A pool has one policy and one transport (RFC 5352 section 3.1), but RFC 5353 section 3.3.1 has
//! each registrar add the elements that its peers announce. So elements that do not fit the pool
//! are kept beside it, and all registrars decide by the same rule which pool stays: the one with
//! more elements or, if both have the same number, the one that has the home registrar with the
//! largest identifier. The elements of the other pool are removed by their home registrars, which
//! tell them so.

use std::collections::BTreeMap;
use std::time::Instant;

use super::Registrar;
use crate::handlespace::{PoolKind, Scope};
use crate::wire::{PoolElement, PoolElementId, PoolHandle, RegistrarId};

/// The maximum number of rivals (elements that do not fit their pools) that are kept. Not from the
/// RFCs: bounds the memory to 16 MiB.
const MAX_RIVALS: usize = 4096;

/// The rivals: elements of peers that do not fit their pools and are kept beside them.
#[derive(Debug, Default)]
pub(super) struct Rivals {
    pools: BTreeMap<PoolHandle, Beside>,
    count: usize,
}

/// The rivals of one pool: elements of peers that have another policy or transport.
#[derive(Debug, Default)]
struct Beside {
    elements: BTreeMap<PoolElementId, PoolElement>,
    /// The number of rivals of each kind (policy and transport) and home registrar.
    kinds: BTreeMap<PoolKind, BTreeMap<RegistrarId, usize>>,
}

/// The strength of a pool: the number of its elements, and the largest identifier of their home
/// registrars. Of two pools with one handle, the one with the greater strength stays.
type Strength = (usize, RegistrarId);

impl Beside {
    fn insert(&mut self, value: PoolElement) {
        self.remove(value.identifier);
        let homes = self.kinds.entry(PoolKind::of(&value)).or_default();
        *homes.entry(value.home_registrar).or_default() += 1;
        self.elements.insert(value.identifier, value);
    }

    fn remove(&mut self, identifier: PoolElementId) {
        let Some(value) = self.elements.remove(&identifier) else { return };
        let kind = PoolKind::of(&value);
        let Some(homes) = self.kinds.get_mut(&kind) else { return };
        if let Some(count) = homes.get_mut(&value.home_registrar) {
            *count -= 1;
            if *count == 0 {
                homes.remove(&value.home_registrar);
            }
        }
        if homes.is_empty() {
            self.kinds.remove(&kind);
        }
    }

    fn strength(&self, kind: PoolKind) -> Option<Strength> {
        let homes = self.kinds.get(&kind)?;
        Some((homes.values().sum(), *homes.last_key_value()?.0))
    }
}

impl Rivals {
    pub(super) fn len(&self) -> usize {
        self.count
    }

    fn insert(&mut self, handle: &PoolHandle, value: PoolElement) {
        let present = self.pools.get(handle);
        let known = present.is_some_and(|pool| pool.elements.contains_key(&value.identifier));
        if known || self.count < MAX_RIVALS {
            self.count += usize::from(!known);
            self.pools.entry(handle.clone()).or_default().insert(value);
        }
    }

    /// Removes a rival (an element kept beside its pool) that its home registrar `home` deleted.
    pub(super) fn remove(
        &mut self,
        handle: &PoolHandle,
        identifier: PoolElementId,
        home: RegistrarId,
    ) {
        let Some(pool) = self.pools.get_mut(handle) else { return };
        if pool.elements.get(&identifier).is_some_and(|element| element.home_registrar == home) {
            pool.remove(identifier);
            self.count -= 1;
            if pool.elements.is_empty() {
                self.pools.remove(handle);
            }
        }
    }

    /// Forgets all rivals (elements kept beside their pools) whose home registrar is `home`.
    pub(super) fn forget_home(&mut self, home: RegistrarId) {
        if self.count > 0 {
            let count = &mut self.count;
            self.pools.retain(|_, pool| {
                let its = pool.elements.values().filter(|value| value.home_registrar == home);
                for identifier in its.map(|value| value.identifier).collect::<Vec<_>>() {
                    pool.remove(identifier);
                    *count -= 1;
                }
                !pool.elements.is_empty()
            });
        }
    }

    fn take(&mut self, handle: &PoolHandle) -> Vec<PoolElement> {
        let pool = self.pools.remove(handle).unwrap_or_default();
        self.count -= pool.elements.len();
        pool.elements.into_values().collect()
    }

    /// Returns the strength of the pool that the rivals of this kind would form.
    fn strength(&self, handle: &PoolHandle, kind: PoolKind) -> Option<Strength> {
        self.pools.get(handle)?.strength(kind)
    }

    /// Returns the kind of the strongest pool that the rivals of this handle would form.
    fn strongest(&self, handle: &PoolHandle) -> Option<PoolKind> {
        let pool = self.pools.get(handle)?;
        pool.kinds.keys().copied().max_by_key(|kind| (pool.strength(*kind), *kind))
    }
}

impl Registrar {
    /// Keeps a rival: an element of a peer that does not fit its pool. Replaces the pool by the
    /// rivals of the same kind (policy and transport) if there are more of them than elements in
    /// the pool, or equally many and one of their home registrars has the largest identifier.
    pub(super) fn add_rival(&mut self, now: Instant, handle: &PoolHandle, value: PoolElement) {
        // An element that would not be accepted does not count.
        if self.handlespace.could_take(handle, &value).is_err() {
            return;
        }
        let kind = PoolKind::of(&value);
        self.rivals.insert(handle, value);
        let Some((count, home)) = self.rivals.strength(handle, kind) else { return };
        // Other registrars do not know drained elements, and have to come to the same result.
        let members: Vec<_> = self.handlespace.members_for(handle, Scope::Host).collect();
        let stays = match count.cmp(&members.len()) {
            std::cmp::Ordering::Less => true,
            std::cmp::Ordering::Greater => false,
            std::cmp::Ordering::Equal => {
                members.iter().filter_map(|key| self.home_of(*key)).max() > Some(home)
            }
        };
        if !stays {
            self.clear_pool(handle);
            self.admit_rivals(now, handle);
        }
    }

    /// Creates a pool anew after it was removed, from the strongest kind of the elements that were
    /// kept beside it.
    pub(super) fn admit_rivals(&mut self, now: Instant, handle: &PoolHandle) {
        let Some(kind) = self.rivals.strongest(handle) else { return };
        for element in self.rivals.take(handle) {
            let home = element.home_registrar;
            if PoolKind::of(&element) == kind {
                self.take_in(now, home, self.peers.host_of(home), handle, element);
            } else {
                self.rivals.insert(handle, element);
            }
        }
    }
}
