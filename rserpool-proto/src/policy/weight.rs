//! Policies that draw elements by weight.

use std::fmt;
use std::sync::Arc;

use rand::RngExt;
use smallvec::SmallVec;

use super::{
    InvalidPolicy, Member, RandomSource, Rank, SelectionPolicy, Selector, Wanted, require_words,
};
use crate::wire::{PolicyParameters, PolicyType};

/// A policy that draws elements at random without replacement, in proportion to their weights.
/// Wrapped into [`ByWeight`] it is a [`SelectionPolicy`].
pub trait Weight: fmt::Debug + Send + Sync + 'static {
    /// Returns the number of the policy.
    fn policy_type(&self) -> PolicyType;

    /// Returns the number of 32-bit words of parameters that the weight needs. Elements with fewer
    /// are refused. Default: 0.
    fn words(&self) -> usize {
        0
    }

    /// Returns the weight of an element. Elements are selected in proportion to their weights. An
    /// element of weight 0 is never selected, unless all elements have weight 0.
    fn weight(&self, parameters: &PolicyParameters) -> u32;

    /// Returns the amount that each selection subtracts from the element's weight until it
    /// registers again. Degradation does not reduce a weight below 1; a weight of 0 remains 0.
    /// Default: 0.
    fn degradation(&self, _parameters: &PolicyParameters) -> u32 {
        0
    }
}

/// Turns a [`Weight`] into a [`SelectionPolicy`]. Adding, removing or changing an element costs
/// O(1), a selection of n elements O(n) draws.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ByWeight<W>(pub W);

impl<W: Weight> SelectionPolicy for ByWeight<W> {
    fn policy_type(&self) -> PolicyType {
        self.0.policy_type()
    }

    fn validate(&self, parameters: &PolicyParameters) -> Result<(), InvalidPolicy> {
        require_words(self.0.words(), parameters)
    }

    fn new_selector(self: Arc<Self>) -> Box<dyn Selector> {
        Box::new(WeightSelector {
            policy: self,
            sampler: Sampler::default(),
            idle: Sampler::default(),
            degradations: Vec::new(),
        })
    }
}

#[derive(Debug)]
struct WeightSelector<W> {
    policy: Arc<ByWeight<W>>,
    sampler: Sampler,
    /// Members of weight 0. If all members have weight 0, the selector draws them with equal
    /// probability, so that the selection is not empty.
    idle: Sampler,
    /// The degradation of each member, indexed by member number; members beyond the end have
    /// degradation 0.
    degradations: Vec<u32>,
}

impl<W: Weight> Selector for WeightSelector<W> {
    fn insert(&mut self, member: Member, parameters: &PolicyParameters) {
        let degradation = self.policy.0.degradation(parameters);
        let index = member.0 as usize;
        if degradation > 0 && index >= self.degradations.len() {
            self.degradations.resize(index + 1, 0);
        }
        if let Some(present) = self.degradations.get_mut(index) {
            *present = degradation;
        }
        let weight = self.policy.0.weight(parameters);
        self.sampler.set(member.0, weight);
        self.idle.set(member.0, u32::from(weight == 0));
    }

    fn update(&mut self, member: Member, parameters: &PolicyParameters) {
        self.insert(member, parameters);
    }

    fn remove(&mut self, member: Member) {
        self.sampler.set(member.0, 0);
        self.idle.set(member.0, 0);
    }

    fn select(&mut self, wanted: Wanted, rng: &mut RandomSource, selected: &mut Vec<Member>) {
        let first = selected.len();
        let sampler = if self.sampler.len == 0 { &mut self.idle } else { &mut self.sampler };
        sampler.draw_different(wanted.items, rng, selected);
        for member in selected[first..].iter().take(wanted.max_increment.unwrap_or(1)) {
            self.count(*member);
        }
    }

    fn resume(&mut self, order: &[Member], complete: bool, _: &mut RandomSource) {
        if !complete {
            for Member(member) in order {
                self.sampler.set(*member, self.sampler.weight(*member).min(1));
            }
        }
        if let Some(first) = order.first() {
            self.count(*first);
        }
    }

    fn fork(&self) -> Option<Box<dyn Selector>> {
        Some(Box::new(Self {
            policy: Arc::clone(&self.policy),
            sampler: self.sampler.clone(),
            idle: self.idle.clone(),
            degradations: self.degradations.clone(),
        }))
    }

    fn rank(&self, Member(member): Member) -> Option<Rank> {
        Some(Rank::Weight(self.sampler.weight(member).into()))
    }
}

impl<W> WeightSelector<W> {
    /// Counts a selection of the member: subtracts its degradation from its weight.
    fn count(&mut self, Member(member): Member) {
        let degradation = self.degradations.get(member as usize).copied().unwrap_or(0);
        let weight = self.sampler.weight(member);
        if degradation > 0 && weight > 0 {
            self.sampler.set(member, weight.saturating_sub(degradation).max(1));
        }
    }
}

