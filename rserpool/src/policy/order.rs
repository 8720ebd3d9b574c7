//! Policies that are an order.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use rand::Rng;

use super::{InvalidPolicy, Member, SelectionPolicy, Selector, require_words};
use crate::wire::{PolicyParameters, PolicyType};

/// A policy that orders the elements of a pool: the smallest key first, round robin among
/// equal keys. Wrapped into [`ByOrder`] it is a [`SelectionPolicy`].
pub trait Order: fmt::Debug + Send + Sync + 'static {
    /// The number of the policy.
    fn policy_type(&self) -> PolicyType;

    /// How many 32-bit words of parameters the key needs; fewer are refused.
    fn words(&self) -> usize {
        0
    }

    /// Where an element stands that said `parameters` and was selected `selected` times since
    /// it last registered.
    fn key(&self, parameters: &PolicyParameters, selected: u32) -> u64;

    /// Which of the elements in an answer count as selected.
    fn advance(&self) -> Advance {
        Advance::First
    }
}

/// Which of the elements in an answer count as selected, and so move behind their equals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Advance {
    /// The first, which the pool user tries first. The next answer then starts one element
    /// further, as RFC 5356 section 4.1.2 has it for round robin.
    First,
    /// All of them (RFC 5356 section 5.2.2).
    All,
}

/// Makes a [`SelectionPolicy`] of an [`Order`]. Each operation costs O(log n) in a pool of n
/// elements, a selection of k elements O(k + log n), or O(k log n) where all of them advance.
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
        Box::new(OrderSelector {
            policy: self,
            queue: BTreeSet::new(),
            places: Vec::new(),
            next_turn: 0,
        })
    }
}

#[derive(Debug)]
struct OrderSelector<O> {
    policy: Arc<ByOrder<O>>,
    queue: BTreeSet<(u64, u64, Member)>,
    /// By member: its parameters and where it stands in the queue.
    places: Vec<Option<Place>>,
    next_turn: u64,
}

#[derive(Debug)]
struct Place {
    parameters: PolicyParameters,
    selected: u32,
    key: u64,
    turn: u64,
}

impl<O: Order> OrderSelector<O> {
    fn new_turn(&mut self) -> u64 {
        self.next_turn += 1;
        self.next_turn
    }

    fn enqueue(&mut self, member: Member, turn: u64, parameters: PolicyParameters, selected: u32) {
        let key = self.policy.0.key(&parameters, selected);
        self.queue.insert((key, turn, member));
        let index = member.0 as usize;
        if index >= self.places.len() {
            self.places.resize_with(index + 1, || None);
        }
        self.places[index] = Some(Place { parameters, selected, key, turn });
    }

    fn dequeue(&mut self, member: Member) -> Option<Place> {
        let place = self.places.get_mut(member.0 as usize)?.take()?;
        self.queue.remove(&(place.key, place.turn, member));
        Some(place)
    }
}

impl<O: Order> Selector for OrderSelector<O> {
    fn insert(&mut self, member: Member, parameters: &PolicyParameters) {
        let turn = self.new_turn();
        self.enqueue(member, turn, parameters.clone(), 0);
    }

    fn update(&mut self, member: Member, parameters: &PolicyParameters) {
        // Registering again is no reason to lose one's turn.
        if let Some(place) = self.dequeue(member) {
            self.enqueue(member, place.turn, parameters.clone(), 0);
        }
    }

    fn remove(&mut self, member: Member) {
        self.dequeue(member);
    }

    fn select(&mut self, count: usize, _: &mut dyn Rng, selected: &mut Vec<Member>) {
        let first = selected.len();
        selected.extend(self.queue.iter().take(count).map(|(_, _, member)| *member));
        let advancing = match self.policy.0.advance() {
            Advance::First => first..selected.len().min(first + 1),
            Advance::All => first..selected.len(),
        };
        for member in &selected[advancing] {
            if let Some(place) = self.dequeue(*member) {
                let turn = self.new_turn();
                self.enqueue(*member, turn, place.parameters, place.selected.saturating_add(1));
            }
        }
    }
}
