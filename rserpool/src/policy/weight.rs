//! Policies that are a weight.

use std::fmt;
use std::sync::Arc;

use rand::{Rng, RngExt};

use super::{InvalidPolicy, Member, SelectionPolicy, Selector, require_words};
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
}

/// Makes a [`SelectionPolicy`] of a [`Weight`]. Each operation costs O(log n) in a pool of n
/// elements, a selection of k elements O(k log n).
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
        Box::new(WeightSelector { policy: self, tree: Fenwick::default() })
    }
}

#[derive(Debug)]
struct WeightSelector<W> {
    policy: Arc<ByWeight<W>>,
    tree: Fenwick,
}

impl<W: Weight> Selector for WeightSelector<W> {
    fn insert(&mut self, member: Member, parameters: &PolicyParameters) {
        self.tree.set(member.0 as usize, self.policy.0.weight(parameters));
    }

    fn update(&mut self, member: Member, parameters: &PolicyParameters) {
        self.insert(member, parameters);
    }

    fn remove(&mut self, member: Member) {
        self.tree.set(member.0 as usize, 0);
    }

    fn select(&mut self, count: usize, rng: &mut dyn Rng, selected: &mut Vec<Member>) {
        let first = selected.len();
        let mut put_back = Vec::new();
        while put_back.len() < count && self.tree.total() > 0 {
            let index = self.tree.find(rng.random_range(0..self.tree.total()));
            put_back.push(self.tree.weight(index));
            self.tree.set(index, 0);
            selected.push(Member(u32::try_from(index).expect("members are 32-bit numbers")));
        }
        for (Member(index), weight) in selected[first..].iter().zip(put_back) {
            self.tree.set(*index as usize, weight);
        }
    }
}

/// Weights with their prefix sums, after P. Fenwick, "A new data structure for cumulative
/// frequency tables" (1994).
#[derive(Debug, Default)]
struct Fenwick {
    weights: Vec<u32>,
    /// At `i`: the sum of the `lowest_bit(i + 1)` weights that end with weight `i`. Its length
    /// is a power of two, so that the last one is the sum of all.
    sums: Vec<u64>,
}

impl Fenwick {
    fn total(&self) -> u64 {
        self.sums.last().copied().unwrap_or(0)
    }

    fn weight(&self, index: usize) -> u32 {
        self.weights[index]
    }

    fn set(&mut self, index: usize, weight: u32) {
        if index >= self.weights.len() {
            self.grow(index + 1);
        }
        let old = std::mem::replace(&mut self.weights[index], weight);
        let mut position = index + 1;
        while position <= self.sums.len() {
            let sum = &mut self.sums[position - 1];
            *sum = *sum - u64::from(old) + u64::from(weight);
            position += position & position.wrapping_neg();
        }
    }

    fn grow(&mut self, length: usize) {
        let total = self.total();
        let length = length.next_power_of_two();
        let old = self.sums.len();
        self.weights.resize(length, 0);
        self.sums.resize(length, 0);
        // New sums are empty but for those that reach back over all the old weights.
        let mut position = old.max(1) * 2;
        while old > 0 && position <= length {
            self.sums[position - 1] = total;
            position *= 2;
        }
    }

    /// The index whose share of the total contains `point`.
    fn find(&self, mut point: u64) -> usize {
        let mut position = 0;
        let mut step = self.sums.len();
        while step > 0 {
            let next = position + step;
            if next <= self.sums.len() && self.sums[next - 1] <= point {
                point -= self.sums[next - 1];
                position = next;
            }
            step /= 2;
        }
        position
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_point_belongs_to_the_weight_that_covers_it() {
        let mut tree = Fenwick::default();
        let weights = [3, 0, 5, 1, 0, 0, 7, 2, 4, 0, 1];
        for (index, weight) in weights.iter().enumerate() {
            tree.set(index, *weight);
        }
        tree.set(2, 0);
        let weights: Vec<u32> = (0..11).map(|i| tree.weight(i)).collect();
        let expected: Vec<usize> =
            weights.iter().enumerate().flat_map(|(i, w)| vec![i; *w as usize]).collect();
        let found: Vec<usize> = (0..tree.total()).map(|point| tree.find(point)).collect();
        assert_eq!(found, expected);
    }
}
