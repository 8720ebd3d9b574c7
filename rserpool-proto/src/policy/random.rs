//! Random and Weighted Random (RFC 5356 sections 4.3 and 4.4).

use super::Weight;
use crate::wire::{PolicyParameters, PolicyType};

/// Draws elements at random, all with the same probability (RFC 5356 section 4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Random;

impl Weight for Random {
    fn policy_type(&self) -> PolicyType {
        PolicyType::RANDOM
    }

    fn weight(&self, _: &PolicyParameters) -> u32 {
        1
    }
}

/// Draws elements at random, in proportion to their weights (RFC 5356 section 4.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WeightedRandom;

impl Weight for WeightedRandom {
    fn policy_type(&self) -> PolicyType {
        PolicyType::WEIGHTED_RANDOM
    }

    fn words(&self) -> usize {
        1
    }

    fn weight(&self, parameters: &PolicyParameters) -> u32 {
        parameters.words()[0]
    }
}
