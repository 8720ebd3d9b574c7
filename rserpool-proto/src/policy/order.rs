//! Policies that order the elements by a key.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::sync::Arc;

use super::{
    InvalidPolicy, Member, RandomSource, Rank, SelectionPolicy, Selector, Wanted, require_words,
};
use crate::wire::{PolicyParameters, PolicyType};

/// A policy that orders the elements of a pool: the smallest key first, round robin among
/// equal keys. Wrapped into [`ByOrder`] it is a [`SelectionPolicy`].
pub trait Order: fmt::Debug + Send + Sync + 'static {
    /// Returns the number of the policy.
    fn policy_type(&self) -> PolicyType;

    /// Returns the number of 32-bit words of parameters that the key needs. Elements with fewer are
    /// refused. Default: 0.
    fn words(&self) -> usize {
        0
    }

    /// Returns the sort key of an element with `parameters`.
    fn key(&self, parameters: &PolicyParameters) -> u64;

    /// Returns the amount that each selection adds to the element's key until it registers again.
    /// Default: 0.
    fn degradation(&self, _parameters: &PolicyParameters) -> u32 {
        0
    }

    /// Returns the number of elements of an answer that count as selected (MaxIncrement in rsplib).
    /// Selected elements degrade, or move behind those with the same key. Default: 1, because pool
    /// users use the first element. The next answer then starts one element further (round robin:
    /// RFC 5356 section 4.1.2).
    fn max_increment(&self) -> usize {
        1
    }
}

/// Turns an [`Order`] into a [`SelectionPolicy`]. In a pool of k different keys, adding, removing
/// or changing an element costs O(log k). A selection of n elements costs O(n + log k), and O(log
/// k) for each element whose key degrades. If all keys are equal, as in round robin, a selection
/// costs O(n) and everything else O(1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ByOrder<O>(pub O);

impl<O: Order> SelectionPolicy for ByOrder<O> {
    fn policy_type(&self) -> PolicyType {
        self.0.policy_type()
    }

    fn validate(&self, parameters: &PolicyParameters) -> Result<(), InvalidPolicy> {
        require_words(self.0.words(), parameters)
    }

    fn new_selector(self: Arc<Self>) -> Box<dyn Selector> {
        Box::new(OrderSelector { policy: self, rings: Rings::default(), degradations: Vec::new() })
    }
}

#[derive(Debug)]
struct OrderSelector<O> {
    policy: Arc<ByOrder<O>>,
    rings: Rings,
    /// The degradation of each member, indexed by member number; members beyond the end have
    /// degradation 0.
    degradations: Vec<u32>,
}

impl<O: Order> OrderSelector<O> {
    fn degradation(&self, member: Member) -> u32 {
        self.degradations.get(member.0 as usize).copied().unwrap_or(0)
    }

    fn set_degradation(&mut self, member: Member, degradation: u32) {
        let index = member.0 as usize;
        if index >= self.degradations.len() {
            if degradation == 0 {
                return;
            }
            self.degradations.resize(index + 1, 0);
        }
        self.degradations[index] = degradation;
    }
}

impl<O: Order> Selector for OrderSelector<O> {
    fn insert(&mut self, member: Member, parameters: &PolicyParameters) {
        self.set_degradation(member, self.policy.0.degradation(parameters));
        self.rings.append(member.0, self.policy.0.key(parameters));
    }

    fn update(&mut self, member: Member, parameters: &PolicyParameters) {
        self.set_degradation(member, self.policy.0.degradation(parameters));
        let key = self.policy.0.key(parameters);
        // An element that registers again with the same key keeps its turn.
        if !self.rings.has(member.0, key) {
            self.rings.remove(member.0);
            self.rings.append(member.0, key);
        }
    }

    fn remove(&mut self, member: Member) {
        self.rings.remove(member.0);
    }

    fn select(&mut self, wanted: Wanted, _: &mut RandomSource, selected: &mut Vec<Member>) {
        let first = selected.len();
        selected.extend(self.rings.iter().take(wanted.items).map(Member));
        let increment = wanted.max_increment.unwrap_or_else(|| self.policy.0.max_increment());
        for member in selected[first..].iter().take(increment) {
            self.count(*member);
        }
    }

    fn resume(&mut self, order: &[Member], _: bool, _: &mut RandomSource) {
        // The registrar knows which elements it selected before, and which may be unreachable. So
        // its order takes precedence: an element's key becomes at least that of the elements before
        // it.
        let mut worst = 0;
        for member in order {
            let Some(key) = self.rings.key(member.0) else { continue };
            worst = worst.max(key);
            self.rings.remove(member.0);
            self.rings.append(member.0, worst);
        }
        for member in order.iter().take(self.policy.0.max_increment()) {
            self.count(*member);
        }
    }

    fn fork(&self) -> Option<Box<dyn Selector>> {
        Some(Box::new(Self {
            policy: Arc::clone(&self.policy),
            rings: self.rings.clone(),
            degradations: self.degradations.clone(),
        }))
    }

