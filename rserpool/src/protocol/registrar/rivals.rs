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
        let elements = self.pools.entry(handle.clone()).or_default();
        let known = elements.contains_key(&value.identifier);
        if known || self.count < MAX_RIVALS {
            self.count += usize::from(!known);
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
        self.retain(Some(handle), |element| {
            element.identifier != identifier || element.home_registrar != home
        });
    }

    /// A registrar is gone.
    pub(super) fn forget_home(&mut self, home: RegistrarId) {
        if self.count > 0 {
            self.retain(None, |element| element.home_registrar != home);
        }
    }

    fn retain(&mut self, handle: Option<&PoolHandle>, keep: impl Fn(&PoolElement) -> bool) {
        let count = &mut self.count;
        self.pools.retain(|its, elements| {
            if handle.is_none_or(|handle| handle == its) {
                let before = elements.len();
                elements.retain(|_, element| keep(element));
                *count -= before - elements.len();
            }
            !elements.is_empty()
        });
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
