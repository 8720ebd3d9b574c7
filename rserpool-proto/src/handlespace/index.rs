//! Hash index of pools by their handles, and of elements by their identifiers.

use std::hash::BuildHasher;

use foldhash::fast::RandomState;

/// A hash table with linear probing and eight slots in a cache line. In a large table, a look-up
/// costs one cache miss; in a table with separate control bytes, it costs two. Each value is stored
/// with a tag, by which it is found. No value is `u32::MAX`. Several values may have the same tag;
/// the `is_it` argument of the methods tells them apart.
#[derive(Debug, Default)]
pub(super) struct Index<H> {
    /// A power of two slots, or none; at least an eighth of them is vacant.
    slots: Box<[Slot]>,
    len: usize,
    home: H,
}

/// Computes the slot at which the search for a tag begins.
pub(super) trait Home {
    fn home(&self, tag: u32) -> u32;
}

/// Hashes tags with a seed, because remote hosts choose the tags.
#[derive(Debug, Default)]
pub(super) struct Hashed(RandomState);

impl Home for Hashed {
    fn home(&self, tag: u32) -> u32 {
        self.0.hash_one(tag) as u32
    }
}

/// Uses tags unchanged, because these tags are hashes already.
#[derive(Debug, Default)]
pub(super) struct Hashes;

impl Home for Hashes {
    fn home(&self, tag: u32) -> u32 {
        tag
    }
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    tag: u32,
    value: u32,
}

impl Slot {
    const VACANT: Self = Self { tag: 0, value: u32::MAX };

    fn is_vacant(self) -> bool {
        self.value == Self::VACANT.value
    }
}

impl<H: Home> Index<H> {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Returns the slot at which the search begins. The table must have slots.
    fn home(&self, tag: u32) -> usize {
        self.home.home(tag) as usize & (self.slots.len() - 1)
    }

    fn after(&self, slot: usize) -> usize {
        (slot + 1) & (self.slots.len() - 1)
    }

    /// Returns the slot of the value with this tag for which `is_it` is true, or the vacant slot
    /// where it would be inserted. The table must have slots.
    fn search(&self, tag: u32, is_it: impl Fn(u32) -> bool) -> usize {
        let mut at = self.home(tag);
        loop {
            let slot = self.slots[at];
            if slot.is_vacant() || slot.tag == tag && is_it(slot.value) {
                return at;
            }
            at = self.after(at);
        }
    }

    /// Returns the value with this tag for which `is_it` is true.
    pub(super) fn get(&self, tag: u32, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        if self.slots.is_empty() {
            return None;
        }
        let slot = self.slots[self.search(tag, is_it)];
        (!slot.is_vacant()).then_some(slot.value)
    }

    /// Adds a value, unless there is one with this tag for which `is_it` is true. Returns whether
    /// it was added.
    pub(super) fn insert(&mut self, tag: u32, value: u32, is_it: impl Fn(u32) -> bool) -> bool {
        if (self.len + 1) * 8 > self.slots.len() * 7 {
            self.grow();
        }
        let at = self.search(tag, is_it);
        let added = self.slots[at].is_vacant();
        if added {
            self.slots[at] = Slot { tag, value };
            self.len += 1;
        }
        added
    }

    #[cold]
    fn grow(&mut self) {
        self.resize((self.slots.len() * 2).max(4));
    }

    /// Releases memory that is not needed.
    pub(super) fn shrink(&mut self) {
        let size = (self.len * 2).next_power_of_two().max(4);
        if size * 2 < self.slots.len() {
            self.resize(size);
        }
    }

    fn resize(&mut self, size: usize) {
        let slots = vec![Slot::VACANT; size].into_boxed_slice();
        for slot in std::mem::replace(&mut self.slots, slots) {
            if !slot.is_vacant() {
                let at = self.search(slot.tag, |_| false);
                self.slots[at] = slot;
            }
        }
    }

    /// Removes the value with this tag for which `is_it` is true. A search ends at a vacant slot,
    /// so values that it would no longer reach are moved into the vacated slot.
    pub(super) fn remove(&mut self, tag: u32, is_it: impl Fn(u32) -> bool) {
        if self.slots.is_empty() {
            return;
        }
        let mut vacant = self.search(tag, is_it);
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
            if distance(self.home(slot.tag)) >= distance(vacant) {
                self.slots[vacant] = slot;
                vacant = at;
            }
        }
        self.slots[vacant] = Slot::VACANT;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    /// Tests an index with at most `tags` different tags. If there are few tags, most values share
    /// theirs.
    fn what_is_there_is_found_and_nothing_else_is<H: Home + Default>(tags: u32) {
        let rng = &mut StdRng::seed_from_u64(1);
        let (mut index, mut model) = (Index::<H>::default(), HashSet::new());
        let find = |index: &Index<H>, value| index.get(value % tags, |other| other == value);
        for round in 0..20_000 {
            // The ranges are small, so that values recur. The table becomes full, becomes nearly
            // empty, and grows.
            let value = rng.random_range(0..if round < 10_000 { 50 } else { 2000 });
            assert_eq!(find(&index, value).is_some(), model.contains(&value));
            if rng.random() {
                let is_it = |other| other == value;
                assert_eq!(index.insert(value % tags, value, is_it), model.insert(value));
            } else {
                index.remove(value % tags, |other| other == value);
                model.remove(&value);
            }
            assert_eq!(index.len(), model.len());
        }
        for value in 0..2000 {
            assert_eq!(find(&index, value).is_some(), model.contains(&value));
            index.remove(value % tags, |other| other == value);
        }
        assert!(index.len() == 0 && index.slots.iter().all(|slot| slot.is_vacant()));
    }

    #[test]
    fn identifiers() {
        what_is_there_is_found_and_nothing_else_is::<Hashed>(u32::MAX);
    }

    #[test]
    fn hashes_that_several_handles_have() {
        what_is_there_is_found_and_nothing_else_is::<Hashes>(300);
    }
}
