//! What the tests share.

pub mod adversary;
pub mod by_hand;
pub mod echo_pool;
pub mod mutants;
pub mod proportions;
pub mod role;
pub mod simulation;
pub mod world;
