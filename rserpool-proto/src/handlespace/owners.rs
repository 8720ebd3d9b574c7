//! Index of the elements by home registrar.

use std::ops::Bound;

use roaring::RoaringBitmap;

use super::{Checksum, ElementKey, HashMap};
use crate::wire::{PoolElementId, PoolHandle, RegistrarId};

/// The elements of each home registrar and their checksum. The sets take a few bits of memory for
/// each element.
#[derive(Debug, Default)]
pub(super) struct Owners(HashMap<RegistrarId, Owned>);

/// The elements of one home registrar. The entry exists as long as the registrar has elements.
#[derive(Debug, Default)]
struct Owned {
    checksum: Checksum,
    elements: RoaringBitmap,
}

impl Owners {
    pub(super) fn add(
        &mut self,
        key: ElementKey,
        handle: &PoolHandle,
        home: RegistrarId,
        identifier: PoolElementId,
    ) {
        let owned = self.0.entry(home).or_default();
        owned.elements.insert(key.0);
        owned.checksum.add(handle, identifier);
    }

    pub(super) fn remove(
        &mut self,
        key: ElementKey,
        handle: &PoolHandle,
        home: RegistrarId,
        identifier: PoolElementId,
    ) {
        if let Some(owned) = self.0.get_mut(&home) {
            owned.elements.remove(key.0);
            owned.checksum.subtract(handle, identifier);
            if owned.elements.is_empty() {
                self.0.remove(&home);
            }
        }
    }

    pub(super) fn checksum(&self, home: RegistrarId) -> Checksum {
        self.0.get(&home).map(|owned| owned.checksum).unwrap_or_default()
    }

    pub(super) fn count(&self, home: RegistrarId) -> usize {
        self.0.get(&home).map_or(0, |owned| owned.elements.len() as usize)
    }

    pub(super) fn owned_by(
        &self,
        home: RegistrarId,
        after: Option<ElementKey>,
    ) -> impl Iterator<Item = ElementKey> {
        let after = after.map_or(Bound::Unbounded, |key| Bound::Excluded(key.0));
        let owned = self.0.get(&home).into_iter();
        owned.flat_map(move |owned| owned.elements.range((after, Bound::Unbounded))).map(ElementKey)
    }
}
