//! What a pool user remembers of resolutions (RFC 5352 section 3.3), and its own choice among
//! the elements (RFC 5356, "Pool User Considerations").

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rand::Rng;

use crate::policy::{Member, Policies, Selector, Wanted};
use crate::wire::{PolicyParameters, PolicyType, PoolElement, PoolElementId, PoolHandle};

#[derive(Debug)]
pub(super) struct Cache {
    policies: Policies,
    capacity: usize,
    entries: BTreeMap<PoolHandle, Entry>,
}

#[derive(Debug)]
pub(super) struct Entry {
    resolved: Instant,
    selector: Box<dyn Selector>,
    /// By member; none where the element was found to be unreachable.
    elements: Vec<Option<PoolElement>>,
}

impl Cache {
    pub(super) fn new(policies: Policies, capacity: usize) -> Self {
        Self { policies, capacity, entries: BTreeMap::new() }
    }

    /// What there is to remember of a registrar's answer.
    pub(super) fn entry(
        &self,
        now: Instant,
        policy: Option<PolicyParameters>,
        elements: Vec<PoolElement>,
    ) -> Entry {
        // No policy means round robin (RFC 5352 section 2.2.6).
        let policy_type =
            policy.map_or(PolicyType::ROUND_ROBIN, |parameters| parameters.policy_type());
        let mut selector = self.policies.new_selector(policy_type);
        let elements: Vec<_> = elements
            .into_iter()
            .filter(|element| {
                element.policy.policy_type() == policy_type
                    && self.policies.validate(&element.policy).is_ok()
            })
            .map(Some)
            .collect();
        for (member, element) in (0..).map(Member).zip(elements.iter().flatten()) {
            selector.insert(member, &element.policy);
        }
        Entry { resolved: now, selector, elements }
    }

    pub(super) fn keep(&mut self, handle: PoolHandle, entry: Entry) {
        if self.capacity > 0 {
            self.make_room(&handle);
            self.entries.insert(handle.clone(), entry);
        }
    }

    fn make_room(&mut self, handle: &PoolHandle) {
        if self.entries.len() < self.capacity || self.entries.contains_key(handle) {
            return;
        }
        let oldest = self.entries.iter().min_by_key(|(_, entry)| entry.resolved);
        if let Some(oldest) = oldest.map(|(handle, _)| handle.clone()) {
            self.entries.remove(&oldest);
        }
    }

    /// The elements of a pool in the order in which to try them, if the answer is not older
    /// than `max_age`.
    pub(super) fn get(
        &mut self,
        handle: &PoolHandle,
        now: Instant,
        max_age: Duration,
        rng: &mut dyn Rng,
    ) -> Option<Vec<PoolElement>> {
        let entry = self.entries.get_mut(handle)?;
        if max_age.is_zero() || now.saturating_duration_since(entry.resolved) > max_age {
            return None;
        }
        Some(entry.select(rng)).filter(|selected| !selected.is_empty())
    }

    /// The elements of a pool in the order in which to try them, if the answer came before then.
    pub(super) fn recall(
        &mut self,
        handle: &PoolHandle,
        before: Instant,
        rng: &mut dyn Rng,
    ) -> Option<Vec<PoolElement>> {
        let entry = self.entries.get_mut(handle).filter(|entry| entry.resolved < before)?;
        Some(entry.select(rng)).filter(|selected| !selected.is_empty())
    }

    pub(super) fn remove(&mut self, handle: &PoolHandle, identifier: PoolElementId) {
        let Some(entry) = self.entries.get_mut(handle) else { return };
        for (member, slot) in (0..).map(Member).zip(&mut entry.elements) {
            if slot.as_ref().is_some_and(|element| element.identifier == identifier) {
                *slot = None;
                entry.selector.remove(member);
            }
        }
    }

    pub(super) fn purge(&mut self, handle: &PoolHandle) {
        self.entries.remove(handle);
    }
}

impl Entry {
    /// The elements in the order in which to try them.
    pub(super) fn select(&mut self, rng: &mut dyn Rng) -> Vec<PoolElement> {
        let mut selected = Vec::new();
        self.selector.select(Wanted::items(self.elements.len()), rng, &mut selected);
        selected
            .iter()
            .filter_map(|Member(index)| self.elements.get(*index as usize)?.clone())
            .collect()
    }
}
