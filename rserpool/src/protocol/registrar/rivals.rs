//! Pools of one handle that came to be apart, with different policies or transports.
//!
//! A pool has one of each (RFC 5352 section 3.1), and RFC 5353 section 3.3.1 has each registrar add
//! what another tells of. So elements that do not fit the pool are kept beside it, and all
//! registrars decide alike which pool it is: the one with more elements, or where they are as
//! many, the one that has the home registrar with the largest identifier. The elements of the
//! other are removed by their home registrars, which tell them so.

use std::collections::BTreeMap;
use std::time::Instant;

use super::Registrar;
use crate::handlespace::PoolKind;
use crate::wire::{PoolElement, PoolElementId, PoolHandle, RegistrarId};

/// The most elements that are kept beside their pools. Not from the RFCs: 16 MiB at most.
const MAX_RIVALS: usize = 4096;

/// The elements that do not fit their pools.
#[derive(Debug, Default)]
pub(super) struct Rivals {
    pools: BTreeMap<PoolHandle, BTreeMap<PoolElementId, PoolElement>>,
    count: usize,
}

impl Rivals {
    fn insert(&mut self, handle: &PoolHandle, value: PoolElement) {
        let present = self.pools.get(handle);
        let known = present.is_some_and(|elements| elements.contains_key(&value.identifier));
        if known || self.count < MAX_RIVALS {
            self.count += usize::from(!known);
            let elements = self.pools.entry(handle.clone()).or_default();
            elements.insert(value.identifier, value);
        }
    }

    /// An element is gone that `home` had told of.
    pub(super) fn remove(
        &mut self,
        handle: &PoolHandle,
        identifier: PoolElementId,
        home: RegistrarId,
    ) {
        let Some(elements) = self.pools.get_mut(handle) else { return };
        if elements.get(&identifier).is_some_and(|element| element.home_registrar == home) {
            elements.remove(&identifier);
            self.count -= 1;
            if elements.is_empty() {
                self.pools.remove(handle);
            }
        }
    }

    /// A registrar is gone.
    pub(super) fn forget_home(&mut self, home: RegistrarId) {
        if self.count > 0 {
            let count = &mut self.count;
            self.pools.retain(|_, elements| {
                let before = elements.len();
                elements.retain(|_, element| element.home_registrar != home);
                *count -= before - elements.len();
                !elements.is_empty()
            });
        }
    }

    fn take(&mut self, handle: &PoolHandle) -> Vec<PoolElement> {
        let elements = self.pools.remove(handle).unwrap_or_default();
        self.count -= elements.len();
        elements.into_values().collect()
    }

    /// The kind that most of the elements beside this pool have, and how many they are.
    fn strongest(&self, handle: &PoolHandle) -> Option<(PoolKind, usize, RegistrarId)> {
        let mut kinds: BTreeMap<PoolKind, (usize, RegistrarId)> = BTreeMap::new();
        for element in self.pools.get(handle)?.values() {
            let entry = kinds.entry(PoolKind::of(element)).or_insert((0, RegistrarId(0)));
            entry.0 += 1;
            entry.1 = entry.1.max(element.home_registrar);
        }
        let strongest = kinds.into_iter().max_by_key(|(kind, strength)| (*strength, *kind));
        strongest.map(|(kind, (count, home))| (kind, count, home))
    }
}

impl Registrar {
    /// A peer tells of an element that does not fit its pool.
    pub(super) fn add_rival(&mut self, now: Instant, handle: &PoolHandle, value: PoolElement) {
        // What would not be taken has no say.
        if self.handlespace.could_take(handle, &value).is_err() {
            return;
        }
        self.rivals.insert(handle, value);
        let Some((_, count, home)) = self.rivals.strongest(handle) else { return };
        let size = self.handlespace.pool_size(handle);
        let stays = match count.cmp(&size) {
            std::cmp::Ordering::Less => true,
            std::cmp::Ordering::Greater => false,
            std::cmp::Ordering::Equal => {
                let members = self.handlespace.members(handle);
                members.filter_map(|key| self.home_of(key)).max() > Some(home)
            }
        };
        if !stays {
            self.clear_pool(handle);
            self.admit_rivals(now, handle);
        }
    }

    /// A pool is gone: what was kept beside it takes its place.
    pub(super) fn admit_rivals(&mut self, now: Instant, handle: &PoolHandle) {
        let Some((kind, ..)) = self.rivals.strongest(handle) else { return };
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