/// Members with weights; draws members in proportion to their weights.
///
/// Members whose weights are between the same two powers of two form a class. A draw chooses a
/// class in proportion to the sum of its weights, and then any member of the class. The member is
/// accepted with a probability of at least one half: its weight divided by the largest weight
/// possible in the class. Otherwise another member of the class is tried. So the draws are exact,
/// and need fewer than two tries on average. (After Y. Matias, J. S. Vitter and W.-C. Ni, "Dynamic
/// generation of discrete random variates", 1993. One level suffices, since there are at most 33
/// classes.)
#[derive(Debug, Clone, Default)]
struct Sampler {
    /// The weight of each member and its position in its class, indexed by member number.
    tickets: Vec<Ticket>,
    /// The classes that are not empty, those of the largest weights first.
    classes: SmallVec<[Class; 1]>,
    total: u64,
    /// The number of members whose weight is not 0.
    len: usize,
}

#[derive(Debug, Clone, Copy, Default)]
struct Ticket {
    weight: u32,
    /// The position of the member in its class.
    index: u32,
}

#[derive(Debug, Clone)]
struct Class {
    /// The class has the members whose weights are at most 2 to the power of `exponent`, and more
    /// than half of that.
    exponent: u8,
    candidates: Vec<Candidate>,
    total: u64,
}

/// A member with a copy of its weight, so that both are read together.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    member: u32,
    weight: u32,
}

impl Class {
    fn new(exponent: u8) -> Self {
        Self { exponent, candidates: Vec::new(), total: 0 }
    }

    fn most(&self) -> u64 {
        1 << self.exponent
    }

    /// Returns whether all members have the largest weight of the class, as in a pool that draws
    /// without weights.
    fn all_weigh_most(&self) -> bool {
        self.total == self.most() * self.candidates.len() as u64
    }

    fn any(&self, rng: &mut RandomSource) -> &Candidate {
        &self.candidates[rng.rng().random_range(0..self.candidates.len())]
    }

    /// Decides at random whether a chosen member of that weight counts as drawn.
    fn counts(&self, weight: u32, rng: &mut RandomSource) -> bool {
        let weight = u64::from(weight);
        weight == self.most() || rng.rng().random_range(0..self.most()) < weight
    }
}

/// The maximum number of members that are drawn at once.
const AT_ONCE: usize = 16;

fn exponent(weight: u32) -> u8 {
    // The exponent is at most 32.
    (u32::BITS - (weight - 1).leading_zeros()) as u8
}

impl Sampler {
    fn weight(&self, member: u32) -> u32 {
        self.tickets.get(member as usize).map_or(0, |ticket| ticket.weight)
    }

    fn set(&mut self, member: u32, weight: u32) {
        let old = self.weight(member);
        if old == weight {
            return;
        }
        self.total = self.total - u64::from(old) + u64::from(weight);
        if old > 0 && weight > 0 && exponent(old) == exponent(weight) {
            let class = self.class(exponent(old)).expect("the class of a member exists");
            let class = &mut self.classes[class];
            class.total = class.total - u64::from(old) + u64::from(weight);
            let ticket = &mut self.tickets[member as usize];
            ticket.weight = weight;
            class.candidates[ticket.index as usize].weight = weight;
            return;
        }
        if old > 0 {
            self.take(member, old);
        }
        if weight > 0 {
            self.put(member, weight);
        }
    }

    fn class(&self, exponent: u8) -> Result<usize, usize> {
        self.classes.binary_search_by(|class| exponent.cmp(&class.exponent))
    }

    fn take(&mut self, member: u32, weight: u32) {
        let number = self.class(exponent(weight)).expect("the class of a member exists");
        let class = &mut self.classes[number];
        let index = std::mem::take(&mut self.tickets[member as usize]).index;
        class.candidates.swap_remove(index as usize);
        if let Some(moved) = class.candidates.get(index as usize) {
            self.tickets[moved.member as usize].index = index;
        }
        class.total -= u64::from(weight);
        self.len -= 1;
        if class.candidates.is_empty() {
            self.classes.remove(number);
        }
    }

    fn put(&mut self, member: u32, weight: u32) {
        if member as usize >= self.tickets.len() {
            self.tickets.resize(member as usize + 1, Ticket::default());
        }
        let exponent = exponent(weight);
        let number = self.class(exponent).unwrap_or_else(|number| {
            self.classes.insert(number, Class::new(exponent));
            number
        });
        let class = &mut self.classes[number];
        let index = u32::try_from(class.candidates.len()).expect("members are 32-bit numbers");
        self.tickets[member as usize] = Ticket { weight, index };
        class.candidates.push(Candidate { member, weight });
        class.total += u64::from(weight);
        self.len += 1;
    }

