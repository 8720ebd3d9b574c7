//! What the tests share.

pub mod role;
pub mod simulation;
pub mod world;
