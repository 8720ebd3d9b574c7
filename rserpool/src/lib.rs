//! Reliable Server Pooling.

pub mod handlespace;
pub mod policy;
pub mod protocol;
pub mod wire;
