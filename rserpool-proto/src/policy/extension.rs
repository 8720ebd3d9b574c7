//! The policies of rsplib beyond RFC 5356: combinations of the adaptive policies, and policies that
//! take an element's distance into account.
//!
//! The distance is half of the round-trip time between the element and its home registrar, in
//! milliseconds and coarsely rounded. The home registrar measures it. The delay penalty factor
//! (DPF) is the amount that is added to the load, or subtracted from the weight, for each
//! millisecond of distance.

use super::{Order, Weight};
use crate::wire::{PolicyParameters, PolicyType};

fn values<const N: usize>(parameters: &PolicyParameters) -> [u32; N] {
    std::array::from_fn(|word| parameters.words()[word])
}

/// Returns the sum of a load and an addition to it.
fn sum(load: u32, more: u32) -> u64 {
    u64::from(load) + u64::from(more)
}

fn unload(load: u64) -> u32 {
    u32::MAX - u32::try_from(load).unwrap_or(u32::MAX)
}

fn penalty(factor: u32, distance: u32) -> u64 {
    u64::from(factor) * u64::from(distance)
}

/// Selects the element whose load would be the lowest after the selection. Each selection adds the
/// element's load degradation until it registers again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PriorityLeastUsedDegradation;

impl Order for PriorityLeastUsedDegradation {
    fn policy_type(&self) -> PolicyType {
        PolicyType::PRIORITY_LEAST_USED_DEGRADATION
    }

    fn words(&self) -> usize {
        2
    }

    fn key(&self, parameters: &PolicyParameters) -> u64 {
        let [load, degradation] = values(parameters);
        sum(load, degradation)
    }

    fn degradation(&self, parameters: &PolicyParameters) -> u32 {
        parameters.words()[1]
    }
}

/// Draws elements at random, in proportion to the unused capacity that each would have after the
/// selection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RandomizedPriorityLeastUsed;

impl Weight for RandomizedPriorityLeastUsed {
    fn policy_type(&self) -> PolicyType {
        PolicyType::RANDOMIZED_PRIORITY_LEAST_USED
    }

    fn words(&self) -> usize {
        2
    }

    fn weight(&self, parameters: &PolicyParameters) -> u32 {
        let [load, degradation] = values(parameters);
        unload(sum(load, degradation))
    }
}

/// Draws elements at random, in proportion to their unused capacity. Each selection subtracts the
/// element's load degradation from its unused capacity until it registers again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RandomizedLeastUsedDegradation;

impl Weight for RandomizedLeastUsedDegradation {
    fn policy_type(&self) -> PolicyType {
        PolicyType::RANDOMIZED_LEAST_USED_DEGRADATION
    }

    fn words(&self) -> usize {
        2
    }

    fn weight(&self, parameters: &PolicyParameters) -> u32 {
        let [load, _] = values(parameters);
        unload(load.into())
    }

    fn degradation(&self, parameters: &PolicyParameters) -> u32 {
        parameters.words()[1]
    }
}

/// Combines [`RandomizedPriorityLeastUsed`] with degradation per selection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RandomizedPriorityLeastUsedDegradation;

impl Weight for RandomizedPriorityLeastUsedDegradation {
    fn policy_type(&self) -> PolicyType {
        PolicyType::RANDOMIZED_PRIORITY_LEAST_USED_DEGRADATION
    }

    fn words(&self) -> usize {
        2
    }

    fn weight(&self, parameters: &PolicyParameters) -> u32 {
        let [load, degradation] = values(parameters);
        unload(sum(load, degradation))
    }

    fn degradation(&self, parameters: &PolicyParameters) -> u32 {
        parameters.words()[1]
    }
}

/// Draws elements at random, in proportion to their weights minus the penalty for the distance. The
/// penalty does not reduce a weight below 1; a weight of 0 remains 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WeightedRandomDpf;

impl Weight for WeightedRandomDpf {
    fn policy_type(&self) -> PolicyType {
        PolicyType::WEIGHTED_RANDOM_DPF
    }

    fn words(&self) -> usize {
        3
    }

    fn weight(&self, parameters: &PolicyParameters) -> u32 {
        let [weight, factor, distance] = values(parameters);
        let penalty = u32::try_from(penalty(factor, distance)).unwrap_or(u32::MAX);
        weight.saturating_sub(penalty).max(weight.min(1))
    }
}

/// Selects the element with the lowest sum of load and penalty for the distance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LeastUsedDpf;

impl Order for LeastUsedDpf {
    fn policy_type(&self) -> PolicyType {
        PolicyType::LEAST_USED_DPF
    }

    fn words(&self) -> usize {
        3
    }

    fn key(&self, parameters: &PolicyParameters) -> u64 {
        let [load, factor, distance] = values(parameters);
        u64::from(load).saturating_add(penalty(factor, distance))
    }
}

/// Selects the element with the lowest sum of load and penalty for the distance. Each selection
/// adds the element's load degradation until it registers again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LeastUsedDegradationDpf;

impl Order for LeastUsedDegradationDpf {
    fn policy_type(&self) -> PolicyType {
        PolicyType::LEAST_USED_DEGRADATION_DPF
    }

    fn words(&self) -> usize {
        4
    }

    fn key(&self, parameters: &PolicyParameters) -> u64 {
        let [load, _, factor, distance] = values(parameters);
        u64::from(load).saturating_add(penalty(factor, distance))
    }

    fn degradation(&self, parameters: &PolicyParameters) -> u32 {
        parameters.words()[1]
    }
}
