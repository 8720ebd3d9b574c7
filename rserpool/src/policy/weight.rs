//! Policies that are a weight.

use std::fmt;
use std::sync::Arc;

use rand::{Rng, RngExt};

use super::{InvalidPolicy, Member, SelectionPolicy, Selector, Wanted, require_words};
use crate::wire::{PolicyParameters, PolicyType};

/// A policy that draws elements at random, in proportion to a weight and without putting them
/// back. Wrapped into [`ByWeight`] it is a [`SelectionPolicy`].
pub trait Weight: fmt::Debug + Send + Sync + 'static {
    /// The number of the policy.
    fn policy_type(&self) -> PolicyType;

    /// How many 32-bit words of parameters the weight needs; fewer are refused.
    fn words(&self) -> usize {
        0
    }

    /// How often the element is drawn in relation to the others; 0 is never.
    fn weight(&self, parameters: &PolicyParameters) -> u32;

    /// What each selection takes off the element's weight until it registers again. At least 1
    /// is left of a weight that is not 0.
    fn degradation(&self, _parameters: &PolicyParameters) -> u32 {
        0
    }
}

/// Makes a [`SelectionPolicy`] of a [`Weight`]. An element that joins, leaves or has another
/// weight costs O(1), a selection of n elements O(n) drawings.
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
            urn: Urn::default(),
            degradations: Vec::new(),
            put_back: Vec::new(),
        })
    }
}

#[derive(Debug)]
struct WeightSelector<W> {
    policy: Arc<ByWeight<W>>,
    urn: Urn,
    /// By member, as far as there are any but 0.
    degradations: Vec<u32>,
    /// Those taken out while a selection goes on, and their weights.
    put_back: Vec<(u32, u32)>,
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
        self.urn.set(member.0, self.policy.0.weight(parameters));
    }

    fn update(&mut self, member: Member, parameters: &PolicyParameters) {
        self.insert(member, parameters);
    }

    fn remove(&mut self, member: Member) {
        self.urn.set(member.0, 0);
    }

    fn select(&mut self, wanted: Wanted, rng: &mut dyn Rng, selected: &mut Vec<Member>) {
        let first = selected.len();
        while selected.len() - first < wanted.items
            && let Some(drawn) = self.urn.draw(rng)
        {
            if selected[first..].contains(&Member(drawn)) {
                // Not to be drawn a third time.
                self.put_back.push((drawn, self.urn.weight(drawn)));
                self.urn.set(drawn, 0);
            } else {
                selected.push(Member(drawn));
            }
        }
        for (member, weight) in self.put_back.drain(..) {
            self.urn.set(member, weight);
        }
        if self.degradations.is_empty() {
            return;
        }
        let increment = wanted.max_increment.unwrap_or(usize::MAX);
        for Member(member) in selected[first..].iter().take(increment) {
            let degradation = self.degradations.get(*member as usize).copied().unwrap_or(0);
            if degradation > 0 {
                self.urn.set(*member, self.urn.weight(*member).saturating_sub(degradation).max(1));
            }
        }
    }
}

/// Members with weights, to be drawn in proportion to them.
///
/// Members whose weights have the same number of binary digits are together. Such a class is
/// chosen by the sum of its weights, and then any member of it, which counts with the
/// probability that its weight is of the largest one possible: at least one half. So are the
/// drawings exact, and expected to need fewer than two tries. (After Y. Matias, J. S. Vitter and
/// W.-C. Ni, "Dynamic generation of discrete random variates", 1993; one level of it, since
/// there are 33 classes at most.)
#[derive(Debug, Default)]
struct Urn {
    /// By member.
    places: Vec<Ticket>,
    /// Those that are not empty, the largest weights first.
    classes: Vec<Class>,
    total: u64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Ticket {
    weight: u32,
    /// Where in its class.
    index: u32,
}

#[derive(Debug)]
struct Class {
    /// Its weights are at most 2 to the power of this, and more than half of that.
    exponent: u8,
    members: Vec<u32>,
    total: u64,
}

fn exponent(weight: u32) -> u8 {
    // At most 32.
    (u32::BITS - (weight - 1).leading_zeros()) as u8
}

impl Urn {
    fn weight(&self, member: u32) -> u32 {
        self.places.get(member as usize).map_or(0, |ticket| ticket.weight)
    }

    fn set(&mut self, member: u32, weight: u32) {
        let old = self.weight(member);
        if old == weight {
            return;
        }
        self.total = self.total - u64::from(old) + u64::from(weight);
        if old > 0 && weight > 0 && exponent(old) == exponent(weight) {
            let class = self.class(exponent(old)).expect("it has a member");
            let class = &mut self.classes[class];
            class.total = class.total - u64::from(old) + u64::from(weight);
            self.places[member as usize].weight = weight;
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
        let number = self.class(exponent(weight)).expect("it has a member");
        let class = &mut self.classes[number];
        let index = std::mem::take(&mut self.places[member as usize]).index;
        class.members.swap_remove(index as usize);
        if let Some(moved) = class.members.get(index as usize) {
            self.places[*moved as usize].index = index;
        }
        class.total -= u64::from(weight);
        if class.members.is_empty() {
            self.classes.remove(number);
        }
    }

    fn put(&mut self, member: u32, weight: u32) {
        if member as usize >= self.places.len() {
            self.places.resize(member as usize + 1, Ticket::default());
        }
        let exponent = exponent(weight);
        let number = self.class(exponent).unwrap_or_else(|number| {
            self.classes.insert(number, Class { exponent, members: Vec::new(), total: 0 });
            number
        });
        let class = &mut self.classes[number];
        let index = u32::try_from(class.members.len()).expect("members are 32-bit numbers");
        self.places[member as usize] = Ticket { weight, index };
        class.members.push(member);
        class.total += u64::from(weight);
    }

    fn draw(&self, rng: &mut dyn Rng) -> Option<u32> {
        if self.total == 0 {
            return None;
        }
        let mut point = match &self.classes[..] {
            [_] => 0,
            _ => rng.random_range(0..self.total),
        };
        let class = self.classes.iter().find(|class| {
            let here = point < class.total;
            point = point.saturating_sub(class.total);
            here
        })?;
        let most = 1 << class.exponent;
        // As in a pool that draws without weights.
        let all_weigh_most = class.total == most * class.members.len() as u64;
        loop {
            let member = class.members[rng.random_range(0..class.members.len())];
            if all_weigh_most {
                return Some(member);
            }
            let weight = u64::from(self.places[member as usize].weight);
            if weight == most || rng.random_range(0..most) < weight {
                return Some(member);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

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
        let rng = &mut StdRng::seed_from_u64(1);
        let mut urn = Urn::default();
        for round in 0..2000_u32 {
            urn.set(rng.random_range(0..50), rng.random_range(0..=9) << rng.random_range(0..28));
            let weights = urn.places.iter().map(|ticket| u64::from(ticket.weight));
            assert_eq!(urn.total, weights.sum::<u64>());
            for class in &urn.classes {
                let members = class.members.iter().map(|member| urn.weight(*member));
                assert!(members.clone().all(|weight| exponent(weight) == class.exponent));
                assert_eq!(class.total, members.map(u64::from).sum::<u64>(), "round {round}");
            }
            if let Some(drawn) = urn.draw(rng) {
                assert!(urn.weight(drawn) > 0);
            }
        }
        (0..50).for_each(|member| urn.set(member, 0));
        assert!(urn.classes.is_empty() && urn.draw(rng).is_none());
    }
}
