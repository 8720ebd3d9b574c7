//! Round Robin (RFC 5356 section 4.1).

use super::Order;
use crate::wire::{PolicyParameters, PolicyType};

/// Selects all elements in turn (RFC 5356 section 4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RoundRobin;

impl Order for RoundRobin {
    fn policy_type(&self) -> PolicyType {
        PolicyType::ROUND_ROBIN
    }

    fn key(&self, _: &PolicyParameters) -> u64 {
        0
    }
}
