//! The policies that depend on the elements' load (RFC 5356 section 5).

use super::{Order, Weight};
use crate::wire::{PolicyParameters, PolicyType};

/// Selects the element with the lowest load (RFC 5356 section 5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LeastUsed;

impl Order for LeastUsed {
    fn policy_type(&self) -> PolicyType {
        PolicyType::LEAST_USED
    }

    fn words(&self) -> usize {
        1
    }

    fn key(&self, parameters: &PolicyParameters) -> u64 {
        u64::from(parameters.words()[0])
    }
}

/// Selects the element with the lowest load. Each selection adds the element's load degradation
/// until it registers again (RFC 5356 section 5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LeastUsedDegradation;

impl Order for LeastUsedDegradation {
    fn policy_type(&self) -> PolicyType {
        PolicyType::LEAST_USED_DEGRADATION
    }

    fn words(&self) -> usize {
        2
    }

    fn key(&self, parameters: &PolicyParameters) -> u64 {
        u64::from(parameters.words()[0])
    }

    fn degradation(&self, parameters: &PolicyParameters) -> u32 {
        parameters.words()[1]
    }
}

/// Selects the element whose load would be the lowest after the selection (RFC 5356 section 5.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PriorityLeastUsed;

impl Order for PriorityLeastUsed {
    fn policy_type(&self) -> PolicyType {
        PolicyType::PRIORITY_LEAST_USED
    }

    fn words(&self) -> usize {
        2
    }

    fn key(&self, parameters: &PolicyParameters) -> u64 {
        u64::from(parameters.words()[0]) + u64::from(parameters.words()[1])
    }
}

/// Draws elements at random, in proportion to their unused capacity (RFC 5356 section 5.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RandomizedLeastUsed;

impl Weight for RandomizedLeastUsed {
    fn policy_type(&self) -> PolicyType {
        PolicyType::RANDOMIZED_LEAST_USED
    }

    fn words(&self) -> usize {
        1
    }

    fn weight(&self, parameters: &PolicyParameters) -> u32 {
        u32::MAX - parameters.words()[0]
    }
}
