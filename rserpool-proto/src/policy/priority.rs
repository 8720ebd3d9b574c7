//! Priority (RFC 5356 section 4.5).

use super::Order;
use crate::wire::{PolicyParameters, PolicyType};

/// Selects the element with the highest priority (RFC 5356 section 4.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Priority;

impl Order for Priority {
    fn policy_type(&self) -> PolicyType {
        PolicyType::PRIORITY
    }

    fn words(&self) -> usize {
        1
    }

    fn key(&self, parameters: &PolicyParameters) -> u64 {
        u64::from(u32::MAX - parameters.words()[0])
    }
}
