//! The pool user's cache of resolutions (RFC 5352 section 3.3), and its own selection among the
//! elements (RFC 5356, "Pool User Considerations").

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::policy::{Member, Policies, RandomSource, Selector, Wanted};
use crate::wire::{PolicyParameters, PolicyType, PoolElement, PoolElementId, PoolHandle};

#[derive(Debug)]
pub(super) struct Cache {
    policies: Policies,
    capacity: usize,
    entries: BTreeMap<PoolHandle, Entry>,
}

/// A registrar's answer in the cache. The first use returns the answer unchanged, because the
/// registrar has selected its elements already, and takes other users into account. For later uses,
/// the policy selects, beginning with the elements that follow those of the answer.
#[derive(Debug)]
pub(super) struct Entry {
    resolved: Instant,
    /// The elements of the answer, indexed by member number; `None` if the element was found to be
    /// unreachable.
    elements: Vec<Option<PoolElement>>,
    used: bool,
    selector: Box<dyn Selector>,
}

impl Cache {
    pub(super) fn new(policies: Policies, capacity: usize) -> Self {
        Self { policies, capacity, entries: BTreeMap::new() }
    }

    /// Creates the cache entry of a registrar's answer; `complete` is true if the answer has all
    /// elements of the pool.
    pub(super) fn entry(
        &self,
        now: Instant,
        policy: Option<PolicyParameters>,
        elements: Vec<PoolElement>,
        complete: bool,
        rng: &mut RandomSource,
    ) -> Entry {
        let mut policy_type = match policy {
            Some(parameters) => parameters.policy_type(),
            // An answer without a policy means round robin, whatever policy its elements have (RFC
            // 5352 section 2.2.6).
            None => PolicyType::ROUND_ROBIN,
        };
        let has_values = |element: &PoolElement| {
            let parameters = &element.policy;
            parameters.policy_type() == policy_type && self.policies.validate(parameters).is_ok()
        };
        let no_values = [PolicyType::ROUND_ROBIN, PolicyType::RANDOM];
        if !no_values.contains(&policy_type) && !elements.iter().all(has_values) {
            policy_type = PolicyType::ROUND_ROBIN;
        }
        let mut selector = self.policies.new_selector(policy_type);
        let members: Vec<_> = (0..).map(Member).take(elements.len()).collect();
        for (member, element) in members.iter().zip(&elements) {
            selector.insert(*member, &element.policy);
        }
        selector.resume(&members, complete, rng);
        let elements = elements.into_iter().map(Some).collect();
        Entry { resolved: now, elements, used: false, selector }
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

    /// Returns the elements of a pool in the order in which to try them, if the answer is not older
    /// than `max_age`.
    pub(super) fn get(
        &mut self,
        handle: &PoolHandle,
        now: Instant,
        max_age: Duration,
        rng: &mut RandomSource,
    ) -> Option<Vec<PoolElement>> {
        let entry = self.entries.get_mut(handle)?;
        if max_age.is_zero() || now.saturating_duration_since(entry.resolved) > max_age {
            return None;
        }
        Some(entry.select(rng)).filter(|selected| !selected.is_empty())
    }

    /// Returns the elements of a pool in the order in which to try them, if the answer was received
    /// before `before`.
    pub(super) fn recall(
        &mut self,
        handle: &PoolHandle,
        before: Instant,
        rng: &mut RandomSource,
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
    /// Returns the elements in the order in which to try them.
    pub(super) fn select(&mut self, rng: &mut RandomSource) -> Vec<PoolElement> {
        if !std::mem::replace(&mut self.used, true) {
            return self.elements.iter().flatten().cloned().collect();
        }
        let mut selected = Vec::new();
        self.selector.select(Wanted::items(self.elements.len()), rng, &mut selected);
        selected
            .iter()
            .filter_map(|Member(index)| self.elements.get(*index as usize)?.clone())
            .collect()
    }
}
