//! Reliable Server Pooling.

pub mod driver;
pub mod handlespace;
pub mod policy;
pub mod protocol;
pub mod runtime;
pub mod transport;
pub mod wire;
