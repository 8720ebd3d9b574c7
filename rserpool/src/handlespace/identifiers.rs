//! The elements of a pool by their identifiers.

use std::hash::BuildHasher;

use foldhash::fast::RandomState;

use super::ElementKey;
use crate::wire::PoolElementId;

/// A hash table with linear probing, eight slots in a line of the cache: in a large pool each
/// look-up has to wait for memory once, where a table that keeps its control bytes apart waits
/// twice. The hash is seeded, since identifiers come from outside.
#[derive(Debug, Default)]
pub(super) struct Identifiers {
    /// A power of two of them, or none; at least an eighth is vacant.
    slots: Box<[Slot]>,
    len: usize,
    hasher: RandomState,
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    identifier: PoolElementId,
    key: ElementKey,
}

impl Slot {
    const VACANT: Self = Self { identifier: PoolElementId(0), key: ElementKey(u32::MAX) };

    fn is_vacant(self) -> bool {
        self.key == Self::VACANT.key
    }
}

impl Identifiers {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Where the search for an identifier begins. There must be slots.
    fn home(&self, identifier: PoolElementId) -> usize {
        self.hasher.hash_one(identifier) as usize & (self.slots.len() - 1)
    }

    fn after(&self, slot: usize) -> usize {
        (slot + 1) & (self.slots.len() - 1)
    }

    /// The slot of the identifier, or the vacant one where it would be.
    fn search(&self, identifier: PoolElementId) -> usize {
        let mut at = self.home(identifier);
        while !self.slots[at].is_vacant() && self.slots[at].identifier != identifier {
            at = self.after(at);
        }
        at
    }

    pub(super) fn get(&self, identifier: PoolElementId) -> Option<ElementKey> {
        if self.slots.is_empty() {
            return None;
        }
        let slot = self.slots[self.search(identifier)];
        (!slot.is_vacant()).then_some(slot.key)
    }

    /// The identifier must not be there.
    pub(super) fn insert(&mut self, identifier: PoolElementId, key: ElementKey) {
        if (self.len + 1) * 8 > self.slots.len() * 7 {
            self.grow();
        }
        let at = self.search(identifier);
        assert!(self.slots[at].is_vacant(), "an element of that identifier");
        self.slots[at] = Slot { identifier, key };
        self.len += 1;
    }

    #[cold]
    fn grow(&mut self) {
        let slots = vec![Slot::VACANT; (self.slots.len() * 2).max(4)].into_boxed_slice();
        for slot in std::mem::replace(&mut self.slots, slots) {
            if !slot.is_vacant() {
                let at = self.search(slot.identifier);
                self.slots[at] = slot;
            }
        }
    }

    /// Removes the identifier, if it is there, and moves up those that would not be found beyond
    /// a vacant slot.
    pub(super) fn remove(&mut self, identifier: PoolElementId) {
        if self.slots.is_empty() {
            return;
        }
        let mut vacant = self.search(identifier);
        if self.slots[vacant].is_vacant() {
            return;
        }
        self.len -= 1;
        let mut at = vacant;
        loop {
            at = self.after(at);
            let slot = self.slots[at];
            if slot.is_vacant() {
                break;
            }
            let distance = |from: usize| at.wrapping_sub(from) & (self.slots.len() - 1);
            if distance(self.home(slot.identifier)) >= distance(vacant) {
                self.slots[vacant] = slot;
                vacant = at;
            }
        }
        self.slots[vacant] = Slot::VACANT;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    #[test]
    fn what_is_there_is_found_and_nothing_else() {
        let rng = &mut StdRng::seed_from_u64(1);
        let (mut table, mut model) = (Identifiers::default(), HashMap::new());
        for round in 0..20_000 {
            // Few enough to meet again, and tables that are full, nearly empty, and grow.
            let most = if round < 10_000 { 50 } else { 2000 };
            let identifier = PoolElementId(rng.random_range(0..most));
            assert_eq!(table.get(identifier), model.get(&identifier).copied());
            if model.remove(&identifier).is_some() {
                table.remove(identifier);
            } else {
                table.remove(identifier);
                let key = ElementKey(round);
                table.insert(identifier, key);
                model.insert(identifier, key);
            }
            assert_eq!(table.len(), model.len());
        }
        for identifier in (0..2000).map(PoolElementId) {
            assert_eq!(table.get(identifier), model.remove(&identifier));
            table.remove(identifier);
        }
        assert!(table.len() == 0 && table.slots.iter().all(|slot| slot.is_vacant()));
    }
}