    fn rank(&self, member: Member) -> Option<Rank> {
        self.rings.key(member.0).map(Rank::Key)
    }
}

impl<O: Order> OrderSelector<O> {
    /// Counts a selection of the member: increases its key by its degradation or, without
    /// degradation, moves the member to the end of its ring.
    fn count(&mut self, member: Member) {
        match self.degradation(member) {
            0 => self.rings.move_to_end(member.0),
            degradation => {
                let Some(key) = self.rings.key(member.0) else { return };
                self.rings.remove(member.0);
                self.rings.append(member.0, key.saturating_add(degradation.into()));
            }
        }
    }
}

/// Members in the order of their keys. Members with the same key form a ring, in the order in which
/// they were appended.
#[derive(Debug, Clone, Default)]
struct Rings {
    heads: Heads,
    /// The place of each member, indexed by member number.
    places: Vec<Place>,
}

/// A member's place in its ring.
#[derive(Debug, Clone, Copy)]
struct Place {
    key: u64,
    next: u32,
    previous: u32,
}

impl Place {
    /// The place of a member that is in no ring. No member has the number `u32::MAX`, because pools
    /// are smaller.
    const NONE: Self = Self { key: 0, next: u32::MAX, previous: u32::MAX };
}

/// The first member of each ring, in the order of the keys. The first ring's head is stored inline,
/// because most selections need no other, and because there is only one ring if all members have
/// the same key.
#[derive(Debug, Clone, Default)]
struct Heads {
    first: Option<(u64, u32)>,
    others: BTreeMap<u64, u32>,
}

impl Heads {
    /// Returns the key of all members, if there is only one key.
    fn only(&self) -> Option<u64> {
        self.first.map(|(key, _)| key).filter(|_| self.others.is_empty())
    }

    fn get_mut(&mut self, key: u64) -> Option<&mut u32> {
        match &mut self.first {
            Some((first, head)) if *first == key => Some(head),
            _ => self.others.get_mut(&key),
        }
    }

    /// Adds a ring with the given head. If there is already a ring of that key, leaves it unchanged
    /// and returns its head.
    fn insert(&mut self, key: u64, head: u32) -> Option<u32> {
        match self.first {
            Some((first, present)) if first == key => return Some(present),
            Some((first, _)) if first < key => {
                return match self.others.entry(key) {
                    Entry::Occupied(entry) => Some(*entry.get()),
                    Entry::Vacant(entry) => {
                        entry.insert(head);
                        None
                    }
                };
            }
            _ => {}
        }
        if let Some((key, head)) = self.first.replace((key, head)) {
            self.others.insert(key, head);
        }
        None
    }

    fn remove(&mut self, key: u64) {
        if self.first.is_some_and(|(first, _)| first == key) {
            self.first = self.others.pop_first();
        } else {
            self.others.remove(&key);
        }
    }

    fn iter(&self) -> impl Iterator<Item = u32> {
        let first = self.first.map(|(_, head)| head);
        first.into_iter().chain(self.others.values().copied())
    }
}

impl Rings {
    fn key(&self, member: u32) -> Option<u64> {
        let place = self.places.get(member as usize)?;
        (place.next != u32::MAX).then_some(place.key)
    }

    /// Returns whether `member`, which must be in a ring, has the key `key`. If all members have
    /// the same key, the member's place is not read.
    fn has(&self, member: u32, key: u64) -> bool {
        self.heads.only() == Some(key) || self.key(member) == Some(key)
    }

    fn append(&mut self, member: u32, key: u64) {
        let index = member as usize;
        if index >= self.places.len() {
            self.places.resize(index + 1, Place::NONE);
        }
        match self.heads.insert(key, member) {
            None => self.places[index] = Place { key, next: member, previous: member },
            Some(head) => {
                let previous = std::mem::replace(&mut self.places[head as usize].previous, member);
                self.places[previous as usize].next = member;
                self.places[index] = Place { key, next: head, previous };
            }
        }
    }

    fn remove(&mut self, member: u32) {
        let Some(key) = self.key(member) else { return };
        let Place { next, previous, .. } =
            std::mem::replace(&mut self.places[member as usize], Place::NONE);
        if next == member {
            self.heads.remove(key);
            return;
        }
        self.places[previous as usize].next = next;
        self.places[next as usize].previous = previous;
        if let Some(head) = self.heads.get_mut(key)
            && *head == member
        {
            *head = next;
        }
    }

    fn move_to_end(&mut self, member: u32) {
        let Some(key) = self.key(member) else { return };
        match self.heads.get_mut(key) {
            Some(head) if *head == member => *head = self.places[member as usize].next,
            _ => {
                self.remove(member);
                self.append(member, key);
            }
        }
    }

    fn iter(&self) -> impl Iterator<Item = u32> {
        self.heads.iter().flat_map(move |head| {
            let mut next = Some(head);
            std::iter::from_fn(move || {
                let member = next?;
                let following = self.places[member as usize].next;
                next = (following != head).then_some(following);
                Some(member)
            })
        })
    }
}
