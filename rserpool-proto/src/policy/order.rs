//! Policies that are an order.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::sync::Arc;

use rand::Rng;

use super::{InvalidPolicy, Member, SelectionPolicy, Selector, Wanted, require_words};
use crate::wire::{PolicyParameters, PolicyType};

/// A policy that orders the elements of a pool: the smallest key first, round robin among
/// equal keys. Wrapped into [`ByOrder`] it is a [`SelectionPolicy`].
pub trait Order: fmt::Debug + Send + Sync + 'static {
    /// The number of the policy.
    fn policy_type(&self) -> PolicyType;

    /// Returns the number of 32-bit words of parameters the key needs; fewer are refused.
    fn words(&self) -> usize {
        0
    }

    /// Returns the sort key of an element with `parameters`.
    fn key(&self, parameters: &PolicyParameters) -> u64;

    /// Returns the amount that each selection adds to the element's key until it registers again.
    fn degradation(&self, _parameters: &PolicyParameters) -> u32 {
        0
    }

    /// Returns the number of elements of an answer that count as selected, and so degrade or move
    /// behind their equals (MaxIncrement in rsplib). Default: the first alone, since that is the
    /// one which is used, and so that the next answer starts one element further (round robin: RFC
    /// 5356 section 4.1.2).
    fn max_increment(&self) -> usize {
        1
    }
}

/// Makes a [`SelectionPolicy`] of an [`Order`]. An element that joins, leaves or has another key
/// costs O(log k) in a pool of k different keys, a selection of n elements O(n + log k), and
/// O(log k) for each whose key degrades. With one key for all, as in round robin, everything is
/// O(1), and a selection O(n).
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
    /// By member, as far as there are any but 0.
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
        // Registering again is no reason to lose one's turn.
        if !self.rings.has(member.0, key) {
            self.rings.remove(member.0);
            self.rings.append(member.0, key);
        }
    }

    fn remove(&mut self, member: Member) {
        self.rings.remove(member.0);
    }

    fn select(&mut self, wanted: Wanted, _: &mut dyn Rng, selected: &mut Vec<Member>) {
        let first = selected.len();
        selected.extend(self.rings.iter().take(wanted.items).map(Member));
        let increment = wanted.max_increment.unwrap_or_else(|| self.policy.0.max_increment());
        for member in selected[first..].iter().take(increment) {
            self.count(*member);
        }
    }

    fn resume(&mut self, order: &[Member], _: bool, _: &mut dyn Rng) {
        // The registrar knows what was selected before, and who may be unreachable: whoever is
        // behind another has no better key than that one.
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
}

impl<O: Order> OrderSelector<O> {
    /// The member was selected.
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

/// Members with keys, in the order of these; those of one key in a ring of their own, the order
/// of which is the order in which they came.
#[derive(Debug, Default)]
struct Rings {
    heads: Heads,
    /// By member.
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
    /// Of a member that is in no ring. Nobody has that number, for pools are smaller.
    const NONE: Self = Self { key: 0, next: u32::MAX, previous: u32::MAX };
}

/// The first member of each ring, in the order of the keys. The first ring's is in place, since
/// that is all that most selections need, and all that there is where all have the same key.
#[derive(Debug, Default)]
struct Heads {
    first: Option<(u64, u32)>,
    others: BTreeMap<u64, u32>,
}

impl Heads {
    /// The only key, if there is but one.
    fn only(&self) -> Option<u64> {
        self.first.map(|(key, _)| key).filter(|_| self.others.is_empty())
    }

    fn get_mut(&mut self, key: u64) -> Option<&mut u32> {
        match &mut self.first {
            Some((first, head)) if *first == key => Some(head),
            _ => self.others.get_mut(&key),
        }
    }

    /// Adds a ring, unless there is one of that key, the head of which is the answer then.
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

    /// Returns whether `member`, which is in a ring, has this key. With one key for all it need not
    /// be looked at.
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