    /// Draws up to `items` members, without duplicates.
    fn draw_different(&mut self, items: usize, rng: &mut RandomSource, selected: &mut Vec<Member>) {
        let first = selected.len();
        let mut taken = SmallVec::<[(u32, u32); AT_ONCE]>::new();
        loop {
            let missing = items - (selected.len() - first);
            let mut drawn = [0; AT_ONCE];
            let drawn = &mut drawn[..missing.min(self.len).min(AT_ONCE)];
            self.draw(drawn, rng);
            let before = selected.len();
            for member in &*drawn {
                if !selected[first..].contains(&Member(*member)) {
                    selected.push(Member(*member));
                }
            }
            if selected.len() - first == items || self.total == 0 {
                break;
            }
            // Some members were drawn twice, so there are few members. Those selected so far are
            // removed from the sampler until the selection is complete.
            if selected.len() - before < drawn.len() {
                for Member(member) in &selected[first + taken.len()..] {
                    taken.push((*member, self.weight(*member)));
                    self.set(*member, 0);
                }
            }
        }
        for (member, weight) in taken {
            self.set(member, weight);
        }
    }

    /// Fills `drawn`, which has at most [`AT_ONCE`] places, with random members. Some may be drawn
    /// more than once. At least one member must have a weight.
    fn draw(&self, drawn: &mut [u32], rng: &mut RandomSource) {
        match &self.classes[..] {
            [class] if class.all_weigh_most() => {
                drawn.fill_with(|| class.any(rng).member);
            }
            _ if drawn.len() > 1 => self.draw_together(drawn, rng),
            _ => drawn.fill_with(|| {
                let class = self.class_of_any(rng);
                loop {
                    let candidate = class.any(rng);
                    if class.counts(candidate.weight, rng) {
                        return candidate.member;
                    }
                }
            }),
        }
    }

    /// Draws several members together: reads all chosen candidates before it accepts or rejects
    /// one, so that the draws wait for memory once and not one after the other.
    fn draw_together(&self, drawn: &mut [u32], rng: &mut RandomSource) {
        let (mut classes, mut weights) = ([&self.classes[0]; AT_ONCE], [0; AT_ONCE]);
        classes[..drawn.len()].fill_with(|| self.class_of_any(rng));
        let mut open = (1_u32 << drawn.len()) - 1;
        while open != 0 {
            for drawing in ones(open) {
                let candidate = classes[drawing].any(rng);
                (drawn[drawing], weights[drawing]) = (candidate.member, candidate.weight);
            }
            for drawing in ones(open) {
                if classes[drawing].counts(weights[drawing], rng) {
                    open &= !(1 << drawing);
                }
            }
        }
    }

    /// Returns a class drawn at random, in proportion to the total weight of its members.
    fn class_of_any(&self, rng: &mut RandomSource) -> &Class {
        if let [class] = &self.classes[..] {
            return class;
        }
        let mut point = rng.rng().random_range(0..self.total);
        let chosen = self.classes.iter().find(|class| {
            let here = point < class.total;
            point = point.saturating_sub(class.total);
            here
        });
        chosen.expect("the total is the sum of the classes' totals")
    }
}

/// Returns the positions of the bits that are set.
fn ones(mut bits: u32) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let next = (bits != 0).then(|| bits.trailing_zeros() as usize);
        bits &= bits.wrapping_sub(1);
        next
    })
}

#[cfg(test)]
mod tests {

    use super::*;

    #[test]
    fn classes_are_powers_of_two() {
        for (weight, expected) in [(1, 0), (2, 1), (3, 2), (4, 2), (5, 3), (1 << 31, 31)] {
            assert_eq!(exponent(weight), expected);
        }
        assert_eq!(exponent((1 << 31) + 1), 32);
        assert_eq!(exponent(u32::MAX), 32);
    }

    #[test]
    fn what_is_taken_out_and_put_back_leaves_the_urn_as_it_was() {
        let rng = &mut RandomSource::from_seed(1);
        let mut sampler = Sampler::default();
        for round in 0..2000_u32 {
            sampler.set(
                rng.rng().random_range(0..50),
                rng.rng().random_range(0..=9) << rng.rng().random_range(0..28),
            );
            let weights = sampler.tickets.iter().map(|ticket| u64::from(ticket.weight));
            assert_eq!(sampler.total, weights.sum::<u64>());
            for class in &sampler.classes {
                let weights =
                    class.candidates.iter().map(|candidate| sampler.weight(candidate.member));
                assert!(
                    weights.clone().eq(class.candidates.iter().map(|candidate| candidate.weight))
                );
                assert!(weights.clone().all(|weight| exponent(weight) == class.exponent));
                assert_eq!(class.total, weights.map(u64::from).sum::<u64>(), "round {round}");
            }
            let mut drawn = [0; 3];
            let drawn = &mut drawn[..sampler.len.min(3)];
            sampler.draw(drawn, rng);
            assert!(drawn.iter().all(|member| sampler.weight(*member) > 0));
        }
        (0..50).for_each(|member| sampler.set(member, 0));
        assert_eq!((sampler.classes.len(), sampler.total), (0, 0));
    }
}
